//! How loaded the sessions are: whether a queue stands, and how fast it moves.

use std::time::Duration;

use tokio::time::Instant;

/// A wait that no burst explains: an image's own run takes some tens of milliseconds.
const TARGET: Duration = Duration::from_millis(500);

/// For how long every image must have waited longer than the target. A burst drains within it.
const INTERVAL: Duration = Duration::from_secs(1);

/// Tells a queue that stands from a burst, as CoDel does (RFC 8289): not by its length, but by whether the
/// shortest wait over an interval stays above a target. While it stands, new images are refused, so that
/// those let in are answered soon and not at their deadline.
#[derive(Debug, Default)]
pub(super) struct StandingQueue {
    above_since: Option<Instant>,
}

impl StandingQueue {
    /// An image was taken after it had `waited` in all.
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

/// Seconds an image at which the sessions together answer: a moving average over runs.
#[derive(Debug, Default)]
pub(super) struct Pace {
    seconds_per_image: f64,
    /// When the last run ended, if more work was there then: the gap to the next end is work, not idleness.
    last_end: Option<Instant>,
}

impl Pace {
    /// A run of `images` ended after `alone`, one of `sessions`; `backlog` tells whether more work is there.
    pub(super) fn finished(&mut self, images: usize, alone: Duration, sessions: usize, backlog: bool, now: Instant) {
        let gap = self.last_end.map(|end| now - end);
        self.last_end = backlog.then_some(now);
        if images == 0 {
            return;
        }
        let spent = gap.unwrap_or(alone / u32::try_from(sessions.max(1)).unwrap_or(u32::MAX));
        let newest = spent.as_secs_f64() / images as f64;
        // A tenth of the newest: some ten runs forget a change of pace.
        self.seconds_per_image =
            if self.seconds_per_image == 0.0 { newest } else { 0.9 * self.seconds_per_image + 0.1 * newest };
    }

    pub(super) fn time_for(&self, images: u64) -> Duration {
        // An hour at the most: beyond that the number means nothing.
        Duration::from_secs_f64((images as f64 * self.seconds_per_image).clamp(0.0, 3600.0))
    }
}
