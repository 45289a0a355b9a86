//! Places for connections: bounded, and shared out when they are short.
//!
//! Behind a load balancer every connection has the same address, so an address alone limits nothing. Only when all places
//! are taken are idle connections closed, first those that never sent a request, then those of the address that holds the
//! most; those with news of the last second only where there are no others. A few places beyond the limit are kept for the
//! probes. An HTTP/2 connection can have many requests in flight: they are bounded too, by closing the connections that
//! take nothing of the most answers.

use std::{
    cmp::Reverse,
    collections::HashMap,
    net::IpAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::time::Instant;

use super::connection::{Activity, Peer};
use crate::scheduler::network;

/// How long a connection must have been silent to be taken for idle: a request may be on its way.
const SILENT: Duration = Duration::from_secs(1);

/// Connections beyond the limit on which only the probes are answered.
const FOR_PROBES: usize = 64;

/// Requests in flight beyond two a connection, before connections are closed for them.
const SPARE_REQUESTS: usize = 1024;

/// The part of the places that is freed at once when all are taken: finding the idle ones costs a look at all.
const FREED_AT_ONCE: usize = 64;

#[derive(Debug)]
pub(super) struct Places {
    limit: usize,
    in_flight: Arc<AtomicUsize>,
    open: Mutex<Open>,
}

#[derive(Debug, Default)]
struct Open {
    next: u64,
    connections: HashMap<u64, Arc<Activity>>,
    peers: HashMap<IpAddr, Arc<Peer>>,
}

/// A connection's place, free again when this is dropped.
#[derive(Debug)]
pub(super) struct Place {
    id: u64,
    address: IpAddr,
    pub(super) activity: Arc<Activity>,
    places: Arc<Places>,
}

impl Places {
    pub(super) fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self { limit, in_flight: Arc::default(), open: Mutex::default() })
    }

    /// A place for a connection from `address`; none if every one is taken by a connection with a request in flight.
    pub(super) fn enter(self: &Arc<Self>, address: IpAddr) -> Option<Place> {
        let address = network(address);
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if open.connections.len() >= self.limit {
            open.evict_idle(self.freed_at_once());
        }
        if open.connections.len() >= self.limit + FOR_PROBES {
            return None;
        }
        let only_probes = open.connections.len() >= self.limit;
        let peer = Arc::clone(open.peers.entry(address).or_default());
        peer.connections.fetch_add(1, Relaxed);
        let activity = Arc::new(Activity::new(peer, Arc::clone(&self.in_flight), only_probes));
        let id = open.next;
        open.next += 1;
        open.connections.insert(id, Arc::clone(&activity));
        Some(Place { id, address, activity, places: Arc::clone(self) })
    }

    /// A request has come: closes connections, if that makes too many.
    pub(super) fn make_room(&self) {
        if self.in_flight.load(Relaxed) <= 2 * self.limit + SPARE_REQUESTS {
            return;
        }
        // Who finds it locked leaves it to the one that looks.
        let Ok(mut open) = self.open.try_lock() else { return };
        let Some(before) = Instant::now().checked_sub(SILENT) else { return };
        open.evict(self.freed_at_once(), |activity| {
            let waiting = activity.answers_waiting(before);
            (waiting > 0).then_some(Reverse(waiting))
        });
    }

    fn freed_at_once(&self) -> usize {
        (self.limit / FREED_AT_ONCE).max(1)
    }
}

impl Open {
    /// Closes up to `count` connections, those with the lowest rank first; those without a rank stay.
    fn evict<R: Ord>(&mut self, count: usize, rank: impl Fn(&Activity) -> Option<R>) {
        let ranked = self.connections.iter();
        let mut ranked: Vec<_> = ranked.filter_map(|(&id, activity)| Some((rank(activity)?, id))).collect();
        ranked.sort_unstable();
        for (_, id) in ranked.into_iter().take(count) {
            if let Some(activity) = self.connections.remove(&id) {
                activity.evict();
            }
        }
    }

