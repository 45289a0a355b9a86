//! `/v1/score` and `/v1/score/batch`.

use std::sync::Arc;

use super::{
    contents::{Contents, Part},
    fields::{Fields, LONGEST_ID, bad, shown},
    upload,
    wire::{
        BatchError, BatchOutcome, BatchResponse, BatchResult, RequestHeaders, ScoreQuery, ScoreResponse, TimingsMs,
    },
};
use crate::{
    error::Error,
    judge::{Asked, Judgement},
    metrics::Outcome,
    scheduler::{Job, Scheduler, Scored, Upload},
    served::Choice,
    server::{AppState, Judged, RequestContext, Stay, counted, deadline, read_body},
};
use axum::{
    Extension, Json,
    body::Body,
    extract::{RawQuery, State},
    http::HeaderMap,
};
use futures_util::future::join_all;

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
    RawQuery(query): RawQuery,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<ScoreResponse>, Error> {
    let judged = counted(&state.metrics, &context, async {
        let Received { query, scheduler, job } = receive(&state, &context, query, &headers, body).await?;
        judge(&state, scheduler, &context, &query, query.asked(), job).await
    });
    judged.await.map(|(response, ..)| Json(response))
}

/// A request with one image, its body read.
pub(super) struct Received<'a> {
    pub(super) query: ScoreQuery,
    pub(super) scheduler: &'a Scheduler,
    pub(super) job: Job<Upload>,
}

/// Takes in a request with one image.
pub(super) async fn receive<'a>(
    state: &'a Arc<AppState>,
    context: &RequestContext,
    raw_query: Option<String>,
    headers: &HeaderMap,
    body: Body,
) -> Result<Received<'a>, Error> {
    let query = checked(state, raw_query.as_deref())?;
    let scheduler = state.scheduler()?;
    let permit = context.admit_image(scheduler)?;
    upload::check_single(headers)?;
    let deadline = deadline(headers, context.started, state.config.request_timeout)?;
    let (body, held) = context.reading(read_body(state, context, scheduler, headers, body, deadline)).await?;
    let (bytes, fields, held) = upload::single(headers, body, held, scheduler).await?;
    let query = with_fields(state, query, raw_query.as_deref(), fields)?;
    let upload = Upload { bytes, held: Arc::new(held) };
    Ok(Received { query, scheduler, job: Job::new(upload, deadline, Arc::new(permit)) })
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
    RawQuery(query): RawQuery,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<BatchResponse>, Error> {
    // Until its images are known, a batch that fails counts as one.
    let mut stay = Stay::new(&state.metrics, &context);
    let received = async {
        let settings = checked(&state, query.as_deref())?;
        let scheduler = state.scheduler()?;
        let first = context.admit_image(scheduler)?;
        upload::check_batch(&headers)?;
        let deadline = deadline(&headers, context.started, state.config.request_timeout)?;
        let (body, held) = context.reading(read_body(&state, &context, scheduler, &headers, body, deadline)).await?;
        let most = state.config.max_batch_images;
        let (Contents { images: parts, fields }, held) = upload::several(&headers, body, held, most, scheduler).await?;
        let query = with_fields(&state, settings, query.as_deref(), fields)?;
        // The same rule as for single images: each needs its in-flight permit, or none gets in.
        let more = (1..parts.len()).map(|_| context.admit_image(scheduler)).collect::<Result<Vec<_>, _>>()?;
        Ok((query, scheduler, deadline, Arc::new(held), parts.into_iter().zip(more.into_iter().chain([first]))))
    };
    let received = received.await;
    let (query, scheduler, deadline, held, parts) =
        received.inspect_err(|error: &Error| stay.end(Outcome::of(error.code)))?;
    stay.forget();

    let results = parts.map(|(part, permit)| {
        let (state, context, query, held) = (&state, &context, &query, Arc::clone(&held));
        async move {
            let (id, judged) = match part {
                Ok(Part { id, bytes }) => {
                    let job = Job::new(Upload { bytes, held }, deadline, Arc::new(permit));
                    let way = judge(state, scheduler, context, query, query.asked(), job);
                    (id, counted(&state.metrics, context, way).await.map(|(response, ..)| response))
                }
                Err((id, error)) => (id, counted(&state.metrics, context, async { Err(error) }).await),
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
    asked: Asked,
    job: Job<Upload>,
) -> Result<(ScoreResponse, Judgement, Scored), Error> {
    let Judged { judgement, scored, total } =
        state.judge(scheduler, context, Choice::ByClass, job, &asked, query.external_id.as_deref()).await?;
    let timings = TimingsMs::new(&scored.timings, total);
    let id = Arc::clone(&context.id);
    let external_id = query.external_id.clone();
    let response = ScoreResponse::new(
        id,
        external_id,
        &state.models,
        &judgement,
        &scored.image,
        scored.declared.as_ref(),
        timings,
    );
    Ok((response, judgement, scored))
}

/// The settings of a request: its query, and behind it what came beside the images.
fn with_fields(state: &AppState, query: ScoreQuery, raw: Option<&str>, fields: Fields) -> Result<ScoreQuery, Error> {
    fields.behind(raw).map_or(Ok(query), |merged| checked(state, Some(&merged)))
}

fn checked(state: &AppState, query: Option<&str>) -> Result<ScoreQuery, Error> {
    let pairs = serde_urlencoded::Deserializer::new(form_urlencoded::parse(query.unwrap_or_default().as_bytes()));
    let query: ScoreQuery = serde_path_to_error::deserialize(pairs)
        .map_err(|error| bad(format!("a parameter is malformed: {}", shown(&error.to_string()))))?;
    if query.threshold.is_some_and(|threshold| !(0.0..=1.0).contains(&threshold)) {
        return Err(bad("`threshold` is a number between 0 and 1"));
    }
    if query.max_false_alarms.is_some_and(|share| !(0.0..=1.0).contains(&share)) {
        return Err(bad("`max_false_alarms` is a number between 0 and 1"));
    }
    state.models.check(&query.asked())?;
    if query.external_id.as_ref().is_some_and(|id| id.len() > LONGEST_ID) {
        return Err(bad(format!("`external_id` is longer than {LONGEST_ID} bytes")));
    }
    Ok(query)
}
