//! Clients' accounts: what each has waiting, and how much machine time it has used. Start-time fair queueing (Goyal,
//! Vin and Cheng 1996): each client's virtual clock advances by the time its work takes, divided by its weight; the
//! client with the earliest clock is served next. Pure: the caller passes the time.

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

/// A client's rank for a resource, lowest first: its clock, then when it was last served, then the order of its work.
pub(super) type Rank = (u64, u64, Place);

/// The accounts of all clients that have images in flight, and of those that recently used more than their share.
#[derive(Debug, Default)]
pub(super) struct Accounts {
    of: HashMap<ClientId, Account>,
    /// Models that runs can be for.
    models: usize,
    /// For each resource, the virtual start time of the work served last. No clock counts as earlier: a client that
    /// was idle, or could not be served, gets no credit for it.
    floor: [u64; 2],
    /// Counts served work: clients with equal clocks alternate.
    served: u64,
}

/// One client's account.
#[derive(Debug)]
pub(super) struct Account {
    weight: u64,
    /// Permits held.
    pub(super) images: usize,
    pub(super) decodes: BTreeMap<Place, WaitingDecode>,
    /// Decodes that have begun and yielded their CPU.
    pub(super) paused: BTreeMap<Place, WaitingResume>,
    /// By the model's number.
    pub(super) runs: Vec<BTreeMap<Place, WaitingRun>>,
    pub(super) standing: StandingLine,
    /// Virtual nanoseconds per resource.
    clock: [u64; 2],
    served: u64,
}

impl Accounts {
    pub(super) fn new(models: usize) -> Self {
        Self { models, ..Self::default() }
    }

    /// The client's account, opened if there is none.
    pub(super) fn open(&mut self, client: &Client) -> &mut Account {
        let account = self.of.entry(client.id.clone()).or_insert_with(|| {
            // Last among those with the same clock.
            self.served += 1;
            Account {
                weight: 1,
                images: 0,
                decodes: BTreeMap::new(),
                paused: BTreeMap::new(),
                runs: (0..self.models).map(|_| BTreeMap::new()).collect(),
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

    /// The account's rank when `place` is its next work for the resource.
    pub(super) fn rank(&self, account: &Account, resource: Resource, place: Place) -> Rank {
        let at = resource as usize;
        (account.clock[at].max(self.floor[at]), account.served, place)
    }

    /// Charges the client `ahead` in advance as its work starts; [`Self::charge`] settles the actual time.
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

    /// Replaces `ahead`, charged in advance, by the actual time `spent`.
    pub(super) fn charge(&mut self, client: &ClientId, resource: Resource, ahead: Duration, spent: Duration) {
        if let Some(account) = self.of.get_mut(client) {
            let clock = &mut account.clock[resource as usize];
            let ahead = nanoseconds(ahead) / account.weight;
            *clock = (*clock + nanoseconds(spent) / account.weight).saturating_sub(ahead);
        }
    }

    /// An image of the client is no longer in flight. An account with none in flight is closed only once its clock is
    /// not ahead of the floor: a client must not reset its usage by disconnecting.
    pub(super) fn leave(&mut self, client: &ClientId) {
        /// Above this many accounts, idle ones are closed even if their clock is ahead.
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
    /// Work of an image was dequeued after the image had `waited` in total.
    pub(super) fn served_after(&mut self, waited: Duration, now: Instant) {
        if self.waiting() == 0 {
            self.standing.empty();
        } else {
            self.standing.served_after(waited, now);
        }
    }

    /// Work that waits.
    pub(super) fn waiting(&self) -> usize {
        self.decodes.len() + self.paused.len() + self.runs.iter().map(BTreeMap::len).sum::<usize>()
    }
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX >> 1)
}
