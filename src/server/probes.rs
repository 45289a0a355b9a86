//! Probes and metrics: never behind a key, never queued behind work.

use std::sync::Arc;

use axum::{
    Json, Router,
    extract::State,
    http::{HeaderValue, header},
    response::{IntoResponse, Response},
    routing::get,
};
use serde::Serialize;
use utoipa::ToSchema;

use super::{AppState, Route, access::quiet, lifecycle::Phase};
use crate::{
    error::{
        Code::{self, *},
        Error,
    },
    judge::Class,
    metrics,
    model::Manifest,
    served::Served,
};

/// The routes that no key guards.
pub const ROUTES: &[Route] = &[
    Route { path: "/livez", method: "GET", codes: &[&[NotReady]] },
    Route { path: "/readyz", method: "GET", codes: &[&[Draining, NotReady]] },
    Route { path: "/startupz", method: "GET", codes: &[&[NotReady]] },
    Route { path: "/metrics", method: "GET", codes: &[&[InferenceFailed]] },
];

/// Their handlers.
pub fn router() -> Router<Arc<AppState>> {
    quiet(
        Router::new()
            .route("/livez", get(livez))
            .route("/readyz", get(readyz))
            .route("/startupz", get(startupz))
            .route("/metrics", get(metrics_text)),
    )
}

/// What the main address answers where probes and metrics have an address of their own: whether the process is alive,
/// and nothing about it.
pub fn bare() -> Router<Arc<AppState>> {
    let alive = async |State(state): State<Arc<AppState>>| state.liveness().map(|()| "ok\n");
    quiet(Router::new().route("/livez", get(alive)))
}

/// Which model judged.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(crate) struct ModelInfo {
    name: String,
    version: String,
    /// Digest of the weights.
    digest: String,
    /// Digest of all else that can change an answer: the manifest's rules and evidence, and the server's settings.
    rules: String,
}

impl ModelInfo {
    pub(crate) fn of(Served { manifest, judge }: &Served) -> Self {
        let Manifest { name, version, digest, .. } = &**manifest;
        let rules = judge.digest().to_owned();
        Self { name: name.clone(), version: version.clone(), digest: digest.clone(), rules }
    }
}

/// One of several models.
#[derive(Debug, Serialize, ToSchema)]
struct RoutedModel {
    #[serde(flatten)]
    model: ModelInfo,
    /// The classes of file that it judges, alone or in the combination.
    classes: Vec<Class>,
}

/// What a probe that passes answers.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Health {
    /// `ok`.
    status: &'static str,
    /// The model that answers; of several the one that judges what no route names, or their combination.
    model: ModelInfo,
    /// All models, only where there are several; of a combination in the order of its weights.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    models: Vec<RoutedModel>,
}

impl Health {
    fn ok(state: &AppState) -> Json<Self> {
        let models = &state.models;
        let routed =
            |(number, served)| RoutedModel { model: ModelInfo::of(served), classes: models.classes_of(number) };
        let several = models.listed().filter(|_| models.are_several());
        Json(Self { status: "ok", model: ModelInfo::of(models.first()), models: several.map(routed).collect() })
    }
}

/// Is the process alive? Fails only when a session hangs: load is no reason to be restarted.
#[utoipa::path(get, path = "/livez", tag = "probes", responses(
    (status = 200, description = "Alive", body = Health),
    (status = 503, description = "`not_ready`: a session hangs", body = super::problem::Problem, content_type = "application/problem+json"),
))]
pub(crate) async fn livez(State(state): State<Arc<AppState>>) -> Result<Json<Health>, Error> {
    state.liveness().map(|()| Health::ok(&state))
}

/// Should load come here? Shows the model's digest.
#[utoipa::path(get, path = "/readyz", tag = "probes", responses(
    (status = 200, description = "Ready", body = Health),
    (status = 503, description = "`not_ready` or `draining`", body = super::problem::Problem, content_type = "application/problem+json"),
))]
pub(crate) async fn readyz(State(state): State<Arc<AppState>>) -> Result<Json<Health>, Error> {
    state.readiness().map(|()| Health::ok(&state))
}

/// Has the start ended: is the model loaded and warm?
#[utoipa::path(get, path = "/startupz", tag = "probes", responses(
    (status = 200, description = "Started", body = Health),
    (status = 503, description = "`not_ready`: still starting", body = super::problem::Problem, content_type = "application/problem+json"),
))]
pub(crate) async fn startupz(State(state): State<Arc<AppState>>) -> Result<Json<Health>, Error> {
    if state.lifecycle.phase() == Phase::Starting {
        return Err(Error::new(Code::NotReady, "the model is still being loaded"));
    }
    Ok(Health::ok(&state))
}

/// What Prometheus scrapes.
#[utoipa::path(get, path = "/metrics", tag = "operation",
    responses((status = 200, description = "Prometheus' text format, 0.0.4", body = String, content_type = "text/plain; version=0.0.4")))]
pub(crate) async fn metrics_text(State(state): State<Arc<AppState>>) -> Result<Response, Error> {
    let text = state.metrics_text()?;
    Ok(([(header::CONTENT_TYPE, HeaderValue::from_static(metrics::CONTENT_TYPE))], text).into_response())
}
