//! Sockets, drain, and what every request passes, whatever its transport.
//!
//! From the outside in: [`places`] and [`connection`] (which connections are held, and how long they may do nothing),
//! [`early`] (an answer given before the body was read still reaches its client), [`access`] (request id, metrics, access
//! line, errors in the transport's [`Dialect`]), [`head`] (what a request's head must have), a guard against panics, and
//! on routes that take images [`auth`] (API keys) and [`load_report`] (for load balancers). [`AppState`] is what handlers
//! work on.

mod access;
mod access_line;
mod answer;
mod auth;
mod body;
mod buffer;
mod caller;
mod connection;
mod context;
mod deadline;
mod dialect;
mod early;
mod head;
mod judged;
pub mod lifecycle;
mod listener;
mod load_report;
mod places;
pub mod probes;
mod problem;
mod routes;
mod state;
mod stay;
mod unpack;

use std::sync::Arc;

use axum::{
    Extension, Router,
    extract::Request,
    middleware,
    response::{IntoResponse, Response},
};
use tower_http::catch_panic::CatchPanicLayer;

pub(crate) use self::{
    access::quiet,
    body::read as read_body,
    buffer::too_large,
    context::RequestContext,
    deadline::of as deadline,
    dialect::{json as error_json, retry_after},
    judged::{Judged, judge_image},
    problem::Problem,
    stay::{Stay, counted},
    unpack::{Packing, unpack, unpack_small},
};
pub use self::{
    dialect::{Dialect, Dialects, ProblemJson},
    listener::{Listener, MOST_CONNECTIONS, serve, serve_admin},
    routes::{Route, UNMATCHED, codes, series, unmatched},
    state::AppState,
};
use crate::error::{Code, Error};

/// Routes that take work: behind the API keys, their answers with a load report where the caller asks for one.
pub(crate) fn behind_keys(routes: Router<Arc<AppState>>, state: &Arc<AppState>) -> Router<Arc<AppState>> {
    guarded(
        routes.route_layer(middleware::from_fn_with_state(
            load_report::Reporter::new(Arc::clone(state)),
            load_report::layer,
        )),
        state,
    )
}

/// Routes behind the API keys.
pub(crate) fn guarded(routes: Router<Arc<AppState>>, state: &Arc<AppState>) -> Router<Arc<AppState>> {
    routes.route_layer(middleware::from_fn_with_state(Arc::clone(state), auth::layer))
}

/// Puts the layers that every request passes around `routes`.
pub fn layered(routes: Router<Arc<AppState>>, state: Arc<AppState>) -> Router {
    routes
        .fallback(no_such_route)
        .method_not_allowed_fallback(async || Error::new(Code::MethodNotAllowed, "the route does not take this method"))
        .layer(CatchPanicLayer::custom(panicked))
        .layer(middleware::from_fn_with_state(Arc::clone(&state), head::layer))
        .layer(middleware::from_fn_with_state(Arc::clone(&state), access::layer))
        .layer(middleware::from_fn(early::layer))
        .with_state(state)
}

async fn no_such_route(Extension(dialect): Extension<&'static dyn Dialect>, _: Request) -> Error {
    dialect.no_such_route()
}

fn panicked(_: Box<dyn std::any::Any + Send>) -> Response {
    // The panic hook has logged its message and place; a client learns neither.
    tracing::error!("a request handler panicked");
    Error::inference_failed().into_response()
}
