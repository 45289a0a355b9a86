//! `/v1/score` and `/v1/score/batch`.

use std::sync::Arc;

use axum::{
    Extension, Json,
    body::Body,
    extract::{Query, State, rejection::QueryRejection},
    http::HeaderMap,
};
use futures_util::future::join_all;
use tokio::time::Instant;

use super::{
    upload::{self, Part},
    wire::{
        BatchError, BatchOutcome, BatchResponse, BatchResult, RequestHeaders, ScoreQuery, ScoreResponse, TimingsMs,
    },
};
use crate::{
    error::{Code, Error},
    metrics::Outcome,
    scheduler::{Job, Scheduler, Scored, Share, Upload},
    server::{AppState, Judged, RequestContext, Stay, counted, deadline, read_body},
    timings::Timings,
};

/// The longest `external_id`, in characters.
const LONGEST_ID: usize = 200;

/// Judge one image.
///
/// The body is the file itself (`image/*`, `application/octet-stream`), a multipart form with one part named
/// `image`, or JSON with the file in base64.
#[utoipa::path(post, path = "/v1/score", tag = "score", security(("bearer" = []), ("api_key" = []), ()),
    params(ScoreQuery, RequestHeaders),
    request_body(description = "The image", content((Vec<u8> = "application/octet-stream"), (super::wire::ScoreRequest = "application/json"), (super::wire::ImageForm = "multipart/form-data"))),
    responses((status = 200, description = "The judgement", body = ScoreResponse)))]
pub(super) async fn score(
    State(state): State<Arc<AppState>>,
    Extension(context): Extension<RequestContext>,
    query: Result<Query<ScoreQuery>, QueryRejection>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<ScoreResponse>, Error> {
    let judged = counted(&state.metrics, async {
        let Received { query, scheduler, upload, share, deadline } =
            receive(&state, &context, query, &headers, body).await?;
        judge(&state, scheduler, &context, &query, upload, share, deadline).await
    });
    judged.await.map(|(response, _)| Json(response))
}

/// A request with one image, its body read.
pub(super) struct Received<'a> {
    pub(super) query: ScoreQuery,
    pub(super) scheduler: &'a Scheduler,
    pub(super) upload: Upload,
    pub(super) share: Share,
    pub(super) deadline: Instant,
}

/// Takes in a request with one image.
pub(super) async fn receive<'a>(
    state: &'a Arc<AppState>,
    context: &RequestContext,
    query: Result<Query<ScoreQuery>, QueryRejection>,
    headers: &HeaderMap,
    body: Body,
) -> Result<Received<'a>, Error> {
    let query = checked(query)?;
    let scheduler = state.scheduler()?;
    let share = context.admit_image(scheduler)?;
    upload::check_single(headers)?;
    let deadline = deadline(headers, context.started, state.config.request_timeout)?;
    let (body, held) = context.reading(read_body(state, context, scheduler, headers, body, deadline)).await?;
    let bytes = upload::single(headers, body).await?;
    Ok(Received { query, scheduler, upload: Upload { bytes, held: Arc::new(held) }, share, deadline })
}

/// Judge several images.
///
/// Each gets a result or an error of its own, in the order of the request.
#[utoipa::path(post, path = "/v1/score/batch", tag = "score", security(("bearer" = []), ("api_key" = []), ()),
    params(ScoreQuery, RequestHeaders),
    request_body(description = "The images", content((super::wire::BatchRequest = "application/json"), (super::wire::ImagesForm = "multipart/form-data"))),
    responses((status = 200, description = "A result or an error for each image", body = BatchResponse)))]
pub(super) async fn score_batch(
    State(state): State<Arc<AppState>>,
    Extension(context): Extension<RequestContext>,
    query: Result<Query<ScoreQuery>, QueryRejection>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<BatchResponse>, Error> {
    // Until its images are known, a batch that fails counts as one.
    let mut stay = Stay::new(&state.metrics);
    let received = async {
        let query = checked(query)?;
        let scheduler = state.scheduler()?;
        let first = context.admit_image(scheduler)?;
        upload::check_batch(&headers)?;
        let deadline = deadline(&headers, context.started, state.config.request_timeout)?;
        let (body, held) = context.reading(read_body(&state, &context, scheduler, &headers, body, deadline)).await?;
        let parts = upload::several(&headers, body, state.config.max_batch_images).await?;
        // The same rule as for single images: each needs its place among those in flight, or none gets in.
        let more = (1..parts.len()).map(|_| context.admit_image(scheduler)).collect::<Result<Vec<_>, _>>()?;
        Ok((query, scheduler, deadline, Arc::new(held), parts.into_iter().zip(more.into_iter().chain([first]))))
    };
    let received = received.await;
    let (query, scheduler, deadline, held, parts) =
        received.inspect_err(|error: &Error| stay.end(Outcome::of(error.code)))?;
    stay.forget();

    let results = parts.map(|(part, share)| {
        let (state, context, query, held) = (&state, &context, &query, Arc::clone(&held));
        async move {
            let (id, judged) = match part {
                Ok(Part { id, bytes }) => {
                    let way = judge(state, scheduler, context, query, Upload { bytes, held }, share, deadline);
                    (id, counted(&state.metrics, way).await.map(|(response, _)| response))
                }
                Err((id, error)) => (id, counted(&state.metrics, async { Err(error) }).await),
            };
            let outcome = match judged {
                Ok(response) => BatchOutcome::Result(Box::new(response)),
                Err(Error { code, detail, .. }) => {
                    state.metrics.errors.with_label_values(&[code.as_str()]).inc();
                    BatchOutcome::Error(BatchError { code: code.as_str(), detail })
                }
            };
            BatchResult { id, outcome }
        }
    });
    Ok(Json(BatchResponse { results: join_all(results).await }))
}

/// One image, from its bytes to its answer.
pub(super) async fn judge(
    state: &AppState,
    scheduler: &Scheduler,
    context: &RequestContext,
    query: &ScoreQuery,
    upload: Upload,
    share: Share,
    deadline: Instant,
) -> Result<(ScoreResponse, Scored), Error> {
    let job = Job { payload: upload, deadline, share, timings: Timings::default() };
    let Judged { judgement, scored, total } = state.judge(scheduler, context, job, query.threshold).await?;
    let timings = TimingsMs::new(&scored.timings, total);
    let id = Arc::clone(&context.id);
    let external_id = query.external_id.clone();
    Ok((ScoreResponse::new(id, external_id, &state.manifest, judgement, &scored.image, timings), scored))
}

fn checked(query: Result<Query<ScoreQuery>, QueryRejection>) -> Result<ScoreQuery, Error> {
    let bad = |detail: String| Error::new(Code::BadRequest, detail);
    let Query(query) = query.map_err(|rejection| bad(format!("the query is malformed: {}", rejection.body_text())))?;
    if query.threshold.is_some_and(|threshold| !(0.0..=1.0).contains(&threshold)) {
        return Err(bad("`threshold` is a number between 0 and 1".into()));
    }
    if query.external_id.as_ref().is_some_and(|id| id.chars().count() > LONGEST_ID) {
        return Err(bad(format!("`external_id` is longer than {LONGEST_ID} characters")));
    }
    Ok(query)
}
