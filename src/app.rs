//! The only place where the stages meet: configuration in, a running service out.

use std::{
    sync::{Arc, OnceLock},
    thread,
};

use tokio::task::spawn_blocking;
use tokio_util::task::TaskTracker;

use crate::{
    config::{Auto, ModelConfig, ServeConfig},
    error::{Code, Error},
    http,
    keys::KeysFile,
    metrics::{Identity, Metrics},
    model::{Execution, Manifest, Model, OnnxModel, SessionOptions, runtime},
    pipeline::{Pipeline, PipelineConfig, Rebuild},
    shutdown::{Lifecycle, Phase},
    trace::Traces,
};

/// One service: its model, its pipeline, its metrics. Several can live in one process.
#[derive(Debug)]
pub struct App {
    /// The settings.
    pub config: ServeConfig,
    /// The model that is served.
    pub manifest: Arc<Manifest>,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// Where the process stands.
    pub lifecycle: Lifecycle,
    /// Requests in flight, from head to answer: the end waits for them.
    pub requests: TaskTracker,
    /// The keys that callers need, where they need one.
    pub keys: Option<KeysFile>,
    /// Where traces go, if anywhere.
    pub traces: Option<Traces>,
    pipeline: OnceLock<Pipeline>,
}

impl App {
    /// An app that is not ready yet: probes and metrics answer, work is refused until [`App::start`].
    ///
    /// # Errors
    /// One line for the operator: an API keys file or a collector's address that cannot be used.
    pub fn new(
        config: ServeConfig,
        manifest: Arc<Manifest>,
        execution: &Execution,
    ) -> Result<Arc<Self>, anyhow::Error> {
        let identity = Identity { manifest: &manifest, execution, ort_version: runtime::VERSION };
        let calls = config.grpc_listen.map_or(&[][..], |_| http::routes::GRPC_ROUTES);
        let series = http::routes::series().chain(http::routes::series_of(calls));
        let metrics = Arc::new(Metrics::new(&identity, series)?);
        let keys = config.api_keys_file.as_deref().map(KeysFile::open).transpose()?;
        let traces = config.otlp_endpoint.as_deref().map(|url| Traces::new(url, &manifest)).transpose()?;
        Ok(Arc::new(Self {
            config,
            manifest,
            metrics,
            lifecycle: Lifecycle::default(),
            requests: TaskTracker::new(),
            keys,
            traces,
            pipeline: OnceLock::new(),
        }))
    }

    /// Builds and warms up the sessions and says in the metrics what they run on; blocks.
    ///
    /// # Errors
    /// One line for the operator.
    pub fn load(&self, options: SessionOptions) -> Result<(SessionOptions, Vec<OnnxModel>), anyhow::Error> {
        let (options, sessions) = start_sessions(options)?;
        self.metrics.runs_on(options.execution());
        for tried in options.execution().availability(&self.config.model)? {
            self.metrics.provider(tried.provider.name(), tried.refusal.is_none());
        }
        Ok((options, sessions))
    }

    /// Puts models to work and opens the doors.
    pub fn start<M: Model>(&self, models: Vec<M>, rebuild: Rebuild<M>) {
        let config = PipelineConfig {
            max_in_flight: self.config.max_in_flight.or_else(|| (64 * models.len()).max(128)),
            max_admitted_bytes: self.config.max_admitted_bytes.as_u64(),
            max_queue_delay: self.config.max_queue_delay,
            decode_threads: cpus(),
            limits: self.config.limits.image(),
            preprocessing: self.manifest.preprocessing,
            hash_pixels: false,
        };
        let started = Pipeline::start(config, models, rebuild, Arc::clone(&self.metrics));
        if self.pipeline.set(started).is_ok() {
            self.lifecycle.enter(Phase::Serving);
        }
    }

    /// The pipeline, where work may come in.
    ///
    /// # Errors
    /// `not_ready` before the start, `draining` at the end.
    pub fn pipeline(&self) -> Result<&Pipeline, Error> {
        self.lifecycle.admit()?;
        self.pipeline.get().ok_or_else(|| Error::new(Code::NotReady, "the model is still being loaded"))
    }

    /// Whether the process is alive.
    ///
    /// # Errors
    /// `not_ready` when some session hangs.
    pub fn liveness(&self) -> Result<(), Error> {
        match self.pipeline.get() {
            Some(pipeline) if pipeline.is_stuck(http::probes::WATCHDOG) => {
                Err(Error::new(Code::NotReady, "a session has been busy with one batch for over a minute"))
            }
            _ => Ok(()),
        }
    }

    /// Whether load should come here.
    ///
    /// # Errors
    /// `not_ready` or `draining`.
    pub fn readiness(&self) -> Result<(), Error> {
        self.lifecycle.readiness()?;
        match self.pipeline.get() {
            Some(pipeline) if pipeline.live_sessions() > 0 => Ok(()),
            _ => Err(Error::new(Code::NotReady, "no session can run the model")),
        }
    }

    /// Lets work in flight finish and the workers end, and sends the last traces.
    pub async fn stop(&self) {
        self.lifecycle.enter(Phase::Refusing);
        if let Some(pipeline) = self.pipeline.get() {
            pipeline.stop().await;
        }
        if let Some(traces) = self.traces.clone() {
            // A panic in there would have been logged by the hook, and there is nothing left to save.
            let _ = spawn_blocking(move || traces.finish()).await;
        }
    }
}

/// Reads the model folder and chooses what to run it on.
///
/// # Errors
/// One line for the operator.
pub fn read_model(config: &ModelConfig, max_batch_size: Auto<usize>) -> Result<SessionOptions, anyhow::Error> {
    SessionOptions::read(config, max_batch_size)
}

/// Builds and warms up the sessions, side by side; blocks until all of them have run. Where `auto` chose a provider that
/// cannot run the model after all, they run on the next best: the options that come back say which.
///
/// # Errors
/// One line for the operator: the first session that could not start.
pub fn start_sessions(mut options: SessionOptions) -> Result<(SessionOptions, Vec<OnnxModel>), anyhow::Error> {
    loop {
        match start_all(&options) {
            Ok(sessions) => return Ok((options, sessions)),
            Err(error) => options = options.step_down(error)?,
        }
    }
}

fn start_all(options: &SessionOptions) -> Result<Vec<OnnxModel>, anyhow::Error> {
    thread::scope(|scope| {
        let starting: Vec<_> =
            (0..options.sessions(cpus())).map(|_| scope.spawn(|| OnnxModel::start(options))).collect();
        starting
            .into_iter()
            .map(|session| session.join().unwrap_or_else(|_| Err(anyhow::anyhow!("starting a session panicked"))))
            .collect()
    })
}

/// How a failed session is replaced.
pub fn rebuild(options: SessionOptions) -> Rebuild<OnnxModel> {
    Arc::new(move || OnnxModel::start(&options).map_err(|error| error.to_string()))
}

/// CPUs that this process may use: the affinity mask and the cgroup's quota, which ONNX Runtime itself
/// ignores (microsoft/onnxruntime 29510).
pub fn cpus() -> usize {
    thread::available_parallelism().map_or(1, usize::from)
}
