//! What every request gets: an id, a start, a count, a line in the log, and its error written out.

use std::{
    sync::{Arc, Mutex, OnceLock, PoisonError},
    time::Duration,
};

use axum::{
    Router,
    extract::{MatchedPath, Request, State},
    http::{HeaderMap, HeaderName, HeaderValue, Method, Version, header},
    middleware::{self, Next},
    response::Response,
};
use opentelemetry::{
    KeyValue,
    trace::{SpanContext, TraceId},
};
use tokio::time::Instant;
use uuid::Uuid;

use super::{
    AppState, UNMATCHED, caller,
    connection::{Activity, Peer},
    lifecycle::Phase,
};
use crate::{
    error::{Code, Error},
    keys::Key,
    metrics::Outcome,
    scheduler::Client,
    timings::Timings,
    trace::{self, Finished},
};

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

/// What a handler knows of its request.
#[derive(Debug, Clone)]
pub(crate) struct RequestContext {
    /// The caller's id, or ours.
    pub(crate) id: Arc<str>,
    /// When the head was read.
    pub(crate) started: Instant,
    /// The API key it came with, once that has been checked.
    pub(crate) key: Arc<OnceLock<Arc<Key>>>,
    /// Where it comes from.
    pub(super) caller: Client,
    /// The address it came from, where it came through a socket.
    pub(super) peer: Option<Arc<Peer>>,
    /// The caller's span (W3C Trace Context), if it has one.
    parent: Option<SpanContext>,
    spent: Arc<Mutex<Spent>>,
}

/// Where a request's time went.
#[derive(Debug, Default)]
struct Spent {
    read: Option<(Instant, Instant)>,
    judged: Vec<Timings>,
}

impl Spent {
    /// The longest time that any image spent in a stage, if one was judged.
    fn longest(&self, stage: impl Fn(&Timings) -> Duration) -> Option<Duration> {
        self.judged.iter().map(stage).max()
    }
}

impl RequestContext {
    /// Times the reading of the body.
    pub(crate) async fn reading<T>(&self, read: impl Future<Output = T>) -> T {
        let began = Instant::now();
        let done = read.await;
        self.spent().read = Some((began, Instant::now()));
        done
    }

    /// The id of the caller's trace, if it has one.
    pub(crate) fn trace_id(&self) -> Option<String> {
        self.parent.as_ref().map(|span| span.trace_id().to_string())
    }

    /// An image was judged.
    pub(crate) fn judged(&self, timings: &Timings) {
        self.spent().judged.push(*timings);
    }

    fn spent(&self) -> std::sync::MutexGuard<'_, Spent> {
        // Nothing is left half changed.
        self.spent.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The one line of a request, written when it is dropped: also when its client leaves before the answer.
struct AccessLine {
    state: Arc<AppState>,
    context: RequestContext,
    method: &'static str,
    route: Option<MatchedPath>,
    /// Whether the answer is that of a probe or a scrape that went well: orchestrators ask for thousands a day.
    quiet: bool,
    /// Status and code of the answer, once there is one.
    answer: Option<(u16, Option<Code>)>,
}

impl AccessLine {
    fn route(&self) -> &str {
        self.route.as_ref().map_or(UNMATCHED, MatchedPath::as_str)
    }

    /// Sends the request's trace, if there is a collector; gives the trace's id, which may be the caller's alone.
    fn trace(&self, spent: &Spent, outcome: &'static str) -> Option<TraceId> {
        let parent = self.context.parent.as_ref();
        let Some(traces) = self.state.traces.as_ref().filter(|_| self.method == "POST") else {
            return parent.map(SpanContext::trace_id);
        };
        let (status, code) = self.answer.map_or((None, None), |(status, code)| (Some(status), code));
        let mut attributes = vec![
            KeyValue::new("http.request.method", self.method),
            KeyValue::new("http.route", self.route().to_owned()),
            KeyValue::new("lfm.request_id", self.context.id.to_string()),
            KeyValue::new("lfm.outcome", outcome),
        ];
        attributes.extend(status.map(|status| KeyValue::new("http.response.status_code", i64::from(status))));
        attributes.extend(code.map(|code| KeyValue::new("error.type", code.as_str())));
        let request = Finished {
            name: format!("{} {}", self.method, self.route()),
            attributes,
            failed: status.is_some_and(|status| status >= 500),
            started: self.context.started,
            read: spent.read,
            images: &spent.judged,
        };
        Some(traces.record(request, parent))
    }
}

impl Drop for AccessLine {
    fn drop(&mut self) {
        let spent = std::mem::take(&mut *self.context.spent());
        let code = self.answer.and_then(|(_, code)| code);
        let outcome = match (self.answer, code) {
            (None, _) => Outcome::Cancelled.as_str(),
            (_, Some(code)) => Outcome::of(code).as_str(),
            _ if !spent.judged.is_empty() => Outcome::Scored.as_str(),
            _ => "answered",
        };
        let trace_id = self.trace(&spent, outcome);
        let ms = |time: Duration| time.as_secs_f64() * 1e3;
        // A level is fixed where a line is written: there are two such places.
        macro_rules! line {
            ($level:expr) => {
                tracing::event!(
                    $level,
                    request_id = &*self.context.id,
                    trace_id = trace_id.map(tracing::field::display),
                    method = self.method,
                    route = self.route(),
                    key = self.context.key.get().map(|key| key.name()),
                    status = self.answer.map(|(status, _)| status),
                    code = code.map(Code::as_str),
                    outcome,
                    read_ms = spent.read.map(|(began, done)| ms(done - began)),
                    decode_ms = spent.longest(|image| image.decode).map(ms),
                    queue_ms = spent.longest(|image| image.queue).map(ms),
                    inference_ms = spent.longest(|image| image.inference).map(ms),
                    duration_ms = ms(self.context.started.elapsed()),
                    "request"
                )
            };
        }
        if self.quiet { line!(tracing::Level::DEBUG) } else { line!(tracing::Level::INFO) }
    }
}

pub(super) async fn layer(State(state): State<Arc<AppState>>, mut request: Request, next: Next) -> Response {
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
    let mut line =
        AccessLine { state: Arc::clone(&state), context: context.clone(), method, route, quiet: false, answer: None };
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
    line.answer = Some((status, code));
    line.quiet = code.is_none() && response.extensions().get::<Quiet>().is_some();
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
