//! The one queue between decoded images and sessions: the dynamic batcher.
//!
//! Binding is late: a batch is formed at the moment a session is free, from what is there then. A free
//! session never waits while an image is ready, unless a queue delay is configured, and then only for images
//! that are already admitted and being decoded.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    sync::{Notify, oneshot},
    time::{Instant, sleep_until},
};

use super::{
    Job,
    load::{Pace, StandingQueue},
};
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
    /// Something changed that a free session may act on.
    changed: Notify,
    max_delay: Duration,
    metrics: Arc<Metrics>,
}

#[derive(Debug)]
struct State {
    /// By number of arrival: the order of service, and the handle by which a caller withdraws.
    waiting: BTreeMap<u64, Waiting>,
    next_number: u64,
    closed: bool,
    /// Images that are on their way from the decoders.
    announced: usize,
    /// Sessions that run or could run a batch.
    sessions: usize,
    /// Since when each session that is at work has been so, by the number of its batch.
    running: BTreeMap<u64, Instant>,
    standing: StandingQueue,
    pace: Pace,
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
    pub(super) started: Instant,
    pub(super) jobs: Vec<Waiting>,
    pub(super) reason: Release,
}

/// What a free session should do now.
enum Next {
    Run(Batch),
    /// Look again at the latest then.
    WaitUntil(Instant),
    Wait,
    End,
}

impl Queue {
    pub(super) fn new(max_delay: Duration, metrics: Arc<Metrics>) -> Self {
        let state = State {
            waiting: BTreeMap::new(),
            next_number: 0,
            closed: false,
            announced: 0,
            sessions: 0,
            running: BTreeMap::new(),
            standing: StandingQueue::default(),
            pace: Pace::default(),
        };
        Self { state: Mutex::new(state), changed: Notify::new(), max_delay, metrics }
    }

    /// Says that an image is on its way: a session may be told to wait for it.
    pub(super) fn announce(self: &Arc<Self>) -> Announced {
        self.lock().announced += 1;
        Announced(Arc::clone(self))
    }

    /// Waits for a session and for its answer. Dropping the future withdraws an image that has not started.
    pub(super) async fn run(&self, job: Job<Pixels>, announced: Announced) -> Result<Job<Output>, Error> {
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
        // Its end is what wakes a session.
        drop(announced);
        // A worker that dies between taking a job and answering it drops the sender.
        answer.await.unwrap_or_else(|_| Err(Error::inference_failed()))
    }

    /// The next batch for a session whose runs take `costs[n - 1]` for n images; none once the queue is
    /// closed and empty.
    pub(super) async fn next_batch(&self, costs: &[Duration]) -> Option<Batch> {
        loop {
            let changed = self.changed.notified();
            match self.next(costs) {
                Next::Run(batch) => return Some(batch),
                Next::End => return None,
                Next::Wait => changed.await,
                Next::WaitUntil(latest) => tokio::select! {
                    () = changed => {}
                    () = sleep_until(latest) => {}
                },
            }
        }
    }

    fn next(&self, costs: &[Duration]) -> Next {
        let now = Instant::now();
        let mut state = self.lock();
        // The caller's own timer may be about to fire: nothing past its deadline is run in the meantime.
        for (_, late) in state.waiting.extract_if(.., |_, waiting| waiting.job.deadline <= now) {
            let _ = late.reply.send(Err(Error::deadline_exceeded()));
        }
        let Some(oldest) = state.waiting.values().next().map(|waiting| waiting.since) else {
            state.standing.empty();
            return if state.closed { Next::End } else { Next::Wait };
        };
        let (size, mut reason) = state.batch_size(costs, now);
        if self.max_delay > Duration::ZERO && matches!(reason, Release::Idle) && state.announced > 0 {
            let latest = oldest + self.max_delay;
            if now < latest {
                return Next::WaitUntil(latest);
            }
            reason = Release::Window;
        }
        let jobs: Vec<_> =
            std::iter::from_fn(|| state.waiting.pop_first()).take(size).map(|(_, waiting)| waiting).collect();
        if let Some(first) = jobs.first() {
            let waited = first.job.timings.queue + (now - first.since);
            state.standing.served_after(waited, now);
        }
        let number = state.number();
        state.running.insert(number, now);
        self.metrics.queue_images.set(state.waiting.len() as i64);
        Next::Run(Batch { number, started: now, jobs, reason })
    }

