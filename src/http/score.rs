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
    access::RequestContext,
    body, deadline,
    upload::{self, Part},
    wire::{
        BatchError, BatchOutcome, BatchResponse, BatchResult, RequestHeaders, ScoreQuery, ScoreResponse, TimingsMs,
    },
};
use crate::{
    app::App,
    error::{Code, Error},
    metrics::{Metrics, Outcome},
    pipeline::{Job, Pipeline, Scored, Share, Timings, Upload},
    verdict,
};

/// The longest `external_id`, in bytes.
const LONGEST_ID: usize = 256;

/// Judge one image.
///
/// The body is the file itself (`image/*`, `application/octet-stream`), a multipart form with one part named
/// `image`, or JSON with the file in base64.
#[utoipa::path(post, path = "/v1/score", tag = "score", security(("bearer" = []), ("api_key" = []), ()),
    params(ScoreQuery, RequestHeaders),
    request_body(description = "The image", content((Vec<u8> = "application/octet-stream"), (super::wire::ScoreRequest = "application/json"), (super::wire::ImageForm = "multipart/form-data"))),
    responses((status = 200, description = "The judgement", body = ScoreResponse)))]
pub(super) async fn score(
    State(app): State<Arc<App>>,
    Extension(context): Extension<RequestContext>,
    query: Result<Query<ScoreQuery>, QueryRejection>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<ScoreResponse>, Error> {
    let judged = counted(&app.metrics, async {
        let Received { query, pipeline, upload, share, deadline } =
            receive(&app, &context, query, &headers, body).await?;
        judge(&app, pipeline, &context, &query, upload, share, deadline).await
    });
    judged.await.map(|(response, _)| Json(response))
}

/// A request with one image, its body read.
pub(super) struct Received<'a> {
    pub(super) query: ScoreQuery,
    pub(super) pipeline: &'a Pipeline,
    pub(super) upload: Upload,
    pub(super) share: Share,
    pub(super) deadline: Instant,
}

/// Takes in a request with one image.
pub(super) async fn receive<'a>(
    app: &'a App,
    context: &RequestContext,
    query: Result<Query<ScoreQuery>, QueryRejection>,
    headers: &HeaderMap,
    body: Body,
) -> Result<Received<'a>, Error> {
    let query = checked(query)?;
    let pipeline = app.pipeline()?;
    let share = context.admit_image(pipeline)?;
    upload::check_single(headers)?;
    let deadline = deadline::of(headers, context.started, app.config.request_timeout)?;
    let (body, held) = context.reading(body::read(app, pipeline, headers, body, deadline)).await?;
    let bytes = upload::single(headers, body).await?;
    Ok(Received { query, pipeline, upload: Upload { bytes, held: Arc::new(held) }, share, deadline })
}

/// Judge several images.
///
/// Each gets a result or an error of its own, in the order of the request.
#[utoipa::path(post, path = "/v1/score/batch", tag = "score", security(("bearer" = []), ("api_key" = []), ()),
    params(ScoreQuery, RequestHeaders),
    request_body(description = "The images", content((super::wire::BatchRequest = "application/json"), (super::wire::ImagesForm = "multipart/form-data"))),
    responses((status = 200, description = "A result or an error for each image", body = BatchResponse)))]
