//! What every request gets: an id, a start, a count, a line in the log, and its error written out.

use std::sync::{Arc, OnceLock};

use axum::{
    extract::{MatchedPath, Request, State},
    http::{HeaderMap, HeaderName, HeaderValue, Method, Version, header},
    middleware::Next,
    response::Response,
};
use tokio::time::Instant;
use uuid::Uuid;

use super::{dialect::Dialect, grpc, routes::UNMATCHED};
use crate::{
    app::App,
    error::{Code, Error},
    keys::Key,
    shutdown::Phase,
};

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The longest id that is taken over from a caller, in bytes.
const LONGEST_ID: usize = 128;

/// What a handler knows of its request.
#[derive(Debug, Clone)]
pub(super) struct RequestContext {
    /// The caller's id, or ours.
    pub(super) id: Arc<str>,
    /// When the head was read.
    pub(super) started: Instant,
    /// The API key it came with, once that has been checked.
    pub(super) key: Arc<OnceLock<Arc<Key>>>,
}

pub(super) async fn layer(State(app): State<Arc<App>>, mut request: Request, next: Next) -> Response {
    let _in_flight = app.requests.token();
    let context = RequestContext { id: request_id(request.headers()), started: Instant::now(), key: Arc::default() };
    let method = method_label(request.method());
    let old_http = request.version() < Version::HTTP_2;
    let route = request.extensions().get::<MatchedPath>().cloned();
    let dialect = Dialect::of(request.uri().path());
    request.extensions_mut().insert(context.clone());

    let mut response = next.run(request).await;

    let error = response.extensions_mut().remove::<Error>().or_else(|| grpc::error_in(&response));
    if let Some(error) = &error {
        response = dialect.render(error, &context.id, std::mem::take(response.headers_mut()));
    }
    let code = error.as_ref().map(|error| error.code);
    if let Some(code) = code {
        app.metrics.errors.with_label_values(&[code.as_str()]).inc();
    }
    if let Ok(id) = HeaderValue::from_str(&context.id) {
        response.headers_mut().insert(REQUEST_ID, id);
    }
    if old_http && app.lifecycle.phase() >= Phase::Draining {
        // The caller's next request should go to another replica.
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }

    let route = route.as_ref().map_or(UNMATCHED, MatchedPath::as_str);
    let status = code.map_or(response.status().as_u16(), |code| dialect.status(code));
    let took = context.started.elapsed();
    app.metrics.http_requests.with_label_values(&[route, method, &status.to_string()]).inc();
    app.metrics.http_request_duration.with_label_values(&[route]).observe(took.as_secs_f64());
    tracing::info!(
        request_id = &*context.id,
        method,
        route,
        key = context.key.get().map(|key| key.name()),
        status,
        code = code.map(Code::as_str),
        duration_ms = took.as_secs_f64() * 1e3,
        "request"
    );
    response
}

/// The caller's id if it is a sane one: visible ASCII, not too long. It goes into the log and back.
fn request_id(headers: &HeaderMap) -> Arc<str> {
    let given = headers.get(REQUEST_ID).and_then(|value| value.to_str().ok());
    let sane = |id: &&str| !id.is_empty() && id.len() <= LONGEST_ID && id.bytes().all(|byte| byte.is_ascii_graphic());
    given.filter(sane).map_or_else(|| Uuid::now_v7().to_string().into(), Into::into)
}

/// The method as a label: callers can invent methods, series must not.
fn method_label(method: &Method) -> &'static str {
    match method.as_str() {
        "GET" => "GET",
        "HEAD" => "HEAD",
        "POST" => "POST",
        "PUT" => "PUT",
        "DELETE" => "DELETE",
        "OPTIONS" => "OPTIONS",
        "PATCH" => "PATCH",
        _ => "other",
    }
}