    /// A batch's run is over after `spent`; `images` of it were judged.
    pub(super) fn finished(&self, batch: &Batch, images: usize) {
        let now = Instant::now();
        let mut state = self.lock();
        state.running.remove(&batch.number);
        let backlog = !state.waiting.is_empty() || state.announced > 0;
        let alone = now - batch.started;
        let sessions = state.sessions;
        state.pace.finished(images, alone, sessions, backlog, now);
    }

    /// How long `images` take at the pace of the last runs.
    pub(super) fn time_to_clear(&self, images: u64) -> Duration {
        self.lock().pace.time_for(images)
    }

    /// Whether images have been waiting too long for too long: new ones should go elsewhere.
    pub(super) fn is_standing(&self) -> bool {
        self.lock().standing.is_standing(Instant::now())
    }

    /// How long the session that has been busy with one batch the longest has been so.
    pub(super) fn longest_run(&self) -> Option<Duration> {
        self.lock().running.values().min().map(Instant::elapsed)
    }

    /// Counts a session in until the guard is dropped.
    pub(super) fn join(self: &Arc<Self>) -> SessionUp {
        self.lock().sessions += 1;
        self.metrics.sessions.inc();
        SessionUp(Arc::clone(self))
    }

    /// Sessions that run or could run a batch.
    pub(super) fn sessions(&self) -> usize {
        self.lock().sessions
    }

    /// No image is taken in from here on; workers end when the queue is empty.
    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_waiters();
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

    /// How many of the waiting images the next batch takes, at least one, and why not more.
    fn batch_size(&self, costs: &[Duration], now: Instant) -> (usize, Release) {
        // What is there is shared among the free sessions: two runs of half a batch end sooner than one run
        // of the whole beside an idle core.
        let free = self.sessions.saturating_sub(self.running.len()).max(1);
        let share = self.waiting.len().div_ceil(free);
        let most = costs.len().max(1);
        let mut size = 0;
        let mut tightest = Duration::MAX;
        for waiting in self.waiting.values().take(share.min(most)) {
            tightest = tightest.min(waiting.job.deadline - now);
            // One more image must not make the run outlast the tightest deadline in it.
            if size > 0 && costs.get(size).is_some_and(|&cost| cost > tightest) {
                return (size, Release::Deadline);
            }
            size += 1;
        }
        (size, if size == most { Release::Full } else { Release::Idle })
    }
}

impl Batch {
    pub(super) fn pixels(&self) -> Vec<Pixels> {
        self.jobs.iter().map(Waiting::pixels).collect()
    }
}

impl Waiting {
    pub(super) fn pixels(&self) -> Pixels {
        self.job.payload.clone()
    }

    /// Answers the caller, if it is still there, with the outcome of the run that began at `started`.
    pub(super) fn answer(self, outcome: Result<Output, Error>, started: Instant) {
        let Self { mut job, since, reply } = self;
        job.timings.queue += started - since;
        job.timings.inference = started.elapsed();
        job.timings.inference_began = Some(started);
        let _ = reply.send(outcome.map(|output| job.map(|_| output)));
    }
}

/// An image that is being decoded; dropped when it has arrived or will not.
#[derive(Debug)]
pub(super) struct Announced(Arc<Queue>);

impl Drop for Announced {
    fn drop(&mut self) {
        self.0.lock().announced -= 1;
        self.0.changed.notify_one();
    }
}

/// A session that takes part.
#[derive(Debug)]
pub(super) struct SessionUp(Arc<Queue>);

impl Drop for SessionUp {
    fn drop(&mut self) {
        self.0.lock().sessions -= 1;
        self.0.metrics.sessions.dec();
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
