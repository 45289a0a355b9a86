//! The line: the single queue in which decodes and runs of all clients wait for decode workers and session workers.
//!
//! A CPU does one thing at a time: a decode, or a run of a session on the CPU (a session on a GPU takes no CPU). When
//! a CPU is free, the client that has used the least time ([`account`]) is served next, with its oldest work that can
//! start. A decode can start when its memory is available, a run when a session is free. A long decode yields between
//! time slices; a run cannot be interrupted.
//!
//! Batches are formed late: a session is notified, and takes what is queued when it responds. A free session never
//! waits while an image is ready, unless a queue delay is configured, and then only for images that are being decoded.

mod account;
mod job;
mod state;
#[cfg(test)]
mod tests;
mod usage;
mod work;

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    sync::oneshot,
    time::{Instant, sleep_until},
};

pub use self::job::{Job, Permit, Upload};
pub(super) use self::work::{Batch, Demand, Paused, Turn};
use self::{
    state::{Idle, Started, State},
    work::{Call, Cpu, Place, WaitingDecode, WaitingRun},
};
use super::{Client, client::ClientId, memory::DecodeMemory};
use crate::{
    error::{Code, Error},
    image::Pixels,
    metrics::Metrics,
    model::Output,
};

/// Limits of the line.
#[derive(Debug, Clone)]
pub(super) struct Bounds {
    /// Concurrent work: decodes, and runs where they take a CPU.
    pub(super) cpus: usize,
    /// Whether a model's sessions run on the CPU, by its number.
    pub(super) runs_take_cpu: Vec<bool>,
    /// Memory limit of decodes that have begun.
    pub(super) memory: DecodeMemory,
    /// Limit of images in flight.
    pub(super) images: usize,
    /// How long a free session may wait for images that are being decoded.
    pub(super) delay: Duration,
}

/// The line, shared by callers and workers.
#[derive(Debug)]
pub(super) struct Line {
    state: Mutex<State>,
    memory: DecodeMemory,
    delay: Duration,
    /// How many.
    models: usize,
    metrics: Arc<Metrics>,
}

impl Line {
    pub(super) fn new(bounds: Bounds, metrics: Arc<Metrics>) -> Arc<Self> {
        let Bounds { memory, delay, .. } = bounds;
        let models = bounds.runs_take_cpu.len();
        Arc::new(Self { state: Mutex::new(State::new(bounds)), memory, delay, models, metrics })
    }

