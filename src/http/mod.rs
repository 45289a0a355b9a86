//! The HTTP service: the router and its layers. Only this module knows axum.
//!
//! A request passes, from the outside in: [`early`] (an answer that comes before the body was read still
//! reaches its client), [`access`] (request id, metrics, the access line, errors as problem+json), a guard
//! against panics, on routes that take images [`auth`] (API keys) and [`load_report`] (for load balancers), and its route.

mod accept;
mod access;
mod auth;
mod body;
mod deadline;
mod dialect;
mod early;
mod explain;
pub mod grpc;
mod infer;
mod load_report;
mod oip;
pub mod openapi;
mod page;
pub mod probes;
mod problem;
pub mod routes;
mod score;
mod server;
mod upload;
pub mod wire;

use std::sync::Arc;

use axum::{
    Router,
    extract::State,
    http::{HeaderValue, Uri, header},
    middleware,
    response::{IntoResponse, Response},
    routing::{get, post},
};
use tower_http::catch_panic::CatchPanicLayer;

pub use server::{serve, serve_admin};

use self::dialect::Dialect;
use crate::{
    app::App,
    error::{Code, Error},
    metrics,
};

/// The service as a router, without a socket.
pub fn router(app: Arc<App>) -> Router {
    let behind_keys = Router::new()
        .route("/v1/score", post(score::score))
        .route("/v1/score/batch", post(score::score_batch))
        .route("/v1/explain", post(explain::explain))
        .merge(oip::behind_keys())
        .route_layer(middleware::from_fn_with_state(load_report::Reporter::new(Arc::clone(&app)), load_report::layer))
        .route_layer(middleware::from_fn_with_state(Arc::clone(&app), auth::layer));
    let pages = Router::new()
        .route("/openapi.json", get(openapi_json))
        .route("/", get(page::index))
        .route("/docs", get(page::docs))
        .route("/assets/{file}", get(page::asset));
    layered(behind_keys.merge(open()).merge(oip::open()).merge(pages), app)
}

/// What `--admin-listen` serves: probes and metrics, nothing that takes work.
pub fn admin_router(app: Arc<App>) -> Router {
    layered(open(), app)
}

/// What no key guards: probes and metrics.
fn open() -> Router<Arc<App>> {
    Router::new()
        .route("/livez", get(probes::livez))
        .route("/readyz", get(probes::readyz))
        .route("/startupz", get(probes::startupz))
        .route("/metrics", get(metrics_text))
}

fn layered(routes: Router<Arc<App>>, app: Arc<App>) -> Router {
    routes
        .fallback(no_such_route)
        .method_not_allowed_fallback(async || Error::new(Code::MethodNotAllowed, "the route does not take this method"))
        .layer(CatchPanicLayer::custom(panicked))
        .layer(middleware::from_fn_with_state(Arc::clone(&app), access::layer))
        .layer(middleware::from_fn(early::layer))
        .with_state(app)
}

async fn no_such_route(uri: Uri) -> Error {
    match Dialect::of(uri.path()) {
        // What gRPC's clients are to see is UNIMPLEMENTED.
        Dialect::Grpc => Error::new(Code::MethodNotAllowed, "there is no such call"),
        Dialect::Problem | Dialect::Triton => Error::new(Code::NotFound, "there is no such route"),
    }
}

/// What Prometheus scrapes.
#[utoipa::path(get, path = "/metrics", tag = "operation",
    responses((status = 200, description = "Prometheus' text format, 0.0.4", body = String, content_type = "text/plain; version=0.0.4")))]
async fn metrics_text(State(app): State<Arc<App>>) -> Result<Response, Error> {
    let text = app.metrics.encode().map_err(|error| {
        tracing::error!(%error, "the metrics cannot be written");
        Error::inference_failed()
    })?;
    Ok(([(header::CONTENT_TYPE, HeaderValue::from_static(metrics::CONTENT_TYPE))], text).into_response())
}

/// This document.
#[utoipa::path(get, path = "/openapi.json", tag = "operation",
    responses((status = 200, description = "OpenAPI 3.1", body = serde_json::Value)))]
async fn openapi_json() -> Response {
    ([(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))], openapi::document()).into_response()
}

fn panicked(_: Box<dyn std::any::Any + Send>) -> Response {
    // The panic hook has written its message and place; a client learns neither.
    tracing::error!("a request handler panicked");
    Error::inference_failed().into_response()
}
