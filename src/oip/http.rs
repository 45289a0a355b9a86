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
use tower_http::compression::CompressionLayer;

use super::{
    infer::{self, Inference},
    protocol::{ModelConfig, ModelMetadata, ModelStatistics, Request, ServerMetadata, find_model, json},
};
use crate::{
    error::{
        Code::{self, *},
        Error,
    },
    metrics::Outcome,
    server::{
        self, AppState, Dialect, RequestContext, Route, Stay,
        codes::{BODY, IMAGE},
        deadline, read_body,
    },
};

/// Error codes of a request about a model.
const MODEL: &[&[Code]] = &[&[Unauthorized, NotFound]];

/// Error codes of an inference request.
pub(super) const INFER: &[&[Code]] = &[BODY, IMAGE, &[NotFound, TooManyImages]];

/// Error codes of the model's readiness probe.
const MODEL_READY: &[&[Code]] = &[&[NotFound, Draining, NotReady]];

/// The protocol's routes over HTTP.
pub const ROUTES: &[Route] = &[
    Route { path: "/v2", method: "GET", codes: &[&[Unauthorized]] },
    Route { path: "/v2/health/live", method: "GET", codes: &[&[NotReady]] },
    Route { path: "/v2/health/ready", method: "GET", codes: &[&[Draining, NotReady]] },
    Route { path: "/v2/models/stats", method: "GET", codes: &[&[Unauthorized]] },
    Route { path: "/v2/models/{name}", method: "GET", codes: MODEL },
    Route { path: "/v2/models/{name}/versions/{version}", method: "GET", codes: MODEL },
    Route { path: "/v2/models/{name}/ready", method: "GET", codes: MODEL_READY },
    Route { path: "/v2/models/{name}/versions/{version}/ready", method: "GET", codes: MODEL_READY },
    Route { path: "/v2/models/{name}/config", method: "GET", codes: MODEL },
    Route { path: "/v2/models/{name}/versions/{version}/config", method: "GET", codes: MODEL },
    Route { path: "/v2/models/{name}/stats", method: "GET", codes: MODEL },
    Route { path: "/v2/models/{name}/versions/{version}/stats", method: "GET", codes: MODEL },
    Route { path: "/v2/models/{name}/infer", method: "POST", codes: INFER },
    Route { path: "/v2/models/{name}/versions/{version}/infer", method: "POST", codes: INFER },
];

/// `{"error": ...}`, with Triton's statuses.
#[derive(Debug)]
pub struct TritonJson;

impl Dialect for TritonJson {
    fn status(&self, code: Code) -> u16 {
        match code {
            // In Triton any invalid input is an invalid argument, and a full server is unavailable.
            ImageTooLarge | TooManyImages | UnsupportedFormat | UndecodableImage | ImageTooSmall => 400,
            Overloaded => 503,
            _ => code.status(),
        }
    }

    fn render(&self, error: &Error, _: &str, headers: HeaderMap) -> Response {
        let body = serde_json::json!({ "error": error.detail }).to_string();
        server::error_json(self.status(error.code), "application/json", body, error, headers)
    }
}

/// Length of a body's JSON, if binary tensors follow it.
const JSON_LENGTH: HeaderName = HeaderName::from_static("inference-header-content-length");

/// The handlers of [`ROUTES`]. All except the probes require a key, if keys are configured.
pub fn router(state: &Arc<AppState>) -> Router<Arc<AppState>> {
    server::behind_keys(behind_keys(), state).merge(server::quiet(probes()))
}

fn behind_keys() -> Router<Arc<AppState>> {
    // Triton's clients request compressed answers only for inference. Compressed request bodies are decompressed where
    // bodies are read.
    let infer = Router::new()
        .route("/v2/models/{name}/infer", post(infer))
        .route("/v2/models/{name}/versions/{version}/infer", post(infer))
        .layer(CompressionLayer::new());
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
fn probes() -> Router<Arc<AppState>> {
    Router::new()
        .route("/v2/health/live", get(live))
        .route("/v2/health/ready", get(ready))
        .route("/v2/models/{name}/ready", get(model_ready))
        .route("/v2/models/{name}/versions/{version}/ready", get(model_ready))
}

/// Extractor: the number of the model that the path names.
struct OurModel(usize);

#[derive(Deserialize)]
struct ModelPath {
    name: String,
    version: Option<String>,
}

impl FromRequestParts<Arc<AppState>> for OurModel {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, state: &Arc<AppState>) -> Result<Self, Error> {
        let path = Path::<ModelPath>::from_request_parts(parts, state).await;
        let Path(path) = path.map_err(|_| Error::new(Code::NotFound, "the path names no model"))?;
        find_model(&state.models, &path.name, path.version.as_deref()).map(Self)
    }
}

