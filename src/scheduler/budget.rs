//! A budget of bytes (request bodies), reserved in shares; dropping a share returns it.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use prometheus::IntGauge;
use tokio::sync::OwnedSemaphorePermit;

/// The whole budget. Reserving never waits: what does not fit is refused.
#[derive(Debug)]
pub(super) struct Budget {
    limit: u64,
    used: AtomicU64,
    gauge: IntGauge,
}

/// A reserved part of a [`Budget`], returned when dropped.
#[derive(Debug)]
pub struct Share {
    budget: Arc<Budget>,
    amount: u64,
    _place: Option<OwnedSemaphorePermit>,
}

impl Budget {
    pub(super) fn new(limit: u64, gauge: IntGauge) -> Arc<Self> {
        Arc::new(Self { limit, used: AtomicU64::new(0), gauge })
    }

    /// Reserves `amount`, or returns `None` if it does not fit.
    pub(super) fn take(budget: &Arc<Self>, amount: u64) -> Option<Share> {
        budget.reserve(amount).then(|| Share { budget: Arc::clone(budget), amount, _place: None })
    }

    pub(super) fn used(&self) -> u64 {
        self.used.load(Relaxed)
    }

    pub(super) fn limit(&self) -> u64 {
        self.limit
    }

    pub(super) fn free(&self) -> u64 {
        self.limit.saturating_sub(self.used())
    }

    fn reserve(&self, amount: u64) -> bool {
        let fits = |used: u64| used.checked_add(amount).filter(|&sum| sum <= self.limit);
        // Relaxed: the count guards no other memory.
        let taken = self.used.fetch_update(Relaxed, Relaxed, fits).is_ok();
        if taken {
            self.gauge.add(i64::try_from(amount).unwrap_or(i64::MAX));
        }
        taken
    }
}

impl Share {
    /// Attaches a semaphore permit to the share: both are released together.
    #[must_use]
    pub fn with_place(mut self, place: OwnedSemaphorePermit) -> Self {
        self._place = Some(place);
        self
    }

    /// Reserves `extra` more, or leaves the share unchanged if that does not fit.
    #[must_use]
    pub(super) fn grow(&mut self, extra: u64) -> bool {
        let grown = self.budget.reserve(extra);
        if grown {
            self.amount += extra;
        }
        grown
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.budget.used.fetch_sub(self.amount, Relaxed);
        self.budget.gauge.sub(i64::try_from(self.amount).unwrap_or(i64::MAX));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// For any sequence of take, grow and drop: `used` is within the limit and equals the sum of the live shares.
        #[test]
        fn shares_add_up(limit in 0..200u64, steps in prop::collection::vec((0..3u8, 0..100u64), 0..60)) {
            let budget = Budget::new(limit, IntGauge::new("g", "g").expect("a valid name"));
            let mut shares: Vec<Share> = Vec::new();
            for (step, amount) in steps {
                match step {
                    0 => shares.extend(Budget::take(&budget, amount)),
                    1 => if let Some(share) = shares.last_mut() {
                        let before = share.amount;
                        let grown = share.grow(amount);
                        prop_assert_eq!(share.amount, before + if grown { amount } else { 0 });
                    },
                    _ => drop(shares.pop()),
                }
                let held: u64 = shares.iter().map(|share| share.amount).sum();
                prop_assert_eq!(budget.used.load(Relaxed), held);
                prop_assert!(held <= limit);
                prop_assert_eq!(budget.gauge.get(), held as i64);
            }
        }
    }
}
