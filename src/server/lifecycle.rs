//! Where the process stands between start and stop, and who may still come in.

use std::time::Duration;

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

/// What the signals need of the process.
pub struct Hooks {
    /// Whether the model is still being loaded.
    pub starting: Box<dyn Fn() -> bool + Send>,
    /// Reads again what can be read again; false if there is nothing.
    pub reload: Box<dyn Fn() -> bool + Send>,
    /// Called before the process ends at once.
    pub at_once: Box<dyn Fn() + Send>,
}

/// Watches the signals that end the process.
///
/// SIGTERM drains, and so does SIGHUP unless there is something to read again or it was ignored when the process started (`nohup`).
/// Ctrl-C drains without the drain delay, because no load balancer sits at a terminal; a second one ends the process at
/// once. While the model is still being loaded, which may hang, each of them ends the process at once.
///
/// The result resolves with how long everything should still be served.
///
/// # Errors
/// If the handlers cannot be installed.
pub fn stop_signal(drain_delay: Duration, hooks: Hooks) -> std::io::Result<impl Future<Output = Duration> + Send> {
    // Installed now and not at the first poll: a signal during start-up must not go the system's way.
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hangup = if ignores_hangup() { None } else { Some(signal(SignalKind::hangup())?) };
    let (stop, stopped) = watch::channel(None);
    // A task of its own: the start may block the thread that waits for it.
    tokio::spawn(async move {
        loop {
            let (delay, interrupted) = tokio::select! {
                _ = terminate.recv() => (drain_delay, false),
                _ = interrupt.recv() => (Duration::ZERO, true),
                () = hung_up(&mut hangup) => {
                    if (hooks.reload)() {
                        continue;
                    }
                    (drain_delay, false)
                }
            };
            let starting = (hooks.starting)();
            let again = interrupted && stop.borrow().is_some();
            if starting || again {
                tracing::info!(starting, "stopped at once");
                (hooks.at_once)();
                // Destructors of libraries that another thread is loading could wait for that thread.
                signal_hook::low_level::exit(if starting { 0 } else { INTERRUPTED });
            }
            stop.send_if_modified(|now: &mut Option<Duration>| {
                let first = now.is_none();
                *now = now.or(Some(delay));
                first
            });
        }
    });
    Ok(async move {
        let mut stopped = stopped;
        let delay = stopped.wait_for(Option::is_some).await.map(|delay| delay.unwrap_or(drain_delay));
        match delay {
            Ok(delay) => delay,
            // The task ends with the runtime.
            Err(_) => std::future::pending().await,
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
