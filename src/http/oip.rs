//! `/v2`: the Open Inference Protocol over HTTP, with Triton's extensions for binary tensors, configuration and
//! statistics.

use std::sync::Arc;

use axum::{
    Extension, Json, Router,
    body::Body,
    extract::{FromRequestParts, Path, State},
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header, request::Parts},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use serde::{Deserialize, Serialize};
use tokio::task::spawn_blocking;
use tower_http::{compression::CompressionLayer, decompression::RequestDecompressionLayer};

use super::{
    access::RequestContext,
    body, deadline,
    infer::{self, Inference},
    score::Stay,
};
use crate::{
    app::App,
    error::{Code, Error},
    metrics::Outcome,
    oip::{ModelConfig, ModelMetadata, ModelStatistics, Request, ServerMetadata, check_model, json},
};

/// Length of a body's JSON, where tensors follow it as bytes.
const JSON_LENGTH: HeaderName = HeaderName::from_static("inference-header-content-length");

/// The routes that a key guards, where keys are configured.
pub(super) fn behind_keys() -> Router<Arc<App>> {
    // Triton's clients compress bodies and ask for compressed answers to inference requests, and to no others. What
    // comes out of a compressed body counts towards the limit on bodies.
    let compressed = (RequestDecompressionLayer::new().pass_through_unaccepted(true), CompressionLayer::new());
    let infer = Router::new()
        .route("/v2/models/{name}/infer", post(infer))
        .route("/v2/models/{name}/versions/{version}/infer", post(infer))
        .layer(compressed);
    Router::new()
        .route("/v2", get(async || Json(ServerMetadata::OURS)))
        .route("/v2/models/stats", get(statistics))
        .route("/v2/models/{name}", get(metadata))
        .route("/v2/models/{name}/versions/{version}", get(metadata))
        .route("/v2/models/{name}/config", get(config))
        .route("/v2/models/{name}/versions/{version}/config", get(config))
        .route("/v2/models/{name}/stats", get(model_statistics))
        .route("/v2/models/{name}/versions/{version}/stats", get(model_statistics))
        .merge(infer)
}

/// The protocol's probes.
pub(super) fn open() -> Router<Arc<App>> {
    Router::new()
        .route("/v2/health/live", get(live))
        .route("/v2/health/ready", get(ready))
        .route("/v2/models/{name}/ready", get(model_ready))
        .route("/v2/models/{name}/versions/{version}/ready", get(model_ready))
}

/// A request whose path names the model that is served.
struct OurModel;

#[derive(Deserialize)]
struct ModelPath {
    name: String,
    version: Option<String>,
}

impl FromRequestParts<Arc<App>> for OurModel {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, Error> {
        let path = Path::<ModelPath>::from_request_parts(parts, app).await;
        let Path(path) = path.map_err(|_| Error::new(Code::NotFound, "the path names no model"))?;
        check_model(&app.manifest, &path.name, path.version.as_deref()).map(|()| Self)
    }
}

async fn live(State(app): State<Arc<App>>) -> Result<StatusCode, Error> {
    app.liveness().map(|()| StatusCode::OK)
}

async fn ready(State(app): State<Arc<App>>) -> Result<StatusCode, Error> {
    app.readiness().map(|()| StatusCode::OK)
}

async fn model_ready(_: OurModel, app: State<Arc<App>>) -> Result<StatusCode, Error> {
    ready(app).await
}

async fn metadata(_: OurModel, State(app): State<Arc<App>>) -> Json<ModelMetadata> {
    Json(ModelMetadata::of(&app.manifest))
}

async fn config(_: OurModel, State(app): State<Arc<App>>) -> Json<ModelConfig> {
    Json(ModelConfig::of(&app.manifest))
}

#[derive(Serialize)]
struct Statistics {
    model_stats: [ModelStatistics; 1],
}

async fn statistics(State(app): State<Arc<App>>) -> Json<Statistics> {
    Json(Statistics { model_stats: [ModelStatistics::of(&app.manifest, &app.metrics)] })
}

async fn model_statistics(_: OurModel, app: State<Arc<App>>) -> Json<Statistics> {
    statistics(app).await
}

async fn infer(
    _: OurModel,
    State(app): State<Arc<App>>,
    Extension(context): Extension<RequestContext>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Error> {
    let mut stay = Stay::new(&app.metrics);
    let received = receive(&app, &context, &headers, body).await;
    let inference = received.inspect_err(|error| stay.end(Outcome::of(error.code)))?;
    stay.forget();
    let answer = infer::judge(&app, &context, inference).await?;
    let written = spawn_blocking(move || json::write(&app.manifest, &answer.id, &answer.outputs)).await;
    let written = written.map_err(|_| Error::inference_failed())?.map_err(|error| {
        tracing::error!(%error, "an answer cannot be written");
        Error::inference_failed()
    })?;
    let content_type = if written.json_length.is_some() { "application/octet-stream" } else { "application/json" };
    let mut response = ([(header::CONTENT_TYPE, HeaderValue::from_static(content_type))], written.body).into_response();
    if let Some(length) = written.json_length {
        response.headers_mut().insert(JSON_LENGTH, HeaderValue::from(length));
    }
    Ok(response)
}

/// Takes in an inference request.
async fn receive<'a>(
    app: &'a App,
    context: &RequestContext,
    headers: &HeaderMap,
    body: Body,
) -> Result<Inference<'a>, Error> {
    let pipeline = app.pipeline()?;
    let first = context.admit_image(pipeline)?;
    let deadline = deadline::of(headers, context.started, app.config.request_timeout)?;
    check_encoding(headers)?;
    let json_length = json_length(headers)?;
    let (body, held) = context.reading(body::read(app, pipeline, headers, body, deadline)).await?;
    let most = app.config.max_batch_images;
    // Off the async threads: a body can be tens of megabytes.
    let request = spawn_blocking(move || Request::check(json::read(body, json_length)?, most)).await;
    let request = request.map_err(|_| Error::inference_failed())??;
    Inference::new(context, pipeline, request, first, held, deadline)
}

/// What the layer before has not taken off is an encoding that nobody here reads.
fn check_encoding(headers: &HeaderMap) -> Result<(), Error> {
    match headers.get(header::CONTENT_ENCODING) {
        Some(encoding) if encoding != "identity" => {
            Err(Error::new(Code::UnsupportedMediaType, "the body is compressed with neither gzip nor deflate"))
        }
        _ => Ok(()),
    }
}

fn json_length(headers: &HeaderMap) -> Result<Option<usize>, Error> {
    let Some(value) = headers.get(JSON_LENGTH) else { return Ok(None) };
    let length = value.to_str().ok().and_then(|text| text.parse().ok());
    let wrong = || Error::new(Code::BadRequest, "Inference-Header-Content-Length is a number of bytes");
    length.map(Some).ok_or_else(wrong)
}
