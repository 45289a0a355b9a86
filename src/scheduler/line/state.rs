//! The line's state, and the choice of what starts next. Nothing here waits; the caller passes the time.

mod backlog;
mod batch;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use tokio::{sync::oneshot, time::Instant};

use self::backlog::{Backlog, among};
use super::{
    Bounds, Line,
    account::{Accounts, Rank},
    job::{Job, Permit},
    usage::Usage,
    work::{Batch, Call, Cpu, Demand, Place, Resource, SLICE, Turn, WaitingDecode, WaitingResume, WaitingRun},
};
use crate::{
    error::Error,
    model::Output,
    scheduler::client::{Client, ClientId},
};

/// Limit of paused decodes, beyond one decode a CPU: each occupies a thread.
const MOST_BEGUN: usize = 64;

#[derive(Debug)]
pub(super) struct State {
    bounds: Bounds,
    accounts: Accounts,
    usage: Usage,
    next_number: u64,
    closed: bool,
    cpus_free: usize,
    /// Permits held.
    images: usize,
    memory_used: u64,
    /// Decodes that have begun and not ended.
    begun: usize,
    /// Estimated cost of the decodes that wait or have begun.
    decode_backlog: Duration,
    /// The sessions of each model, by its number.
    models: Vec<Sessions>,
    /// Start of each running batch, by batch number.
    running: BTreeMap<u64, Instant>,
    backlog: Backlog,
}

/// The sessions of one model.
#[derive(Debug, Default)]
struct Sessions {
    idle: Vec<Idle>,
    /// Those that were called and have not yet taken a batch.
    called: usize,
    /// Those that run a batch or can take one.
    up: usize,
}

/// An idle session.
#[derive(Debug)]
pub(super) struct Idle {
    /// The largest batch.
    pub(super) most: usize,
    pub(super) call: oneshot::Sender<Call>,
}

/// Messages to send once the state is unlocked.
pub(super) enum Started {
    Decode(oneshot::Sender<Result<Turn, Error>>, Result<Turn, Error>),
    Resume(oneshot::Sender<Cpu>, Cpu),
    Call(oneshot::Sender<Call>, Call),
    /// A run whose deadline has passed; the caller's own timer may not have fired yet.
    Late(oneshot::Sender<Result<Job<Output>, Error>>),
}

impl Started {
    /// If the receiver is gone, the value is dropped, which returns what it holds.
    pub(super) fn send(self) {
        match self {
            Self::Decode(reply, turn) => drop(reply.send(turn)),
            Self::Resume(go_on, cpu) => drop(go_on.send(cpu)),
            Self::Call(session, call) => drop(session.send(call)),
            Self::Late(reply) => drop(reply.send(Err(Error::deadline_exceeded()))),
        }
    }
}

/// Kinds of work that can start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Decode,
    Resume,
    /// Of the model of this number.
    Run(usize),
}

/// The work with the lowest rank so far.
type Best<'a> = Option<(Rank, Kind, &'a ClientId)>;

fn offer<'a>(best: &mut Best<'a>, rank: Rank, kind: Kind, client: &'a ClientId) {
    if best.as_ref().is_none_or(|(least, ..)| rank < *least) {
        *best = Some((rank, kind, client));
    }
}

/// Withdrawn work; dropped outside the lock.
pub(super) type Withdrawn = (Option<WaitingDecode>, Option<WaitingResume>, Option<WaitingRun>);

impl State {
    pub(super) fn new(bounds: Bounds) -> Self {
        let models = bounds.runs_take_cpu.len();
        Self {
            accounts: Accounts::new(models),
            usage: Usage::default(),
            next_number: 0,
            closed: false,
            cpus_free: bounds.cpus,
            images: 0,
            memory_used: 0,
            begun: 0,
            decode_backlog: Duration::ZERO,
            models: (0..models).map(|_| Sessions::default()).collect(),
            running: BTreeMap::new(),
            backlog: Backlog::new(models),
            bounds,
        }
    }

    fn number(&mut self) -> u64 {
        self.next_number += 1;
        self.next_number
    }

