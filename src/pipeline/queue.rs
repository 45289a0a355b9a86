//! The one queue between decoded images and sessions.
//!
//! Binding is late: a batch is formed at the moment a session is free, from what is there then, and a free
//! session never waits while an image is ready.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    sync::{Notify, oneshot},
    time::Instant,
};

use super::Job;
use crate::{
    error::{Code, Error},
    image::Pixels,
    metrics::{Metrics, Release},
    model::Output,
};

/// The queue's handle; callers and workers share it.
#[derive(Debug)]
pub(super) struct Queue {
    state: Mutex<State>,
    /// One notification an arrival; all at the close.
    arrived: Notify,
    metrics: Arc<Metrics>,
}

#[derive(Debug)]
struct State {
    /// By number of arrival: the order of service, and the handle by which a caller withdraws.
    waiting: BTreeMap<u64, Waiting>,
    next_number: u64,
    closed: bool,
    sessions: usize,
    /// Since when each session that is at work has been so, by the number of its batch.
    running: BTreeMap<u64, Instant>,
    /// Seconds of a session's time that an image takes: a moving average.
    seconds_per_image: f64,
}

/// A decoded image that waits.
#[derive(Debug)]
pub(super) struct Waiting {
    job: Job<Pixels>,
    since: Instant,
    reply: oneshot::Sender<Result<Job<Output>, Error>>,
}

/// What a session takes at once.
#[derive(Debug)]
pub(super) struct Batch {
    number: u64,
    started: Instant,
    pub(super) jobs: Vec<Waiting>,
    pub(super) reason: Release,
}

impl Queue {
    pub(super) fn new(sessions: usize, metrics: Arc<Metrics>) -> Self {
        let state = State {
            waiting: BTreeMap::new(),
            next_number: 0,
            closed: false,
            sessions: sessions.max(1),
            running: BTreeMap::new(),
            seconds_per_image: 0.0,
        };
        Self { state: Mutex::new(state), arrived: Notify::new(), metrics }
    }

    /// Waits for a session and for its answer. Dropping the future withdraws an image that has not started.
    pub(super) async fn run(&self, job: Job<Pixels>) -> Result<Job<Output>, Error> {
        let (reply, answer) = oneshot::channel();
        let number = {
            let mut state = self.lock();
            if state.closed {
                return Err(Error::new(Code::Draining, "the server has stopped judging images"));
            }
            let number = state.number();
            state.waiting.insert(number, Waiting { job, since: Instant::now(), reply });
            self.metrics.queue_images.set(state.waiting.len() as i64);
            number
        };
        let _withdraw = Withdraw { queue: self, number };
        self.arrived.notify_one();
        // A worker that dies between taking a job and answering it drops the sender.
        answer.await.unwrap_or_else(|_| Err(Error::inference_failed()))
    }

    /// The next batch, of at most `most` images; none once the queue is closed and empty.
    pub(super) async fn next_batch(&self, most: usize) -> Option<Batch> {
        loop {
            let arrival = self.arrived.notified();
            if let Some(batch) = self.take(most) {
                return Some(batch);
            }
            if self.lock().closed {
                return None;
            }
            arrival.await;
        }
    }

    fn take(&self, most: usize) -> Option<Batch> {
        let now = Instant::now();
        let mut state = self.lock();
        // The caller's own timer may be about to fire: nothing past its deadline is run in the meantime.
        for (_, late) in state.waiting.extract_if(.., |_, waiting| waiting.job.deadline <= now) {
            let _ = late.reply.send(Err(Error::deadline_exceeded()));
        }
        // What is there is shared among the free sessions: on one-thread sessions two runs of half a batch
        // end sooner than one run of the whole beside an idle core.
        let free = state.sessions.saturating_sub(state.running.len()).max(1);
        let size = state.waiting.len().div_ceil(free).min(most);
        let batch = (size > 0).then(|| {
            let jobs =
                std::iter::from_fn(|| state.waiting.pop_first()).take(size).map(|(_, waiting)| waiting).collect();
            let number = state.number();
            state.running.insert(number, now);
            let reason = if size == most { Release::Full } else { Release::Idle };
            Batch { number, started: now, jobs, reason }
        });
        self.metrics.queue_images.set(state.waiting.len() as i64);
        batch
    }

    /// A batch's run is over, well or not, after `spent` of its session's time.
    pub(super) fn finished(&self, batch: &Batch, images: usize, spent: Duration) {
        let mut state = self.lock();
        state.running.remove(&batch.number);
        if images > 0 {
            let seconds = spent.as_secs_f64() / images as f64;
            // A tenth of the newest: some ten batches forget a change of speed.
            state.seconds_per_image = if state.seconds_per_image == 0.0 {
                seconds
            } else {
                state.seconds_per_image.mul_add(0.9, 0.1 * seconds)
            };
        }
    }

    /// How long the sessions need for `images`, at the speed measured last.
    pub(super) fn time_to_clear(&self, images: u64) -> Duration {
        let state = self.lock();
        Duration::from_secs_f64((images as f64 * state.seconds_per_image / state.sessions as f64).clamp(0.0, 3600.0))
    }

    /// How long the session that has been busy with one batch the longest has been so.
    pub(super) fn longest_run(&self) -> Option<Duration> {
        self.lock().running.values().min().map(Instant::elapsed)
    }

    /// No image is taken in from here on; workers end when the queue is empty.
    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.arrived.notify_waiters();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing that runs under the lock leaves the state half changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn number(&mut self) -> u64 {
        self.next_number += 1;
        self.next_number
    }
}

impl Batch {
    pub(super) fn pixels(&self) -> Vec<Pixels> {
        self.jobs.iter().map(|waiting| waiting.job.payload.clone()).collect()
    }

    pub(super) fn started(&self) -> Instant {
        self.started
    }
}

impl Waiting {
    pub(super) fn pixels(&self) -> Pixels {
        self.job.payload.clone()
    }

    /// Answers the caller, if it is still there, with the outcome of the run that began at `started`.
    pub(super) fn answer(self, outcome: Result<Output, Error>, started: Instant) {
        let Self { mut job, since, reply } = self;
        job.timings.queue = started - since;
        job.timings.inference = started.elapsed();
        let _ = reply.send(outcome.map(|output| job.map(|_| output)));
    }
}

/// Takes an image out of the queue when its caller goes.
struct Withdraw<'a> {
    queue: &'a Queue,
    number: u64,
}

impl Drop for Withdraw<'_> {
    fn drop(&mut self) {
        let mut state = self.queue.lock();
        let withdrawn = state.waiting.remove(&self.number);
        self.queue.metrics.queue_images.set(state.waiting.len() as i64);
        drop(state);
        // Outside the lock: dropping a job gives its share back.
        drop(withdrawn);
    }
}
