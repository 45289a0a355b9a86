//! Load estimates: whether a client has a standing queue, and how long a run takes.

use std::time::Duration;

use tokio::time::Instant;

/// Target queueing delay: an image's own run takes some tens of milliseconds.
const TARGET: Duration = Duration::from_millis(500);

/// For how long every image must have waited longer than the target. A burst drains in less.
const INTERVAL: Duration = Duration::from_secs(1);

/// Distinguishes a standing queue from a burst as CoDel does (RFC 8289): not by length, but by whether the shortest
/// wait over an interval stays above a target. One per client: while the queue stands, the client's new images are
/// refused, so that admitted ones are answered soon, not at their deadline.
#[derive(Debug, Default)]
pub(super) struct StandingLine {
    above_since: Option<Instant>,
}

impl StandingLine {
    /// An image was dequeued after it had `waited` in total.
    pub(super) fn served_after(&mut self, waited: Duration, now: Instant) {
        if waited < TARGET {
            self.above_since = None;
        } else {
            self.above_since.get_or_insert(now);
        }
    }

    /// The queue is empty.
    pub(super) fn empty(&mut self) {
        self.above_since = None;
    }

    pub(super) fn is_standing(&self, now: Instant) -> bool {
        self.above_since.is_some_and(|since| now - since >= INTERVAL)
    }
}

/// A session's time per image: a moving average over runs.
#[derive(Debug, Default)]
pub(super) struct RunCost(Duration);

impl RunCost {
    /// Sets the warm-up's measurement as the first estimate.
    pub(super) fn expect(&mut self, first: Duration) {
        if self.0.is_zero() {
            self.0 = first;
        }
    }

    /// A run took `newest` per image.
    pub(super) fn observe(&mut self, newest: Duration) {
        // Exponential moving average, weight 1/10: follows a change of speed within about ten runs.
        self.0 = if self.0.is_zero() { newest } else { (self.0 * 9 + newest) / 10 };
    }

    pub(super) fn get(&self) -> Duration {
        self.0
    }
}
