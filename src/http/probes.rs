//! The probes: never behind a key, never queued behind work.

use std::{sync::Arc, time::Duration};

use axum::{Json, extract::State};
use serde::Serialize;
use utoipa::ToSchema;

use super::wire::ModelInfo;
use crate::{
    app::App,
    error::{Code, Error},
    shutdown::Phase,
};

/// A session that is busy with one batch for longer than this hangs: the longest honest run (a full batch
/// on a slow core) takes a few seconds.
pub const WATCHDOG: Duration = Duration::from_secs(60);

/// What a probe that passes answers.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Health {
    /// `ok`.
    status: &'static str,
    /// The model that answers.
    model: ModelInfo,
}

impl Health {
    fn ok(app: &App) -> Json<Self> {
        Json(Self { status: "ok", model: ModelInfo::of(&app.manifest) })
    }
}

/// Is the process alive? Fails only when a session hangs: load is no reason to be restarted.
#[utoipa::path(get, path = "/livez", tag = "probes", responses(
    (status = 200, description = "Alive", body = Health),
    (status = 503, description = "`not_ready`: a session hangs", body = super::problem::Problem, content_type = "application/problem+json"),
))]
pub(super) async fn livez(State(app): State<Arc<App>>) -> Result<Json<Health>, Error> {
    app.liveness().map(|()| Health::ok(&app))
}

/// Should load come here? Shows the model's digest.
#[utoipa::path(get, path = "/readyz", tag = "probes", responses(
    (status = 200, description = "Ready", body = Health),
    (status = 503, description = "`not_ready` or `draining`", body = super::problem::Problem, content_type = "application/problem+json"),
))]
pub(super) async fn readyz(State(app): State<Arc<App>>) -> Result<Json<Health>, Error> {
    app.readiness().map(|()| Health::ok(&app))
}

/// Has the start ended: is the model loaded and warm?
#[utoipa::path(get, path = "/startupz", tag = "probes", responses(
    (status = 200, description = "Started", body = Health),
    (status = 503, description = "`not_ready`: still starting", body = super::problem::Problem, content_type = "application/problem+json"),
))]
pub(super) async fn startupz(State(app): State<Arc<App>>) -> Result<Json<Health>, Error> {
    if app.lifecycle.phase() == Phase::Starting {
        return Err(Error::new(Code::NotReady, "the model is still being loaded"));
    }
    Ok(Health::ok(&app))
}
