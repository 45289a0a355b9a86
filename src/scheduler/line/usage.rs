//! Recent machine use by API key.

use std::{collections::HashMap, sync::Arc, time::Duration};

use tokio::time::Instant;

use crate::scheduler::client::ClientId;

/// Decay time: after this long without work a client's use has fallen to 1/e.
const MEMORY: Duration = Duration::from_secs(60);

/// Keys reported separately: each is a metrics series.
const MOST: usize = 10;

/// Seconds of work, exponentially decayed.
#[derive(Debug, Clone, Copy)]
struct Recent {
    seconds: f64,
    at: Instant,
}

impl Recent {
    fn now(self, now: Instant) -> f64 {
        self.seconds * (-(now - self.at).as_secs_f64() / MEMORY.as_secs_f64()).exp()
    }

    fn add(before: Option<Self>, spent: Duration, now: Instant) -> Self {
        Self { seconds: before.map_or(0.0, |recent| recent.now(now)) + spent.as_secs_f64(), at: now }
    }
}

/// The recent work of all clients, and of each key.
#[derive(Debug, Default)]
pub(super) struct Usage {
    all: Option<Recent>,
    keys: HashMap<Arc<str>, Recent>,
}

impl Usage {
    pub(super) fn record(&mut self, client: &ClientId, spent: Duration, now: Instant) {
        self.all = Some(Recent::add(self.all, spent, now));
        if let ClientId::Key(name) = client {
            let before = self.keys.get(name).copied();
            self.keys.insert(Arc::clone(name), Recent::add(before, spent, now));
        }
    }

    /// The keys with the most recent work and their share of all of it, the largest first.
    pub(super) fn top(&self, now: Instant) -> Vec<(Arc<str>, f64)> {
        let all = self.all.map_or(0.0, |all| all.now(now));
        if all <= 0.0 {
            return Vec::new();
        }
        let share = |(name, recent): (&Arc<str>, &Recent)| (Arc::clone(name), recent.now(now) / all);
        let mut shares: Vec<_> = self.keys.iter().map(share).collect();
        shares.sort_by(|(_, a), (_, b)| b.total_cmp(a));
        shares.truncate(MOST);
        shares
    }
}
