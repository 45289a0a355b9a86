//! Clients' accounts: what each has waiting, and how much of the machine it has had. Start-time fair queueing (Goyal, Vin
//! and Cheng 1996): each client has a virtual clock that runs by the time its work takes, divided by its weight, and the
//! client with the earliest clock is served next. Pure: time comes from outside.

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use tokio::time::Instant;

use super::work::{Place, Resource, WaitingDecode, WaitingResume, WaitingRun};
use crate::scheduler::{
    client::{Client, ClientId},
    load::StandingLine,
};

/// A client's rank for a resource, the least first: its clock, when it was last served, and the order of its work.
pub(super) type Rank = (u64, u64, Place);

/// The accounts of all clients that have images in flight, and of those that have lately had more than their share.
#[derive(Debug, Default)]
pub(super) struct Accounts {
    of: HashMap<ClientId, Account>,
    /// Start of the work served last, for each resource. No clock counts as earlier: who was away, or could not be
    /// served, has no claim on the past.
    floor: [u64; 2],
    /// Counts what is served, so that equal clocks take turns.
    served: u64,
}

/// One client's account.
#[derive(Debug)]
pub(super) struct Account {
    weight: u64,
    /// Permits held.
    pub(super) images: usize,
    pub(super) decodes: BTreeMap<Place, WaitingDecode>,
    /// Decodes that have begun and gave way.
    pub(super) paused: BTreeMap<Place, WaitingResume>,
    pub(super) runs: BTreeMap<Place, WaitingRun>,
    pub(super) standing: StandingLine,
    /// Virtual nanoseconds, for each resource.
    clock: [u64; 2],
    served: u64,
}

impl Accounts {
    /// The client's account, opened if need be.
    pub(super) fn open(&mut self, client: &Client) -> &mut Account {
        let account = self.of.entry(client.id.clone()).or_insert_with(|| {
            // At the end of those with the same clock.
            self.served += 1;
            Account {
                weight: 1,
                images: 0,
                decodes: BTreeMap::new(),
                paused: BTreeMap::new(),
                runs: BTreeMap::new(),
                standing: StandingLine::default(),
                clock: self.floor,
                served: self.served,
            }
        });
        account.weight = client.weight.get().into();
        account
    }

    pub(super) fn get(&self, client: &ClientId) -> Option<&Account> {
        self.of.get(client)
    }

    pub(super) fn get_mut(&mut self, client: &ClientId) -> Option<&mut Account> {
        self.of.get_mut(client)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&ClientId, &Account)> {
        self.of.iter()
    }

    /// Clients with images in flight.
    pub(super) fn active(&self) -> usize {
        self.of.values().filter(|account| account.images > 0).count()
    }

    /// An account's rank, if `place` is its next work for the resource.
    pub(super) fn rank(&self, account: &Account, resource: Resource, place: Place) -> Rank {
        let at = resource as usize;
        (account.clock[at].max(self.floor[at]), account.served, place)
    }

    /// The client is served now; `ahead` is charged at once, what it really takes is settled by [`Self::charge`].
    pub(super) fn serve(&mut self, client: &ClientId, resource: Resource, ahead: Duration) {
        self.served += 1;
        let (at, served) = (resource as usize, self.served);
        if let Some(account) = self.of.get_mut(client) {
            let start = account.clock[at].max(self.floor[at]);
            self.floor[at] = start;
            account.clock[at] = start + nanoseconds(ahead) / account.weight;
            account.served = served;
        }
    }

    /// What was charged ahead took `spent` in fact.
    pub(super) fn charge(&mut self, client: &ClientId, resource: Resource, ahead: Duration, spent: Duration) {
        if let Some(account) = self.of.get_mut(client) {
            let clock = &mut account.clock[resource as usize];
            let ahead = nanoseconds(ahead) / account.weight;
            *clock = (*clock + nanoseconds(spent) / account.weight).saturating_sub(ahead);
        }
    }

    /// An image of the client has left. An account with nothing in flight is closed once its clock is no later than
    /// anybody's, so that nobody gets rid of what it has used by leaving.
    pub(super) fn leave(&mut self, client: &ClientId) {
        /// Accounts kept for their clocks alone: beyond it they are closed early.
        const MOST_IDLE: usize = 4096;
        let Some(account) = self.of.get_mut(client) else { return };
        account.images -= 1;
        if account.images > 0 {
            return;
        }
        account.standing.empty();
        let (active, floor) = (self.active(), self.floor);
        if active == 0 {
            self.of.clear();
        } else if self.of.len() > 2 * active {
            let keeps_debts = self.of.len() < MOST_IDLE;
            let owes = |account: &Account| account.clock.iter().zip(floor).any(|(&clock, floor)| clock > floor);
            self.of.retain(|_, account| account.images > 0 || (keeps_debts && owes(account)));
        }
    }
}

impl Account {
    /// Work of an image was taken out of the line after the image had `waited` in all.
    pub(super) fn served_after(&mut self, waited: Duration, now: Instant) {
        if self.waiting() == 0 {
            self.standing.empty();
        } else {
            self.standing.served_after(waited, now);
        }
    }

    /// What waits.
    pub(super) fn waiting(&self) -> usize {
        self.decodes.len() + self.paused.len() + self.runs.len()
    }
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX >> 1)
}