    /// Admits one image of the client and returns its order of arrival, or the reason of the refusal.
    pub(super) fn admit(&mut self, client: &Client, now: Instant) -> Result<u64, &'static str> {
        let account = self.accounts.get(&client.id);
        if account.is_some_and(|account| account.standing.is_standing(now)) {
            return Err("the queueing delay of the client's images is too high");
        }
        let free = self.bounds.images.saturating_sub(self.images);
        if free == 0 {
            return Err("the limit of images in flight is reached");
        }
        // The last sixteenth is for clients that hold less than an equal share: one client cannot take it all.
        let held = account.map_or(0, |account| account.images);
        let clients = self.accounts.active() + usize::from(held == 0);
        if free <= self.bounds.images / 16 && held >= self.bounds.images / clients.max(2) {
            return Err("the limit of images in flight is reached, most of them the client's own");
        }
        self.accounts.open(client).images += 1;
        self.images += 1;
        Ok(self.number())
    }

    /// An admitted image goes to these models.
    pub(super) fn assign(&mut self, models: &[usize]) {
        self.backlog.assign(models);
    }

    /// `models`: where it went, if that was known.
    pub(super) fn leave(&mut self, client: &ClientId, models: Option<&[usize]>) {
        self.images -= 1;
        if let Some(models) = models {
            self.backlog.leave(models);
        }
        self.accounts.leave(client);
    }

    pub(super) fn wait_to_decode(&mut self, permit: &Permit, waiting: WaitingDecode) -> Place {
        let place = (permit.order, self.number());
        self.decode_backlog += waiting.demand.cost;
        self.accounts.open(&permit.client).decodes.insert(place, waiting);
        place
    }

    pub(super) fn wait_to_run(&mut self, model: usize, permit: &Permit, waiting: WaitingRun) -> Place {
        let place = (permit.order, self.number());
        self.accounts.open(&permit.client).runs[model].insert(place, waiting);
        place
    }

    pub(super) fn withdraw(&mut self, client: &ClientId, place: Place) -> Withdrawn {
        let Some(account) = self.accounts.get_mut(client) else { return (None, None, None) };
        let run = account.runs.iter_mut().find_map(|runs| runs.remove(&place));
        let withdrawn = (account.decodes.remove(&place), account.paused.remove(&place), run);
        if let Some(decode) = &withdrawn.0 {
            self.decode_backlog = self.decode_backlog.saturating_sub(decode.demand.cost);
        }
        withdrawn
    }

    pub(super) fn idle(&mut self, model: usize, session: Idle) {
        self.models[model].idle.push(session);
    }

    /// Starts all work that can start.
    pub(super) fn start(&mut self, line: &Arc<Line>, now: Instant) -> Vec<Started> {
        let mut started = Vec::new();
        while let Some((_, kind, client)) = self.next(self.cpus_free > 0, now) {
            let (place, client) = (client.1, client.0);
            let next = match kind {
                Kind::Run(model) => self.call(line, model),
                Kind::Resume => self.resume(line, &client, place),
                Kind::Decode => self.begin(line, &client, place, now),
            };
            started.extend(next);
        }
        for model in 0..self.models.len() {
            if self.closed && self.runs(model) == 0 {
                self.models[model].idle.clear();
            }
        }
        started
    }

    /// The work to start next; `cpu`: whether a CPU is free.
    fn next(&self, cpu: bool, now: Instant) -> Option<(Rank, Kind, (ClientId, Place))> {
        let begin = cpu && self.begun < MOST_BEGUN + self.bounds.cpus;
        let mut best = None;
        for model in (0..self.models.len()).filter(|&model| self.can_run(model, cpu, now)) {
            for (client, account) in self.accounts.iter() {
                if let Some((&place, _)) = account.runs[model].first_key_value() {
                    let rank = self.accounts.rank(account, self.run_resource(model), place);
                    offer(&mut best, rank, Kind::Run(model), client);
                }
            }
        }
        // Of the decodes that need much memory only the first may start: later ones must not starve it of memory.
        let mut large: Option<(Rank, u64, &ClientId)> = None;
        for (client, account) in self.accounts.iter() {
            let rank = |place| self.accounts.rank(account, Resource::Cpu, place);
            if cpu && let Some((&place, _)) = account.paused.first_key_value() {
                offer(&mut best, rank(place), Kind::Resume, client);
            }
            if begin && let Some((&place, waiting)) = account.decodes.first_key_value() {
                let memory = waiting.demand.memory;
                let rank = rank(place);
                if !self.bounds.memory.is_small(memory) {
                    if large.as_ref().is_none_or(|(least, ..)| rank < *least) {
                        large = Some((rank, memory, client));
                    }
                } else if self.bounds.memory.fits(memory, self.memory_used) {
                    offer(&mut best, rank, Kind::Decode, client);
                }
            }
        }
        if let Some((rank, memory, client)) = large
            && self.bounds.memory.fits(memory, self.memory_used)
        {
            offer(&mut best, rank, Kind::Decode, client);
        }
        best.map(|(rank, kind, client)| (rank, kind, (client.clone(), rank.2)))
    }

    /// Whether a session of the model is free for a run that waits; `cpu`: whether a CPU is.
    fn can_run(&self, model: usize, cpu: bool, now: Instant) -> bool {
        let sessions = &self.models[model];
        (cpu || !self.bounds.runs_take_cpu[model])
            && !sessions.idle.is_empty()
            && self.runs(model) > sessions.called
            && self.window_is_over(model, now)
    }

    /// Whether a session may start a batch now: the batch is full, no image is being decoded, or the delay is over.
    fn window_is_over(&self, model: usize, now: Instant) -> bool {
        let delay = self.bounds.delay;
        if delay.is_zero() || !self.is_decoding() {
            return true;
        }
        let most = self.models[model].idle.last().map_or(1, |session| session.most);
        let waiting = || self.accounts.iter().flat_map(|(_, account)| account.runs[model].values());
        waiting().count() >= most || waiting().any(|run| run.since + delay <= now)
    }

    fn is_decoding(&self) -> bool {
        self.begun > 0 || self.accounts.iter().any(|(_, account)| !account.decodes.is_empty())
    }

    fn take_cpu(&mut self, line: &Arc<Line>) -> Cpu {
        self.cpus_free -= 1;
        Cpu(Arc::clone(line))
    }

    fn call(&mut self, line: &Arc<Line>, model: usize) -> Option<Started> {
        let session = self.models[model].idle.pop()?;
        self.models[model].called += 1;
        let cpu = self.bounds.runs_take_cpu[model].then(|| self.take_cpu(line));
        Some(Started::Call(session.call, Call { line: Arc::clone(line), model, cpu, answered: false }))
    }

    fn resume(&mut self, line: &Arc<Line>, client: &ClientId, place: Place) -> Option<Started> {
        let waiting = self.accounts.get_mut(client)?.paused.remove(&place)?;
        self.accounts.serve(client, Resource::Cpu, SLICE);
        Some(Started::Resume(waiting.go_on, self.take_cpu(line)))
    }

    fn begin(&mut self, line: &Arc<Line>, client: &ClientId, place: Place, now: Instant) -> Option<Started> {
        let account = self.accounts.get_mut(client)?;
        let WaitingDecode { demand, deadline, since, reply } = account.decodes.remove(&place)?;
        if deadline <= now {
            self.decode_backlog = self.decode_backlog.saturating_sub(demand.cost);
            return Some(Started::Decode(reply, Err(Error::deadline_exceeded())));
        }
        account.served_after(now - since, now);
        self.accounts.serve(client, Resource::Cpu, Turn::ahead(demand));
        self.begun += 1;
        self.memory_used += demand.memory;
        let cpu = self.take_cpu(line);
        Some(Started::Decode(reply, Ok(Turn::new(cpu, client.clone(), place, demand, now))))
    }

    pub(super) fn call_missed(&mut self, model: usize) {
        self.models[model].called -= 1;
    }

    pub(super) fn slice_over(
        &mut self,
        client: &ClientId,
        place: Place,
        ahead: Duration,
        spent: Duration,
        now: Instant,
    ) -> Option<oneshot::Receiver<Cpu>> {
        self.settle(client, Resource::Cpu, ahead, spent, now);
        let account = self.accounts.get(client)?;
        let own = self.accounts.rank(account, Resource::Cpu, place);
        if self.next(true, now).is_none_or(|(rank, ..)| own < rank) {
            self.accounts.serve(client, Resource::Cpu, SLICE);
            return None;
        }
        let (go_on, resumed) = oneshot::channel();
        self.accounts.get_mut(client)?.paused.insert(place, WaitingResume { go_on });
        Some(resumed)
    }

    /// A decode has stopped; `slice`: time charged ahead for its last slice, and time spent in it.
    pub(super) fn decode_over(
        &mut self,
        client: &ClientId,
        demand: Demand,
        slice: Option<(Duration, Duration)>,
        now: Instant,
    ) {
        if let Some((ahead, spent)) = slice {
            self.settle(client, Resource::Cpu, ahead, spent, now);
        }
        self.begun -= 1;
        self.memory_used -= demand.memory;
        self.decode_backlog = self.decode_backlog.saturating_sub(demand.cost);
    }

    pub(super) fn cpu_returned(&mut self) {
        self.cpus_free += 1;
    }

    pub(super) fn run_over(&mut self, batch: &Batch, now: Instant) {
        self.running.remove(&batch.number);
        let spent = (now - batch.started) / u32::try_from(batch.clients.len()).unwrap_or(u32::MAX).max(1);
        if batch.went_well {
            self.backlog.observe(batch.model, spent);
        }
        for client in &batch.clients {
            self.settle(client, batch.resource, batch.ahead, spent, now);
        }
    }

    fn settle(&mut self, client: &ClientId, resource: Resource, ahead: Duration, spent: Duration, now: Instant) {
        self.accounts.charge(client, resource, ahead, spent);
        self.usage.record(client, spent, now);
    }

    pub(super) fn join(&mut self, model: usize, first_cost: Option<Duration>) {
        self.models[model].up += 1;
        self.backlog.expect(model, first_cost.unwrap_or_default());
    }

    pub(super) fn part(&mut self, model: usize) {
        self.models[model].up -= 1;
    }

    pub(super) fn close(&mut self) {
        self.closed = true;
    }

    pub(super) fn is_closed(&self) -> bool {
        self.closed
    }

    pub(super) fn sessions(&self, model: usize) -> usize {
        self.models[model].up
    }

    pub(super) fn longest_run(&self) -> Option<Duration> {
        self.running.values().min().map(Instant::elapsed)
    }

    pub(super) fn images(&self) -> usize {
        self.images
    }

    pub(super) fn memory_used(&self) -> u64 {
        self.memory_used
    }

    /// Work that waits for a decoder or a session.
    pub(super) fn waiting(&self) -> usize {
        self.accounts.iter().map(|(_, account)| account.waiting()).sum()
    }

    /// Runs that wait for a session of the model.
    fn runs(&self, model: usize) -> usize {
        self.accounts.iter().map(|(_, account)| account.runs[model].len()).sum()
    }

    fn run_resource(&self, model: usize) -> Resource {
        if self.bounds.runs_take_cpu[model] { Resource::Cpu } else { Resource::Device }
    }

    /// Estimated time to finish the images in flight, as far as their cost is known.
    pub(super) fn time_to_drain(&self) -> Duration {
        let [runs, until_last] = self.backlog.runs(self.images, |model| self.models[model].up);
        let all_on_cpus = self.bounds.runs_take_cpu.iter().all(|&takes| takes);
        let on_cpus = if all_on_cpus { self.decode_backlog + runs } else { self.decode_backlog };
        (on_cpus / among(self.bounds.cpus)).max(until_last)
    }

    pub(super) fn top_keys(&self, now: Instant) -> Vec<(Arc<str>, f64)> {
        self.usage.top(now)
    }
}

#[cfg(test)]
impl State {
    /// Whether the client has work that waits.
    pub(super) fn waits(&self, client: &ClientId) -> bool {
        self.accounts.get(client).is_some_and(|account| account.waiting() > 0)
    }

    pub(super) fn assert_nothing_is_held(&self) {
        assert_eq!((self.cpus_free, self.images, self.begun), (self.bounds.cpus, 0, 0));
        assert_eq!((self.memory_used, self.decode_backlog), (0, Duration::ZERO));
        for Sessions { idle, called, up, .. } in &self.models {
            assert_eq!((idle.len(), called, up), (0, &0, &0));
        }
        assert!(self.running.is_empty() && self.backlog.is_empty());
        assert_eq!((self.accounts.iter().count(), self.waiting()), (0, 0));
    }
}
