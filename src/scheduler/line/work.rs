//! Work that waits in the line, and the guards it receives when it starts. Dropping a guard returns what it holds, also
//! when its receiver has disconnected.

use std::{sync::Arc, time::Duration};

use tokio::{sync::oneshot, time::Instant};

use super::{Line, job::Job};
use crate::{error::Error, image::Pixels, metrics::Release, model::Output, scheduler::client::ClientId};

/// What work runs on: decodes use the CPUs; runs use the CPUs or a separate device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Resource {
    Cpu,
    Device,
}

/// Position in a client's queue: its image's order of arrival, then its own.
pub(super) type Place = (u64, u64);

/// The longest time a decode keeps a CPU while another client's work waits for it.
pub(super) const SLICE: Duration = Duration::from_millis(5);

/// Resources that a decode needs.
#[derive(Debug, Clone, Copy)]
pub(in crate::scheduler) struct Demand {
    /// Estimated CPU time.
    pub(in crate::scheduler) cost: Duration,
    /// Peak memory in bytes.
    pub(in crate::scheduler) memory: u64,
}

/// A decode that has not begun.
#[derive(Debug)]
pub(super) struct WaitingDecode {
    pub(in crate::scheduler) demand: Demand,
    pub(in crate::scheduler) deadline: Instant,
    /// When the image was queued.
    pub(in crate::scheduler) since: Instant,
    pub(in crate::scheduler) reply: oneshot::Sender<Result<Turn, Error>>,
}

/// A decode that has begun and yielded its CPU to another client.
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

    /// Sends the outcome of the run that began at `started` to the caller, if it is still connected.
    pub(in crate::scheduler) fn answer(self, outcome: Result<Output, Error>, started: Instant) {
        let Self { mut job, since, reply } = self;
        job.timings.queue += started - since;
        job.timings.inference = started.elapsed();
        job.timings.inference_began = Some(started);
        let outcome = outcome.and_then(|output| output.finite().ok_or_else(Error::inference_failed));
        let _ = reply.send(outcome.map(|output| job.map(|_| output)));
    }
}

/// A CPU permit, returned when dropped.
#[derive(Debug)]
pub(in crate::scheduler) struct Cpu(pub(in crate::scheduler) Arc<Line>);

impl Drop for Cpu {
    fn drop(&mut self) {
        self.0.cpu_returned();
    }
}

/// Permit to decode: the memory, and a CPU while not paused. Dropping it returns both.
#[derive(Debug)]
pub(in crate::scheduler) struct Turn {
    line: Arc<Line>,
    client: ClientId,
    place: Place,
    demand: Demand,
    cpu: Option<Cpu>,
    /// When the current slice began.
    slice_began: Instant,
    /// Time charged ahead for the current slice.
    ahead: Duration,
    pub(in crate::scheduler) began: Instant,
    /// Total time paused.
    pub(in crate::scheduler) paused: Duration,
}

impl Turn {
    /// Time that a decode of this demand is charged ahead.
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

    /// Called between two steps of the decode. If its slice is over and other work ranks higher, returns the CPU; the
    /// decode continues when it receives a CPU again.
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

    /// Continues the decode on `cpu`.
    pub(in crate::scheduler) fn resume(&mut self, cpu: Cpu) {
        let now = Instant::now();
        self.paused += now - self.slice_began;
        self.slice_began = now;
        self.cpu = Some(cpu);
    }

    /// CPU time so far, without pauses.
    pub(in crate::scheduler) fn spent(&self) -> Duration {
        self.began.elapsed().saturating_sub(self.paused)
    }

    /// Identifies the decode in the line while it is paused.
    pub(in crate::scheduler) fn place(&self) -> Paused {
        Paused(self.client.clone(), self.place)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        // A paused decode has nothing to settle.
        let slice = self.cpu.as_ref().map(|_| (self.ahead, self.slice_began.elapsed()));
        self.line.decode_over(&self.client, self.demand, slice);
    }
}

/// Identifies a paused decode in the line.
#[derive(Debug)]
pub(in crate::scheduler) struct Paused(pub(super) ClientId, pub(super) Place);

/// Tells a session that a batch is ready; carries a CPU if runs take one.
#[derive(Debug)]
pub(super) struct Call {
    pub(in crate::scheduler) line: Arc<Line>,
    /// The session's model.
    pub(super) model: usize,
    pub(in crate::scheduler) cpu: Option<Cpu>,
    pub(in crate::scheduler) answered: bool,
}

impl Drop for Call {
    fn drop(&mut self) {
        if !self.answered {
            self.line.call_missed(self.model);
        }
    }
}

/// The runs that a session executes together. Dropping it ends the run.
#[derive(Debug)]
pub(in crate::scheduler) struct Batch {
    pub(in crate::scheduler) line: Arc<Line>,
    /// The model that runs it.
    pub(super) model: usize,
    pub(in crate::scheduler) number: u64,
    pub(in crate::scheduler) started: Instant,
    pub(in crate::scheduler) jobs: Vec<WaitingRun>,
    pub(in crate::scheduler) reason: Release,
    /// The client of each image; each was charged `ahead`.
    pub(in crate::scheduler) clients: Vec<ClientId>,
    pub(in crate::scheduler) ahead: Duration,
    pub(super) resource: Resource,
    /// Whether the run succeeded: only then its time updates the cost estimate.
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
