//! The access line, and the bodies whose bytes it counts.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    task::{Context, Poll},
    time::Duration,
};

use axum::{
    body::{Body, Bytes, HttpBody},
    extract::MatchedPath,
};
use hyper::body::{Frame, SizeHint};
use opentelemetry::{
    KeyValue,
    trace::{SpanContext, TraceId},
};
use tokio::time::Instant;

use super::{
    AppState, UNMATCHED,
    context::{RequestContext, Spent},
};
use crate::{error::Code, metrics::Outcome, trace::Finished};

/// The one line of a request, written when it is dropped: with the body of its answer, or without one when its client
/// leaves before the answer.
pub(super) struct AccessLine {
    pub(super) state: Arc<AppState>,
    pub(super) context: RequestContext,
    pub(super) method: &'static str,
    pub(super) route: Option<MatchedPath>,
    pub(super) protocol: &'static str,
    /// Bytes of the body that were read.
    pub(super) bytes_in: Arc<AtomicU64>,
    /// Bytes of the answer's body that were handed to the connection.
    pub(super) bytes_out: Arc<AtomicU64>,
    /// Whether the answer is that of a probe or a scrape that went well: orchestrators ask for thousands a day.
    pub(super) quiet: bool,
    /// The answer, once there is one.
    pub(super) answer: Option<Answered>,
}

/// An answer, as the log has it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Answered {
    /// When its head was ready.
    pub(super) at: Instant,
    pub(super) status: u16,
    pub(super) code: Option<Code>,
}

impl AccessLine {
    pub(super) fn route(&self) -> &str {
        self.route.as_ref().map_or(UNMATCHED, MatchedPath::as_str)
    }

    /// Sends the request's trace, if there is a collector; gives the trace's id, which may be the caller's alone.
    fn trace(&self, spent: &Spent, outcome: &'static str) -> Option<TraceId> {
        let parent = self.context.parent.as_ref();
        let Some(traces) = self.state.traces.as_ref().filter(|_| self.method == "POST") else {
            return parent.map(SpanContext::trace_id);
        };
        let status = self.answer.map(|answer| answer.status);
        let code = self.answer.and_then(|answer| answer.code);
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
        let code = self.answer.and_then(|answer| answer.code);
        let outcome = match (self.answer, code) {
            (None, _) => Outcome::Cancelled.as_str(),
            (_, Some(code)) => Outcome::of(code).as_str(),
            _ if !spent.judged.is_empty() => Outcome::Scored.as_str(),
            _ => "answered",
        };
        let trace_id = self.trace(&spent, outcome);
        let ms = |time: Duration| time.as_secs_f64() * 1e3;
        let until = self.answer.map_or_else(Instant::now, |answer| answer.at);
        // A level is fixed where a line is written: there are two such places.
        macro_rules! line {
            ($level:expr) => {
                tracing::event!(
                    $level,
                    request_id = &*self.context.id,
                    trace_id = trace_id.map(tracing::field::display),
                    client = %self.context.client(),
                    protocol = self.protocol,
                    method = self.method,
                    route = self.route(),
                    status = self.answer.map(|answer| answer.status),
                    code = code.map(Code::as_str),
                    outcome,
                    bytes_in = self.bytes_in.load(Relaxed),
                    bytes_out = self.bytes_out.load(Relaxed),
                    read_ms = spent.read.map(|(began, done)| ms(done - began)),
                    decode_ms = spent.longest(|image| image.decode).map(ms),
                    queue_ms = spent.longest(|image| image.queue).map(ms),
                    inference_ms = spent.longest(|image| image.inference).map(ms),
                    duration_ms = ms(until - self.context.started),
                    "request"
                )
            };
        }
        if self.quiet { line!(tracing::Level::DEBUG) } else { line!(tracing::Level::INFO) }
    }
}

/// A body whose bytes are counted as they pass.
pub(super) struct CountedBody {
    body: Body,
    bytes: Arc<AtomicU64>,
    /// Of an answer: written when the body is dropped.
    _line: Option<AccessLine>,
}

impl CountedBody {
    pub(super) fn new(body: Body, bytes: Arc<AtomicU64>, line: Option<AccessLine>) -> Self {
        Self { body, bytes, _line: line }
    }
}

impl HttpBody for CountedBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        if let Poll::Ready(Some(Ok(frame))) = &polled
            && let Some(data) = frame.data_ref()
        {
            self.bytes.fetch_add(data.len() as u64, Relaxed);
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
