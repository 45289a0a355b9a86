//! Where the process stands between start and stop, and who may still come in.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::Duration,
};

use signal_hook::{
    consts::{SIGHUP, SIGINT, SIGTERM},
    flag,
};
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::watch,
};

use crate::error::{Code, Error};

/// The phases, in order; none is ever returned to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// The model is being loaded and warmed up.
    Starting,
    /// Work is taken.
    Serving,
    /// SIGTERM has come: readiness is off, but everything is still served, because the load balancer needs
    /// time to look away.
    Draining,
    /// New work is refused, work in flight finishes.
    Refusing,
}

/// The one place that knows the phase.
#[derive(Debug)]
pub struct Lifecycle(watch::Sender<Phase>);

impl Default for Lifecycle {
    fn default() -> Self {
        Self(watch::Sender::new(Phase::Starting))
    }
}

impl Lifecycle {
    /// The phase now.
    pub fn phase(&self) -> Phase {
        *self.0.borrow()
    }

    /// The phase now and every later one.
    pub fn watch(&self) -> watch::Receiver<Phase> {
        self.0.subscribe()
    }

    /// Moves on; a move backwards is ignored.
    pub fn enter(&self, phase: Phase) {
        self.0.send_if_modified(|now| {
            let forward = phase > *now;
            if forward {
                *now = phase;
            }
            forward
        });
    }

    /// Whether work is taken.
    ///
    /// # Errors
    /// `not_ready` before, `draining` after.
    pub fn admit(&self) -> Result<(), Error> {
        match self.phase() {
            Phase::Starting => {
                Err(Error::retry(Code::NotReady, "the model is still being loaded", Duration::from_secs(1)))
            }
            Phase::Serving | Phase::Draining => Ok(()),
            // Another replica is what the caller wants: soon.
            Phase::Refusing => {
                Err(Error::retry(Code::Draining, "this server is shutting down", Duration::from_secs(1)))
            }
        }
    }

    /// Whether a load balancer should send work here.
    ///
    /// # Errors
    /// `not_ready` before, `draining` from the signal on.
    pub fn readiness(&self) -> Result<(), Error> {
        match self.phase() {
            Phase::Draining => Err(Error::new(Code::Draining, "this server is shutting down")),
            _ => self.admit(),
        }
    }
}

/// The signals that end the process at once, by its signal handler alone.
///
/// A library's constructor that hangs holds the loader's lock, and a thread that first uses a thread-local value with a
/// destructor waits for that lock (glibc, `__cxa_thread_atexit_impl`): neither a task nor a thread could be relied on.
#[derive(Debug)]
pub struct AtOnce(Arc<AtomicBool>);

impl AtOnce {
    /// To be called before anything that can hang. From here on, while the model is being loaded, SIGTERM and SIGINT end the
    /// process, and so does SIGHUP if `hangup_stops`; later SIGINT does after another signal that stops the process.
    ///
    /// # Errors
    /// If the handlers cannot be installed.
    pub fn install(hangup_stops: bool) -> io::Result<Self> {
        let (loading, stopping) = (Arc::new(AtomicBool::new(true)), Arc::<AtomicBool>::default());
        let hangup = (hangup_stops && !ignores_hangup()).then_some(SIGHUP);
        let signals = || [SIGTERM, SIGINT].into_iter().chain(hangup);
        for signal in signals() {
            flag::register_conditional_shutdown(signal, 0, Arc::clone(&loading))?;
        }
        // A handler's actions run in the order of their registration: the first signal does not find its own mark.
        flag::register_conditional_shutdown(SIGINT, INTERRUPTED, Arc::clone(&stopping))?;
        for signal in signals() {
            flag::register(signal, Arc::clone(&stopping))?;
        }
        Ok(Self(loading))
    }

    /// The model is loaded: from here on there may be work to finish.
    pub fn loaded(&self) {
        self.0.store(false, SeqCst);
    }
}

/// Watches the signals that drain.
///
/// SIGTERM does, and so does SIGHUP unless `reload` finds something to read again or it was ignored when the process
/// started (`nohup`). Ctrl-C drains without the drain delay, because no load balancer sits at a terminal.
///
/// The result resolves with how long everything should still be served.
///
/// # Errors
/// If the handlers cannot be installed.
pub fn stop_signal(
    drain_delay: Duration,
    reload: impl Fn() -> bool + Send + 'static,
) -> io::Result<impl Future<Output = Duration> + Send> {
    // Installed now and not at the first poll: a signal during start-up must not go the system's way.
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hangup = if ignores_hangup() { None } else { Some(signal(SignalKind::hangup())?) };
    Ok(async move {
        loop {
            tokio::select! {
                _ = terminate.recv() => return drain_delay,
                _ = interrupt.recv() => return Duration::ZERO,
                () = hung_up(&mut hangup) => {
                    if !reload() {
                        return drain_delay;
                    }
                }
            }
        }
    })
}

/// What a shell reports for a program that Ctrl-C ended.
const INTERRUPTED: i32 = 130;

async fn hung_up(hangup: &mut Option<Signal>) {
    match hangup {
        Some(hangup) => drop(hangup.recv().await),
        None => std::future::pending().await,
    }
}

/// Whether SIGHUP was ignored when the process started, as `nohup` has it (proc_pid_status(5)).
fn ignores_hangup() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let ignored = ignored.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    // SIGHUP is signal 1: the lowest bit.
    ignored.is_some_and(|mask| mask & 1 == 1)
}
