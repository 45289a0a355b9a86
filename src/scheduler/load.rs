//! How loaded the server is: whether a client's line stands, and how long a run takes.

use std::time::Duration;

use tokio::time::Instant;

/// A wait that no burst explains: an image's own run takes some tens of milliseconds.
const TARGET: Duration = Duration::from_millis(500);

/// For how long every image must have waited longer than the target. A burst drains within it.
const INTERVAL: Duration = Duration::from_secs(1);

/// Tells a line that stands from a burst, as CoDel does (RFC 8289): not by its length, but by whether the
/// shortest wait over an interval stays above a target. Each client has its own: while it stands, the client's
/// new images are refused, so that those let in are answered soon and not at their deadline.
#[derive(Debug, Default)]
pub(super) struct StandingLine {
    above_since: Option<Instant>,
}

impl StandingLine {
    /// An image was taken after it had `waited` in all, from the end of its body on.
    pub(super) fn served_after(&mut self, waited: Duration, now: Instant) {
        if waited < TARGET {
            self.above_since = None;
        } else {
            self.above_since.get_or_insert(now);
        }
    }

    /// Nothing waits.
    pub(super) fn empty(&mut self) {
        self.above_since = None;
    }

    pub(super) fn is_standing(&self, now: Instant) -> bool {
        self.above_since.is_some_and(|since| now - since >= INTERVAL)
    }
}

/// A session's time for an image: a moving average over runs.
#[derive(Debug, Default)]
pub(super) struct RunCost(Duration);

impl RunCost {
    /// What the warm-up measured, until there is a run.
    pub(super) fn expect(&mut self, first: Duration) {
        if self.0.is_zero() {
            self.0 = first;
        }
    }

    /// A run took `newest` for each of its images.
    pub(super) fn observe(&mut self, newest: Duration) {
        // A tenth of the newest: some ten runs forget a change of pace.
        self.0 = if self.0.is_zero() { newest } else { (self.0 * 9 + newest) / 10 };
    }

    pub(super) fn get(&self) -> Duration {
        self.0
    }
}
