//! Threads that do jobs, started when there is work for one more.

use std::{
    any::Any,
    collections::VecDeque,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, mpsc},
    thread,
};

/// What the threads do.
pub(crate) trait Work: Send + Sync + 'static {
    /// What is asked for.
    type Job: Send;
    /// What comes of it.
    type Reply: Send;
    /// What a thread keeps from job to job.
    type State;

    /// Does one job.
    fn run(&self, state: &mut Option<Self::State>, job: Self::Job) -> Self::Reply;

    /// What a thread kept, when it ends.
    fn end(&self, state: Option<Self::State>);

    /// The reply to a job that panicked.
    fn panicked(&self, payload: &(dyn Any + Send)) -> Self::Reply;
}

/// The threads and their queue.
pub(crate) struct Pool<W: Work> {
    shared: Arc<Shared<W>>,
    most: usize,
}

struct Shared<W: Work> {
    work: W,
    queue: Mutex<Queue<W>>,
    changed: Condvar,
}

struct Queue<W: Work> {
    jobs: VecDeque<(W::Job, mpsc::Sender<W::Reply>)>,
    threads: usize,
    idle: usize,
    closed: bool,
}

impl<W: Work> Pool<W> {
    /// A pool of at most so many threads.
    pub(crate) fn new(work: W, most: usize) -> Self {
        let queue = Mutex::new(Queue { jobs: VecDeque::new(), threads: 0, idle: 0, closed: false });
        let shared = Shared { work, queue, changed: Condvar::new() };
        Self { shared: Arc::new(shared), most }
    }

    /// Takes a job in. The receiver gets the reply, or finds the channel closed when the pool was.
    ///
    /// # Errors
    /// If no thread can be started.
    pub(crate) fn submit(&self, job: W::Job) -> std::io::Result<mpsc::Receiver<W::Reply>> {
        let mut queue = self.shared.queue();
        let (reply, receiver) = mpsc::channel();
        if queue.closed {
            return Ok(receiver);
        }
        if queue.idle <= queue.jobs.len() && queue.threads < self.most {
            let shared = Arc::clone(&self.shared);
            thread::Builder::new().name("lfm_serve".into()).spawn(move || shared.serve())?;
            queue.threads += 1;
        }
        queue.jobs.push_back((job, reply));
        self.shared.changed.notify_one();
        Ok(receiver)
    }

    /// Drops what waits; the threads end, each after its job.
    pub(crate) fn close(&self) {
        let mut queue = self.shared.queue();
        queue.closed = true;
        let waiting = std::mem::take(&mut queue.jobs);
        drop(queue);
        self.shared.changed.notify_all();
        drop(waiting);
    }
}

impl<W: Work> Shared<W> {
    fn queue(&self) -> MutexGuard<'_, Queue<W>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn next(&self) -> Option<(W::Job, mpsc::Sender<W::Reply>)> {
        let mut queue = self.queue();
        queue.idle += 1;
        let waiting = |queue: &mut Queue<W>| queue.jobs.is_empty() && !queue.closed;
        let mut queue = self.changed.wait_while(queue, waiting).unwrap_or_else(PoisonError::into_inner);
        queue.idle -= 1;
        queue.jobs.pop_front()
    }

    fn serve(&self) {
        let mut state = None;
        while let Some((job, reply)) = self.next() {
            let done = catch_unwind(AssertUnwindSafe(|| self.work.run(&mut state, job)));
            let done = done.unwrap_or_else(|payload| {
                // What it was doing is half done.
                state = None;
                self.work.panicked(&*payload)
            });
            // A caller that no longer waits is not an error.
            let _ = reply.send(done);
        }
        self.work.end(state);
    }
}
