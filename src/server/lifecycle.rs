//! Where the process stands between start and stop, and who may still come in.

use std::time::Duration;

use tokio::{
    signal::unix::{SignalKind, signal},
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

/// Resolves when the process is asked to stop, with how long everything should still be served: after SIGTERM
/// the drain delay, after Ctrl-C not at all, because no load balancer sits at a terminal.
///
/// # Errors
/// If the handlers cannot be installed.
pub fn stop_signal(drain_delay: Duration) -> std::io::Result<impl Future<Output = Duration> + Send> {
    // Installed now and not at the first poll: a signal during start-up must not kill the process.
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => drain_delay,
            _ = interrupt.recv() => Duration::ZERO,
        }
    })
}
