//! What every request gets: an id, a start, a count, a line in the log, and its error written out.

use std::sync::Arc;

use axum::{
    Router,
    body::Body,
    extract::{MatchedPath, Request, State},
    http::{HeaderMap, HeaderName, HeaderValue, Method, Version, header},
    middleware::{self, Next},
    response::Response,
};
use tokio::time::Instant;
use uuid::Uuid;

use super::{
    AppState,
    access_line::{AccessLine, Answered, CountedBody},
    caller,
    connection::Activity,
    context::RequestContext,
    lifecycle::Phase,
};
use crate::{error::Error, trace};

/// Marks the answers of routes whose access line is of level debug.
#[derive(Debug, Clone, Copy)]
struct Quiet;

/// Routes that are asked all the time, by probes and scrapes: their access lines are of level debug.
pub(crate) fn quiet<S: Clone + Send + Sync + 'static>(routes: Router<S>) -> Router<S> {
    routes.route_layer(middleware::map_response(async |mut response: Response| {
        response.extensions_mut().insert(Quiet);
        response
    }))
}

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The longest id that is taken over from a caller, in bytes.
const LONGEST_ID: usize = 128;

pub(super) async fn layer(State(state): State<Arc<AppState>>, request: Request, next: Next) -> Response {
    let _in_flight = state.requests.token();
    let context = RequestContext {
        id: request_id(request.headers()),
        started: Instant::now(),
        key: Arc::default(),
        caller: caller::of(&request, state.config.trusted_proxies),
        peer: request.extensions().get::<Arc<Activity>>().map(|connection| Arc::clone(connection.peer())),
        parent: trace::parent(request.headers()),
        spent: Arc::default(),
    };
    let method = method_label(request.method());
    let old_http = request.version() < Version::HTTP_2;
    let route = request.extensions().get::<MatchedPath>().cloned();
    let dialect = state.dialects.of(request.uri().path());
    let mut line = AccessLine {
        state: Arc::clone(&state),
        context: context.clone(),
        method,
        route,
        protocol: protocol(&request),
        bytes_in: Arc::default(),
        bytes_out: Arc::default(),
        quiet: false,
        answer: None,
    };
    let received = Arc::clone(&line.bytes_in);
    let mut request = request.map(|body| Body::new(CountedBody::new(body, received, None)));
    request.extensions_mut().insert(context.clone());
    request.extensions_mut().insert(dialect);

    let mut response = next.run(request).await;

    let error = response.extensions_mut().remove::<Error>().or_else(|| dialect.error_in(&response));
    if let Some(error) = &error {
        response = dialect.render(error, &context.id, std::mem::take(response.headers_mut()));
    }
    let code = error.as_ref().map(|error| error.code);
    if let Some(code) = code {
        state.metrics.errors.with_label_values(&[code.as_str()]).inc();
    }
    if let Ok(id) = HeaderValue::from_str(&context.id) {
        response.headers_mut().insert(REQUEST_ID, id);
    }
    // No browser shall read an answer as another type than it says.
    response.headers_mut().insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    if old_http && state.lifecycle.phase() >= Phase::Draining {
        // The caller's next request should go to another replica.
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }

    let status = code.map_or(response.status().as_u16(), |code| dialect.status(code));
    state.metrics.request(line.route(), method, status, context.started.elapsed());
    line.answer = Some(Answered { at: Instant::now(), status, code });
    line.quiet = code.is_none() && response.extensions().get::<Quiet>().is_some();
    let sent = Arc::clone(&line.bytes_out);
    response.map(|body| Body::new(CountedBody::new(body, sent, Some(line))))
}

/// What the caller speaks, for the log.
fn protocol(request: &Request) -> &'static str {
    let content_type = request.headers().get(header::CONTENT_TYPE);
    let is_grpc = content_type.is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"));
    match request.version() {
        Version::HTTP_10 => "HTTP/1.0",
        Version::HTTP_2 if is_grpc => "gRPC",
        Version::HTTP_2 => "HTTP/2",
        _ => "HTTP/1.1",
    }
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