pub(super) async fn score_batch(
    State(app): State<Arc<App>>,
    Extension(context): Extension<RequestContext>,
    query: Result<Query<ScoreQuery>, QueryRejection>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<BatchResponse>, Error> {
    // Until its images are known, a batch that fails counts as one.
    let mut stay = Stay::new(&app.metrics);
    let received = async {
        let query = checked(query)?;
        let pipeline = app.pipeline()?;
        let first = context.admit_image(pipeline)?;
        upload::check_batch(&headers)?;
        let deadline = deadline::of(&headers, context.started, app.config.request_timeout)?;
        let (body, held) = context.reading(body::read(&app, pipeline, &headers, body, deadline)).await?;
        let parts = upload::several(&headers, body, app.config.max_batch_images).await?;
        // The same rule as for single images: each needs its place among those in flight, or none gets in.
        let more = (1..parts.len()).map(|_| context.admit_image(pipeline)).collect::<Result<Vec<_>, _>>()?;
        Ok((query, pipeline, deadline, Arc::new(held), parts.into_iter().zip(more.into_iter().chain([first]))))
    };
    let received = received.await;
    let (query, pipeline, deadline, held, parts) =
        received.inspect_err(|error: &Error| stay.end(Outcome::of(error.code)))?;
    stay.forget();

    let results = parts.map(|(part, share)| {
        let (app, context, query, held) = (&app, &context, &query, Arc::clone(&held));
        async move {
            let (id, judged) = match part {
                Ok(Part { id, bytes }) => {
                    let way = judge(app, pipeline, context, query, Upload { bytes, held }, share, deadline);
                    (id, counted(&app.metrics, way).await.map(|(response, _)| response))
                }
                Err((id, error)) => (id, counted(&app.metrics, async { Err(error) }).await),
            };
            let outcome = match judged {
                Ok(response) => BatchOutcome::Result(Box::new(response)),
                Err(Error { code, detail, .. }) => {
                    app.metrics.errors.with_label_values(&[code.as_str()]).inc();
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
    app: &App,
    pipeline: &Pipeline,
    context: &RequestContext,
    query: &ScoreQuery,
    upload: Upload,
    share: Share,
    deadline: Instant,
) -> Result<(ScoreResponse, Scored), Error> {
    let job = Job { payload: upload, deadline, share, timings: Timings::default() };
    let scored = pipeline.score(job).await?;
    context.judged(&scored.timings);
    let warnings = verdict::warnings(&app.manifest, &scored.image);
    let judgement = verdict::judge(&app.manifest, scored.output.logit, warnings, query.threshold);
    app.metrics.judged(&judgement);
    let total = context.started.elapsed();
    app.metrics.answered(&scored.timings, total);
    let timings = TimingsMs::new(&scored.timings, total);
    let id = Arc::clone(&context.id);
    let external_id = query.external_id.clone();
    Ok((ScoreResponse::new(id, external_id, &app.manifest, judgement, &scored.image, timings), scored))
}

fn checked(query: Result<Query<ScoreQuery>, QueryRejection>) -> Result<ScoreQuery, Error> {
    let bad = |detail: String| Error::new(Code::BadRequest, detail);
    let Query(query) = query.map_err(|rejection| bad(format!("the query is malformed: {}", rejection.body_text())))?;
    if query.threshold.is_some_and(|threshold| !(0.0..=1.0).contains(&threshold)) {
        return Err(bad("`threshold` is a number between 0 and 1".into()));
    }
    if query.external_id.as_ref().is_some_and(|id| id.len() > LONGEST_ID) {
        return Err(bad(format!("`external_id` is longer than {LONGEST_ID} bytes")));
    }
    Ok(query)
}

/// Counts an image's outcome, whichever way its future ends.
pub(super) async fn counted<T>(metrics: &Metrics, way: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    let mut stay = Stay::new(metrics);
    let ended = way.await;
    stay.end(ended.as_ref().map_or_else(|error| Outcome::of(error.code), |_| Outcome::Scored));
    ended
}

/// An image's stay. Dropped without an end, its client has left.
pub(super) struct Stay<'a> {
    metrics: &'a Metrics,
    outcome: Option<Outcome>,
}

impl<'a> Stay<'a> {
    pub(super) fn new(metrics: &'a Metrics) -> Self {
        Self { metrics, outcome: Some(Outcome::Cancelled) }
    }

    pub(super) fn end(&mut self, outcome: Outcome) {
        self.outcome = Some(outcome);
    }

    /// Counts nothing: the images are counted one by one.
    pub(super) fn forget(mut self) {
        self.outcome = None;
    }
}

impl Drop for Stay<'_> {
    fn drop(&mut self) {
        if let Some(outcome) = self.outcome {
            self.metrics.image(outcome);
        }
    }
}
