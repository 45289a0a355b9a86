//! What waits in the line, and what it is given when its turn comes: guards that give back what they hold when they are
//! dropped, also when the caller that they are sent to has gone.

use std::{sync::Arc, time::Duration};

use tokio::{sync::oneshot, time::Instant};

use super::{Line, job::Job};
use crate::{error::Error, image::Pixels, metrics::Release, model::Output, scheduler::client::ClientId};

/// What work takes: decoding takes the CPUs, a run takes them too or has a device of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Resource {
    Cpu,
    Device,
}

/// Where work stands in its client's line: its image's order of arrival, then its own.
pub(super) type Place = (u64, u64);

/// The longest time for which a decode keeps a CPU while another client's work waits for it.
pub(super) const SLICE: Duration = Duration::from_millis(5);

/// What a decode asks for.
#[derive(Debug, Clone, Copy)]
pub(in crate::scheduler) struct Demand {
    /// Estimated CPU time.
    pub(in crate::scheduler) cost: Duration,
    /// The most memory it takes, in bytes.
    pub(in crate::scheduler) memory: u64,
}

/// A decode that has not begun.
#[derive(Debug)]
pub(super) struct WaitingDecode {
    pub(in crate::scheduler) demand: Demand,
    pub(in crate::scheduler) deadline: Instant,
    /// When the image's body was there.
    pub(in crate::scheduler) since: Instant,
    pub(in crate::scheduler) reply: oneshot::Sender<Result<Turn, Error>>,
}

/// A decode that has begun and gave way to another client.
#[derive(Debug)]
pub(super) struct WaitingResume {
    pub(in crate::scheduler) go_on: oneshot::Sender<Cpu>,
}

/// A decoded image that waits for a session.
#[derive(Debug)]
pub(in crate::scheduler) struct WaitingRun {
    pub(in crate::scheduler) job: Job<Pixels>,
    pub(in crate::scheduler) since: Instant,
    pub(in crate::scheduler) reply: oneshot::Sender<Result<Job<Output>, Error>>,
}

impl WaitingRun {
    pub(in crate::scheduler) fn pixels(&self) -> Pixels {
        self.job.payload.clone()
    }

    /// Answers the caller, if it is still there, with the outcome of the run that began at `started`.
    pub(in crate::scheduler) fn answer(self, outcome: Result<Output, Error>, started: Instant) {
        let Self { mut job, since, reply } = self;
        job.timings.queue += started - since;
        job.timings.inference = started.elapsed();
        job.timings.inference_began = Some(started);
        let _ = reply.send(outcome.map(|output| job.map(|_| output)));
    }
}

/// One of the CPUs. Dropping it returns it.
#[derive(Debug)]
pub(in crate::scheduler) struct Cpu(pub(in crate::scheduler) Arc<Line>);

impl Drop for Cpu {
    fn drop(&mut self) {
        self.0.cpu_returned();
    }
}

/// A decode's turn: a CPU, while it is not paused, and its memory. Dropping it returns both.
#[derive(Debug)]
pub(in crate::scheduler) struct Turn {
    line: Arc<Line>,
    client: ClientId,
    place: Place,
    demand: Demand,
    cpu: Option<Cpu>,
    /// When the current slice began.
    slice_began: Instant,
    /// What of the slice was charged ahead.
    ahead: Duration,
    pub(in crate::scheduler) began: Instant,
    /// For how long it was paused in all.
    pub(in crate::scheduler) paused: Duration,
}

impl Turn {
    /// What a decode of this demand is charged ahead.
    pub(in crate::scheduler) fn ahead(demand: Demand) -> Duration {
        demand.cost.min(SLICE)
    }

    pub(in crate::scheduler) fn new(cpu: Cpu, client: ClientId, place: Place, demand: Demand, now: Instant) -> Self {
        let ahead = Self::ahead(demand);
        let line = Arc::clone(&cpu.0);
        Self {
            line,
            client,
            place,
            demand,
            cpu: Some(cpu),
            slice_began: now,
            ahead,
            began: now,
            paused: Duration::ZERO,
        }
    }

    /// Called between two steps of the decode. When its slice is over and another client's work goes before it, the
    /// CPU is returned, and the decode goes on when the receiver gives it a CPU again.
    pub(in crate::scheduler) fn give_way(&mut self) -> Option<oneshot::Receiver<Cpu>> {
        let now = Instant::now();
        let spent = now - self.slice_began;
        if spent < SLICE {
            return None;
        }
        let resumed = self.line.slice_over(&self.client, self.place, self.ahead, spent);
        self.ahead = SLICE;
        self.slice_began = now;
        let resumed = resumed?;
        self.cpu = None;
        Some(resumed)
    }

    /// The decode goes on.
    pub(in crate::scheduler) fn resume(&mut self, cpu: Cpu) {
        let now = Instant::now();
        self.paused += now - self.slice_began;
        self.slice_began = now;
        self.cpu = Some(cpu);
    }

    /// Time it has had so far, pauses left out.
    pub(in crate::scheduler) fn spent(&self) -> Duration {
        self.began.elapsed().saturating_sub(self.paused)
    }

    /// Where it stands when it is paused.
    pub(in crate::scheduler) fn place(&self) -> Paused {
        Paused(self.client.clone(), self.place)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        // While it is paused nothing is charged.
        let slice = self.cpu.as_ref().map(|_| (self.ahead, self.slice_began.elapsed()));
        self.line.decode_over(&self.client, self.demand, slice);
    }
}

/// Where a decode stands when it is paused.
#[derive(Debug)]
pub(in crate::scheduler) struct Paused(pub(super) ClientId, pub(super) Place);

/// A call to a session: a batch is there, and a CPU if runs take one.
#[derive(Debug)]
pub(super) struct Call {
    pub(in crate::scheduler) line: Arc<Line>,
    pub(in crate::scheduler) cpu: Option<Cpu>,
    pub(in crate::scheduler) answered: bool,
}

impl Drop for Call {
    fn drop(&mut self) {
        if !self.answered {
            self.line.call_missed();
        }
    }
}

/// What a session takes at once. Dropping it ends the run.
#[derive(Debug)]
pub(in crate::scheduler) struct Batch {
    pub(in crate::scheduler) line: Arc<Line>,
    pub(in crate::scheduler) number: u64,
    pub(in crate::scheduler) started: Instant,
    pub(in crate::scheduler) jobs: Vec<WaitingRun>,
    pub(in crate::scheduler) reason: Release,
    /// Its images' clients, and what each was charged ahead.
    pub(in crate::scheduler) clients: Vec<ClientId>,
    pub(in crate::scheduler) ahead: Duration,
    pub(super) resource: Resource,
    /// Whether the run went well, so that its time tells something.
    pub(in crate::scheduler) went_well: bool,
    pub(in crate::scheduler) _cpu: Option<Cpu>,
}

impl Batch {
    pub(in crate::scheduler) fn pixels(&self) -> Vec<Pixels> {
        self.jobs.iter().map(WaitingRun::pixels).collect()
    }
}

impl Drop for Batch {
    fn drop(&mut self) {
        self.line.run_over(self);
    }
}