    /// Closes up to `count` idle connections.
    fn evict_idle(&mut self, count: usize) {
        let now = Instant::now();
        self.evict(count, |activity| {
            let silent = now.duration_since(activity.idle_since()?) >= SILENT;
            Some((!silent, activity.has_served(), Reverse(activity.peer().connections.load(Relaxed))))
        });
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut open = self.places.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.connections.remove(&self.id);
        if self.activity.peer().connections.fetch_sub(1, Relaxed) == 1 {
            open.peers.remove(&self.address);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn address(last: u8) -> IpAddr {
        Ipv4Addr::new(10, 0, 0, last).into()
    }

    #[tokio::test(start_paused = true)]
    async fn the_silent_ones_of_the_address_with_the_most_go_first() {
        let places = Places::new(3);
        let other = places.enter(address(2)).expect("a place");
        let first = places.enter(address(1)).expect("a place");
        let second = places.enter(address(1)).expect("a place");
        drop(first.activity.begin());
        tokio::time::advance(SILENT).await;
        let third = places.enter(address(3)).expect("a place");
        assert!(second.activity.is_evicted() && !third.activity.only_probes());
        assert!(!first.activity.is_evicted() && !other.activity.is_evicted());
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_was_just_made_is_not_taken_for_an_idle_one() {
        let places = Places::new(2);
        let served = places.enter(address(1)).expect("a place");
        drop(served.activity.begin());
        tokio::time::advance(SILENT).await;
        let new = places.enter(address(1)).expect("a place");
        let newer = places.enter(address(1)).expect("a place");
        assert!(served.activity.is_evicted() && !new.activity.is_evicted() && !newer.activity.only_probes());
        // Where all are new, the oldest goes.
        assert!(places.enter(address(1)).is_some() && new.activity.is_evicted());
    }

    #[tokio::test(start_paused = true)]
    async fn who_takes_nothing_of_the_most_answers_goes_when_too_many_requests_are_in_flight() {
        let places = Places::new(64);
        let [few, many, busy] = [1, 2, 3].map(|last| places.enter(address(last)).expect("a place"));
        let ask = |place: &Place, count: usize| -> Vec<_> { (0..count).map(|_| place.activity.begin()).collect() };
        let _working = ask(&busy, SPARE_REQUESTS);
        let _waiting = [(&few, 10), (&many, 118)].map(|(place, count)| {
            let answers = ask(place, count);
            answers.iter().for_each(|answer| answer.waits_for_client(true));
            answers
        });
        tokio::time::advance(SILENT).await;
        places.make_room();
        assert!(!many.activity.is_evicted(), "as many as may be");
        let _one_more = few.activity.begin();
        places.make_room();
        assert!(many.activity.is_evicted() && !few.activity.is_evicted() && !busy.activity.is_evicted());
        assert_eq!(places.in_flight.load(Relaxed), SPARE_REQUESTS + 11);
    }

    #[test]
    fn when_all_are_busy_the_probes_still_get_in_up_to_a_limit() {
        let places = Places::new(2);
        let busy: Vec<_> = (0..2).map(|i| places.enter(address(i)).expect("a place")).collect();
        let _requests: Vec<_> = busy.iter().map(|place| place.activity.begin()).collect();
        let probes: Vec<_> = (0..FOR_PROBES).map(|_| places.enter(address(9)).expect("a place")).collect();
        assert!(probes.iter().all(|place| place.activity.only_probes()));
        // The probes' connections are idle here, so that one makes way for the next.
        assert!(places.enter(address(9)).is_some());
        drop((busy, probes));
        assert!(places.open.lock().expect("not poisoned").peers.is_empty());
    }

    #[test]
    fn an_ipv6_site_is_one_address() {
        let of = |text: &str| network(text.parse().expect("an address"));
        assert_eq!(of("2001:db8:1:2:3:4:5:6"), of("2001:db8:1:2::1"));
        assert_ne!(of("2001:db8:1:2::1"), of("2001:db8:1:3::1"));
        assert_eq!(of("::ffff:10.0.0.1"), of("10.0.0.1"));
    }
}