/// KServe's client reads the bodies of these two, Triton's the status.
#[derive(Serialize)]
struct Live {
    live: bool,
}

#[derive(Serialize)]
struct Ready {
    ready: bool,
}

async fn live(State(state): State<Arc<AppState>>) -> Result<Json<Live>, Error> {
    state.liveness().map(|()| Json(Live { live: true }))
}

async fn ready(State(state): State<Arc<AppState>>) -> Result<Json<Ready>, Error> {
    state.readiness().map(|()| Json(Ready { ready: true }))
}

async fn model_ready(OurModel(model): OurModel, State(state): State<Arc<AppState>>) -> Result<StatusCode, Error> {
    state.model_readiness(model).map(|()| StatusCode::OK)
}

async fn metadata(OurModel(model): OurModel, State(state): State<Arc<AppState>>) -> Json<ModelMetadata> {
    Json(ModelMetadata::of(&state.models.all()[model].manifest))
}

async fn config(OurModel(model): OurModel, State(state): State<Arc<AppState>>) -> Json<ModelConfig> {
    Json(ModelConfig::of(&state.models.all()[model].manifest))
}

#[derive(Serialize)]
struct Statistics {
    model_stats: Vec<ModelStatistics>,
}

impl Statistics {
    fn of(state: &AppState, models: impl Iterator<Item = usize>) -> Json<Self> {
        let model = |model| ModelStatistics::of(model, &state.models, &state.metrics);
        Json(Self { model_stats: models.map(model).collect() })
    }
}

async fn statistics(State(state): State<Arc<AppState>>) -> Json<Statistics> {
    Statistics::of(&state, 0..state.models.all().len())
}

async fn model_statistics(OurModel(model): OurModel, State(state): State<Arc<AppState>>) -> Json<Statistics> {
    Statistics::of(&state, std::iter::once(model))
}

async fn infer(
    OurModel(model): OurModel,
    State(state): State<Arc<AppState>>,
    Extension(context): Extension<RequestContext>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Error> {
    let mut stay = Stay::new(&state.metrics, &context);
    let received = receive(&state, model, &context, &headers, body).await;
    let inference = received.inspect_err(|error| stay.end(Outcome::of(error.code)))?;
    stay.forget();
    let answer = infer::judge(&state, &context, inference).await?;
    let written =
        spawn_blocking(move || json::write(&state.models.all()[model].manifest, &answer.id, &answer.outputs)).await;
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

/// Admits and reads an inference request.
async fn receive<'a>(
    state: &'a Arc<AppState>,
    model: usize,
    context: &RequestContext,
    headers: &HeaderMap,
    body: Body,
) -> Result<Inference<'a>, Error> {
    let scheduler = state.scheduler()?;
    let first = context.admit_image(scheduler)?;
    let deadline = deadline(headers, context.started, state.config.request_timeout)?;
    let json_length = json_length(headers)?;
    let (body, mut held) = context.reading(read_body(state, context, scheduler, headers, body, deadline)).await?;
    scheduler.grow_bytes(&mut held, json::parsed_bytes(&body, json_length))?;
    let most = state.config.max_batch_images;
    // Off the async threads: a body can be tens of megabytes.
    let manifest = Arc::clone(&state.models.all()[model].manifest);
    let request = spawn_blocking(move || Request::check(&manifest, json::read(body, json_length)?, most)).await;
    let request = request.map_err(|_| Error::inference_failed())??;
    Inference::new(context, scheduler, model, request, first, held, deadline)
}

fn json_length(headers: &HeaderMap) -> Result<Option<usize>, Error> {
    let Some(value) = headers.get(JSON_LENGTH) else { return Ok(None) };
    let length = value.to_str().ok().and_then(|text| text.parse().ok());
    let wrong = || Error::new(Code::BadRequest, "Inference-Header-Content-Length is a number of bytes");
    length.map(Some).ok_or_else(wrong)
}