    /// Changes the state, then starts all work that can start.
    fn with<T>(self: &Arc<Self>, change: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.lock();
        let changed = change(&mut state);
        let started = state.start(self, Instant::now());
        self.metrics.queue_images.set(state.waiting() as i64);
        self.metrics.images_in_flight.set(state.images() as i64);
        self.metrics.decode_bytes.set(i64::try_from(state.memory_used()).unwrap_or(i64::MAX));
        drop(state);
        // Outside the lock: a value sent to a disconnected caller is dropped, and its `Drop` takes the lock.
        started.into_iter().for_each(Started::send);
        changed
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Poisoning is ignored: no code under the lock leaves the state half changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An in-flight permit for one image of the client.
    pub(super) fn admit(self: &Arc<Self>, client: &Client) -> Result<Permit, Error> {
        let admitted = self.lock().admit(client, Instant::now());
        match admitted {
            Ok(order) => {
                self.metrics.images_in_flight.inc();
                Ok(Permit::new(Arc::clone(self), client.clone(), order))
            }
            Err(why) => Err(self.overloaded(why)),
        }
    }

    fn leave(self: &Arc<Self>, client: &Client, models: Option<&[usize]>) {
        self.with(|state| state.leave(&client.id, models));
    }

    /// The image of this permit goes to these models. Where there is one, all do.
    pub(super) fn assign(&self, permit: &Permit, models: impl Iterator<Item = usize>) {
        if self.models > 1 {
            let models: Vec<_> = models.collect();
            if permit.models.set(models.clone()).is_ok() {
                self.lock().assign(&models);
            }
        }
    }

    /// The 429 answer: the server is at capacity.
    pub(super) fn overloaded(&self, why: &str) -> Error {
        Error::retry(Code::Overloaded, format!("the server is at capacity: {why}"), self.retry_after())
    }

    /// Estimated time to drain the current backlog, decodes and runs; at least a second.
    pub(super) fn retry_after(&self) -> Duration {
        self.lock().time_to_drain().clamp(Duration::from_secs(1), Duration::from_secs(3600))
    }

    /// Waits until a decode may start. Dropping the future withdraws it.
    pub(super) async fn decode(
        self: &Arc<Self>,
        permit: &Permit,
        deadline: Instant,
        demand: Demand,
    ) -> Result<Turn, Error> {
        let since = Instant::now();
        self.memory.check(demand.memory)?;
        if since + demand.cost > deadline {
            return Err(Error::new(
                Code::DeadlineExceeded,
                format!(
                    "decoding is estimated to take {:.1} s, longer than until the request's deadline",
                    demand.cost.as_secs_f64()
                ),
            ));
        }
        let (reply, turn) = oneshot::channel();
        let place = self.with(|state| state.wait_to_decode(permit, WaitingDecode { demand, deadline, since, reply }));
        let withdraw = Withdraw { line: self, client: &permit.client.id, place };
        let turn = turn.await.unwrap_or_else(|_| Err(Error::deadline_exceeded()));
        drop(withdraw);
        turn
    }

    /// Waits for a session of the model and for its answer. Dropping the future withdraws an image that has not started.
    pub(super) async fn run(
        self: &Arc<Self>,
        model: usize,
        job: Job<Pixels>,
        decoded: Option<Turn>,
    ) -> Result<Job<Output>, Error> {
        let (reply, mut answer) = oneshot::channel();
        let (permit, since) = (Arc::clone(&job.permit), Instant::now());
        let waiting = WaitingRun { job, since, reply };
        #[expect(clippy::result_large_err, reason = "moved once, and only at the end of the process")]
        let place = self.with(|state| match state.is_closed() {
            true => Err(waiting),
            false => Ok(state.wait_to_run(model, &permit, waiting)),
        });
        // Not before the image is queued: so the CPU that decoded it may run it at once.
        drop(decoded);
        let Ok(place) = place else {
            return Err(Error::new(Code::Draining, "the server is shutting down"));
        };
        let _withdraw = Withdraw { line: self, client: &permit.client.id, place };
        if !self.delay.is_zero() {
            tokio::select! {
                biased;
                answer = &mut answer => return answer.unwrap_or_else(|_| Err(Error::inference_failed())),
                // The queue delay is over: a session that waits for more images starts now.
                () = sleep_until(since + self.delay) => self.with(|_| ()),
            }
        }
        // A worker that dies before it answers a job drops the sender.
        answer.await.unwrap_or_else(|_| Err(Error::inference_failed()))
    }

    /// The next batch for a session of the model whose runs of n images take `costs[n - 1]`; `None` once the line is
    /// closed and no run of the model waits.
    pub(super) async fn next_batch(self: &Arc<Self>, model: usize, costs: &[Duration]) -> Option<Batch> {
        loop {
            let (call, called) = oneshot::channel();
            self.with(|state| state.idle(model, Idle { most: costs.len().max(1), call }));
            let mut call: Call = called.await.ok()?;
            call.answered = true;
            let (batch, late) = self.with(|state| state.take_batch(&mut call, costs, Instant::now()));
            late.into_iter().for_each(Started::send);
            if batch.is_some() {
                return batch;
            }
        }
    }

    /// A decode's time slice is over. If other work ranks higher, returns the receiver that will resume the decode.
    fn slice_over(
        self: &Arc<Self>,
        client: &ClientId,
        place: Place,
        ahead: Duration,
        spent: Duration,
    ) -> Option<oneshot::Receiver<Cpu>> {
        self.lock().slice_over(client, place, ahead, spent, Instant::now())
    }

    fn decode_over(self: &Arc<Self>, client: &ClientId, demand: Demand, slice: Option<(Duration, Duration)>) {
        self.with(|state| state.decode_over(client, demand, slice, Instant::now()));
    }

    fn cpu_returned(self: &Arc<Self>) {
        self.with(State::cpu_returned);
    }

    fn call_missed(self: &Arc<Self>, model: usize) {
        self.with(|state| state.call_missed(model));
    }

    fn run_over(self: &Arc<Self>, batch: &Batch) {
        self.with(|state| state.run_over(batch, Instant::now()));
    }

    /// Withdraws a paused decode whose caller has disconnected.
    pub(super) fn forget_paused(self: &Arc<Self>, Paused(client, place): &Paused) {
        let paused = self.with(|state| state.withdraw(client, *place));
        drop(paused);
    }

    /// Age of the oldest running batch.
    pub(super) fn longest_run(&self) -> Option<Duration> {
        self.lock().longest_run()
    }

    /// Registers a session of the model; dropping the guard deregisters it.
    pub(super) fn join(self: &Arc<Self>, model: usize, first_cost: Option<Duration>) -> SessionUp {
        self.with(|state| state.join(model, first_cost));
        self.metrics.sessions.inc();
        SessionUp(Arc::clone(self), model)
    }

    /// Sessions of the model that run a batch or can take one.
    pub(super) fn sessions(&self, model: usize) -> usize {
        self.lock().sessions(model)
    }

    /// Refuses new runs; workers end when no run of their model waits.
    pub(super) fn close(self: &Arc<Self>) {
        self.with(State::close);
    }

    /// The keys with the most recent work, each with its share of all work.
    pub(super) fn top_keys(&self) -> Vec<(Arc<str>, f64)> {
        self.lock().top_keys(Instant::now())
    }
}

/// A registered session.
#[derive(Debug)]
pub(super) struct SessionUp(Arc<Line>, usize);

impl Drop for SessionUp {
    fn drop(&mut self) {
        self.0.with(|state| state.part(self.1));
        self.0.metrics.sessions.dec();
    }
}

/// Removes work from the line when its caller disconnects.
struct Withdraw<'a> {
    line: &'a Arc<Line>,
    client: &'a ClientId,
    place: Place,
}

impl Drop for Withdraw<'_> {
    fn drop(&mut self) {
        let withdrawn = self.line.with(|state| state.withdraw(self.client, self.place));
        // Outside the lock: dropping a job returns its permit.
        drop(withdrawn);
    }
}
