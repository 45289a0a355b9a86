//! Lines go through a bounded channel to one thread that writes them. Lines that do not fit are dropped and counted: a
//! log that nobody reads, or on a full disk, loses lines but blocks nothing.

use std::{
    fs::File,
    io::{self, Write},
    os::fd::AsFd,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
        mpsc::{Receiver, SyncSender, TryRecvError, TrySendError, sync_channel},
    },
    thread,
    time::{Duration, Instant},
};

use prometheus::IntCounter;

/// Capacity of the queue in lines. An access line has about 400 bytes.
const QUEUE: usize = 8192;

/// How long the process waits at its end for the remaining lines.
const LAST_LINES: Duration = Duration::from_millis(500);

/// Writes lines to standard error.
pub(super) struct Writer {
    lines: Lines,
}

/// The input side. Never blocks, never fails.
#[derive(Clone)]
pub(super) struct Lines {
    queue: SyncSender<Message>,
    dropped: Arc<Dropped>,
}

enum Message {
    Line(Vec<u8>),
    /// Answered when all lines before it are written.
    Flush(SyncSender<()>),
}

/// Lines that were not written.
#[derive(Default)]
struct Dropped {
    total: AtomicU64,
    counter: Mutex<Option<IntCounter>>,
}

impl Dropped {
    fn one(&self) {
        self.total.fetch_add(1, Relaxed);
        if let Some(counter) = &*self.counter.lock().unwrap_or_else(PoisonError::into_inner) {
            counter.inc();
        }
    }
}

impl Writer {
    /// Starts the thread.
    ///
    /// # Errors
    /// If standard error cannot be duplicated or the thread cannot be started.
    pub(super) fn start() -> io::Result<Self> {
        // A descriptor of its own: a blocked write must not hold the lock of `std::io::stderr`.
        let out = File::from(io::stderr().as_fd().try_clone_to_owned()?);
        let (queue, messages) = sync_channel(QUEUE);
        let dropped = Arc::<Dropped>::default();
        let lines = Lines { queue, dropped: Arc::clone(&dropped) };
        thread::Builder::new().name("log".into()).spawn(move || write(out, &messages, &dropped))?;
        Ok(Self { lines })
    }

    pub(super) fn lines(&self) -> Lines {
        self.lines.clone()
    }

    pub(super) fn count_dropped_in(&self, counter: IntCounter) {
        let dropped = &self.lines.dropped;
        let mut counted = dropped.counter.lock().unwrap_or_else(PoisonError::into_inner);
        counter.inc_by(dropped.total.load(Relaxed));
        *counted = Some(counter);
    }

    pub(super) fn flush(&self) {
        let until = Instant::now() + LAST_LINES;
        let (done, wait) = sync_channel(1);
        // While the reader still reads, a full queue empties quickly.
        while let Err(TrySendError::Full(_)) = self.lines.queue.try_send(Message::Flush(done.clone())) {
            if Instant::now() >= until {
                return;
            }
            #[expect(clippy::disallowed_methods, reason = "the process ends: no runtime is left to wait on")]
            thread::sleep(Duration::from_millis(10));
        }
        // A timeout means that nobody reads; give up.
        let _ = wait.recv_timeout(until.saturating_duration_since(Instant::now()));
    }
}

impl Write for Lines {
    /// The subscriber writes whole lines.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if self.queue.try_send(Message::Line(line.to_vec())).is_err() {
            self.dropped.one();
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn write(mut out: File, messages: &Receiver<Message>, dropped: &Dropped) {
    let (mut reported, mut works) = (0, true);
    loop {
        let message = match messages.try_recv() {
            Ok(message) => message,
            Err(TryRecvError::Disconnected) => return,
            Err(TryRecvError::Empty) => {
                // The queue is empty again: the loss is reported once.
                let total = dropped.total.load(Relaxed);
                if works && total > reported {
                    tracing::warn!(
                        lines = total - reported,
                        "log lines were dropped: they could not be written in time"
                    );
                    reported = total;
                }
                let Ok(message) = messages.recv() else { return };
                message
            }
        };
        match message {
            Message::Line(line) => {
                works = out.write_all(&line).is_ok();
                if !works {
                    dropped.one();
                }
            }
            Message::Flush(done) => drop(done.try_send(())),
        }
    }
}

/// Writes one line to standard error without a log; waits a second at most, in case its reader is blocked.
pub fn say(line: &str) {
    let line = format!("{line}\n");
    let (done, wait) = sync_channel::<()>(0);
    let said = thread::Builder::new().spawn(move || {
        let _ = io::stderr().write_all(line.as_bytes());
        drop(done);
    });
    if said.is_ok() {
        let _ = wait.recv_timeout(Duration::from_secs(1));
    }
}
