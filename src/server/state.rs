//! What handlers work on. `app` fills it; nothing here knows a transport.

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use tokio::task::spawn_blocking;
use tokio_util::task::TaskTracker;

use super::{
    Dialects,
    lifecycle::{Lifecycle, Phase},
};
use crate::{
    audit::Audit,
    config::ServeConfig,
    error::{Code, Error},
    keys::KeysFile,
    metrics::Metrics,
    scheduler::Scheduler,
    served::Models,
    trace::Traces,
};

/// A session that is busy with one batch for longer than this hangs: the longest honest run (a full batch
/// on a slow core) takes a few seconds.
const WATCHDOG: Duration = Duration::from_secs(60);

/// One service's parts. Several services can run in one process.
#[derive(Debug)]
pub struct AppState {
    /// The settings.
    pub config: ServeConfig,
    /// The models that are served.
    pub models: Arc<Models>,
    /// Counters, gauges and histograms.
    pub metrics: Arc<Metrics>,
    /// The phase between start and stop.
    pub lifecycle: Lifecycle,
    /// Requests in flight, from head to answer: the drain waits for them.
    pub requests: TaskTracker,
    /// The keys that callers need, if any.
    pub keys: Option<KeysFile>,
    /// The exporter of traces, if there is a collector.
    pub traces: Option<Traces>,
    /// The decision log, if there is one.
    pub audit: Option<Audit>,
    /// How each transport writes errors.
    pub dialects: Dialects,
    /// Set when the sessions are warm.
    pub(crate) scheduler: OnceLock<Scheduler>,
}

impl AppState {
    /// The scheduler, while work is taken.
    ///
    /// # Errors
    /// `not_ready` before the start, `draining` at the end.
    pub fn scheduler(&self) -> Result<&Scheduler, Error> {
        self.lifecycle.admit()?;
        self.scheduler.get().ok_or_else(|| Error::new(Code::NotReady, "the model is still being loaded"))
    }

    /// Whether the process is alive.
    ///
    /// # Errors
    /// `not_ready` when a session hangs.
    pub fn liveness(&self) -> Result<(), Error> {
        match self.scheduler.get() {
            Some(scheduler) if scheduler.is_stuck(WATCHDOG) => {
                Err(Error::new(Code::NotReady, "a session has been busy with one batch for over a minute"))
            }
            _ => Ok(()),
        }
    }

    /// Whether a load balancer should send requests here: every model has a session.
    ///
    /// # Errors
    /// `not_ready` or `draining`.
    pub fn readiness(&self) -> Result<(), Error> {
        (0..self.models.all().len()).try_for_each(|model| self.model_readiness(model))
    }

    /// Whether the model of this number can be asked.
    ///
    /// # Errors
    /// `not_ready` or `draining`.
    pub fn model_readiness(&self, model: usize) -> Result<(), Error> {
        self.lifecycle.readiness()?;
        match self.scheduler.get() {
            Some(scheduler) if scheduler.live_sessions(model) > 0 => Ok(()),
            _ => Err(Error::new(Code::NotReady, "no session can run the model")),
        }
    }

    /// The metrics as text, with what the scheduler knows at this moment.
    ///
    /// # Errors
    /// `inference_failed` when they cannot be written.
    pub fn metrics_text(&self) -> Result<Vec<u8>, Error> {
        if let Some(scheduler) = self.scheduler.get() {
            self.metrics.key_shares(&scheduler.top_keys());
        }
        self.metrics.encode().map_err(|error| {
            tracing::error!(%error, "the metrics cannot be written");
            Error::inference_failed()
        })
    }

    /// Waits until work in flight is finished and the workers have ended, then sends the last traces.
    pub async fn stop(&self) {
        self.lifecycle.enter(Phase::Refusing);
        if let Some(scheduler) = self.scheduler.get() {
            scheduler.stop().await;
        }
        if let Some(traces) = self.traces.clone() {
            // A panic in there has been logged by the hook, and nothing is left to save.
            let _ = spawn_blocking(move || traces.finish()).await;
        }
    }
}
