//! What is known of a request, from its head to its access line.

use std::{
    sync::{Arc, Mutex, OnceLock, PoisonError},
    time::Duration,
};

use opentelemetry::trace::SpanContext;
use tokio::time::Instant;

use super::connection::Peer;
use crate::{keys::Key, scheduler::Client, timings::Timings};

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
    pub(super) parent: Option<SpanContext>,
    pub(super) spent: Arc<Mutex<Spent>>,
}

/// Where a request's time went.
#[derive(Debug, Default)]
pub(super) struct Spent {
    pub(super) read: Option<(Instant, Instant)>,
    pub(super) judged: Vec<Timings>,
}

impl Spent {
    /// The longest time that any image spent in a stage, if one was judged.
    pub(super) fn longest(&self, stage: impl Fn(&Timings) -> Duration) -> Option<Duration> {
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

    pub(super) fn spent(&self) -> std::sync::MutexGuard<'_, Spent> {
        // Nothing is left half changed.
        self.spent.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
