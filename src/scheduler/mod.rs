//! One image's path through the scheduler. Each stage takes it by value and knows only the next stage:
//!
//! ```text
//! transport -> admission -> line -> decode worker -> line -> session worker -> transport
//! bytes        permit               256x256x3 u8     batch   logit, top-k
//! ```
//!
//! A caller drives its own image: [`Scheduler::score`] is one future, and dropping it (the client disconnected, the
//! deadline passed) withdraws the image from any stage. Work in progress ends by itself and returns its permits only
//! then.

mod budget;
mod client;
mod decode;
mod explain;
mod line;
mod load;
pub mod memory;
mod regions;
mod worker;

use std::{sync::Arc, time::Duration};

use tokio::time::timeout_at;
use tokio_util::task::TaskTracker;

pub use budget::Share;
pub use client::{Client, network};
pub use line::{Job, Permit, Upload};
pub use regions::{Assigned, Assignment, RegionPlan, ScoredRegion};
pub use worker::Rebuild;

use self::{
    budget::Budget,
    decode::{Decoders, Seen},
    line::{Bounds, Line},
    memory::DecodeMemory,
    worker::Worker,
};
use crate::{
    declared::{self, Declared},
    error::Error,
    image::{ImageFacts, Limits, Pixels},
    metrics::{Metrics, Stage},
    model::{Model, Output},
    timings::Timings,
};

const BYTES_FULL: &str = "the limit of request bytes held in memory is reached";

/// Limits of the scheduler, and how it prepares images.
#[derive(Debug, Clone)]
pub struct SchedulerConfig {
    /// Images admitted and not yet answered.
    pub max_in_flight: usize,
    /// Bytes of request bodies held.
    pub max_admitted_bytes: u64,
    /// How long a free session may wait for images that are being decoded.
    pub max_queue_delay: Duration,
    /// CPUs: the limit of concurrent decodes and CPU runs.
    pub cpus: usize,
    /// Limits on one image.
    pub limits: Limits,
    /// Whether [`ImageFacts::rgb256_sha256`] is wanted: it costs a hash of 196,608 bytes an image.
    pub hash_pixels: bool,
    /// Reads what files say of themselves, where that is wanted.
    pub declared: Option<Arc<declared::Reader>>,
}

/// The sessions of one model.
pub struct Pool<M> {
    /// At least one.
    pub sessions: Vec<M>,
    /// Replaces one that fails.
    pub rebuild: Rebuild<M>,
}

/// A scored image.
#[derive(Debug)]
pub struct Scored {
    /// The model that ran it.
    pub assigned: Assignment,
    /// The image.
    pub image: ImageFacts,
    /// What its file says of itself, where that is wanted.
    pub declared: Option<Declared>,
    /// The network's output for each region, in the order of their positions, the centre first.
    pub regions: Vec<ScoredRegion>,
    /// The outputs of the models beside the first, where several are combined.
    pub others: Vec<Vec<ScoredRegion>>,
    /// How long each stage took.
    pub timings: Timings,
    /// Its in-flight permit, held until the response is built.
    pub permit: Arc<Permit>,
}

/// The running stages.
#[derive(Debug)]
pub struct Scheduler {
    bytes: Arc<Budget>,
    decoders: Decoders,
    line: Arc<Line>,
    workers: TaskTracker,
    metrics: Arc<Metrics>,
}

impl Scheduler {
    /// Starts one worker per session. The models' numbers are their places in `pools`.
    pub fn start<M: Model>(config: SchedulerConfig, pools: Vec<Pool<M>>, metrics: Arc<Metrics>) -> Self {
        let takes_cpu = |pool: &Pool<M>| pool.sessions.iter().all(Model::takes_cpu);
        // More sessions of a model than CPUs were configured: let all of them run concurrently. Those of several models
        // share the CPUs.
        let on_cpu = pools.iter().filter(|pool| takes_cpu(pool)).map(|pool| pool.sessions.len()).max();
        let bounds = Bounds {
            cpus: config.cpus.max(on_cpu.unwrap_or(0)),
            runs_take_cpu: pools.iter().map(takes_cpu).collect(),
            memory: DecodeMemory::new(config.limits.max_pixels),
            images: config.max_in_flight,
            delay: config.max_queue_delay,
        };
        let line = Line::new(bounds, Arc::clone(&metrics));
        let workers = TaskTracker::new();
        for (number, Pool { sessions, rebuild }) in pools.into_iter().enumerate() {
            for session in sessions {
                let (rebuild, line, metrics) = (Arc::clone(&rebuild), Arc::clone(&line), Arc::clone(&metrics));
                workers.spawn(Worker::new(number, session, rebuild, line, metrics).run());
            }
        }
        workers.close();
        Self {
            bytes: Budget::new(config.max_admitted_bytes, metrics.admitted_bytes.clone()),
            decoders: Decoders::new(Arc::clone(&line), config),
            line,
            workers,
            metrics,
        }
    }

    /// Admits one image of a client, before any of its bytes is read.
    ///
    /// # Errors
    /// `overloaded` when the limit of images in flight is reached, or when the queueing delay of the client's images
    /// is too high.
    pub fn admit_image(&self, client: &Client) -> Result<Permit, Error> {
        self.line.admit(client)
    }

    /// Reserves bytes of a request's body, before they are read.
    ///
    /// # Errors
    /// `overloaded` when the budget is used up.
    pub fn admit_bytes(&self, bytes: u64) -> Result<Share, Error> {
        Budget::take(&self.bytes, bytes).ok_or_else(|| self.line.overloaded(BYTES_FULL))
    }

    /// Checks that `bytes` could be reserved now, without reserving them.
    ///
    /// # Errors
    /// `overloaded` when they could not.
    pub fn could_admit_bytes(&self, bytes: u64) -> Result<(), Error> {
        if bytes <= self.bytes.free() { Ok(()) } else { Err(self.line.overloaded(BYTES_FULL)) }
    }

    /// Checks that one client address may hold `held` bytes: the last eighth of the budget is for addresses that hold
    /// less than half of it. A load balancer, which is one address, has seven eighths.
    ///
    /// # Errors
    /// `overloaded` when it may not.
    pub fn check_share(&self, held: u64) -> Result<(), Error> {
        let limit = self.bytes.limit();
        let short = self.bytes.free() < limit / 8;
        if short && held > limit / 2 {
            return Err(self.line.overloaded("most of the request bytes held come from one address"));
        }
        Ok(())
    }

    /// The 429 answer when a memory allocation fails.
    pub fn out_of_memory(&self) -> Error {
        self.line.overloaded("out of memory")
    }

    /// Reserves more bytes, before they are read or unpacked.
    ///
    /// # Errors
    /// `overloaded` when the budget is used up.
    pub fn grow_bytes(&self, held: &mut Share, extra: u64) -> Result<(), Error> {
        if held.grow(extra) { Ok(()) } else { Err(self.line.overloaded(BYTES_FULL)) }
    }

    /// Estimated time to drain the current backlog; at least a second.
    pub fn retry_after(&self) -> Duration {
        self.line.retry_after()
    }

    /// Decodes and scores one image. Dropping the future withdraws it.
    ///
    /// # Errors
    /// What is wrong with the image; `deadline_exceeded`, at the job's deadline; `inference_failed`.
    pub async fn score(&self, job: Job<Upload>, plan: RegionPlan<'_>) -> Result<Scored, Error> {
        let deadline = job.deadline;
        let way = async {
            let (Seen { assigned, others, image, declared }, job, turn) = self.decoders.prepare(job, plan).await?;
            self.metrics.stage(Stage::Decode, job.timings.decode);
            let (job, others) = self.run_models(plan, &assigned, &image, job, others, turn).await?;
            let Job { payload: regions, timings, permit, .. } = job;
            Ok(Scored { assigned, image, declared, regions, others, timings, permit })
        };
        timeout_at(deadline, way).await.unwrap_or_else(|_| Err(Error::deadline_exceeded()))
    }

    /// Scores an image that needs no decoding on the model of this number. Dropping the future withdraws it.
    ///
    /// # Errors
    /// `deadline_exceeded`, at the job's deadline; `inference_failed`.
    pub async fn score_pixels(&self, model: usize, job: Job<Pixels>) -> Result<Job<Output>, Error> {
        self.line.assign(&job.permit, std::iter::once(model));
        let way = timeout_at(job.deadline, self.line.run(model, job, None));
        let job = way.await.unwrap_or_else(|_| Err(Error::deadline_exceeded()))?;
        self.metrics.stage(Stage::Queue, job.timings.queue);
        self.metrics.stage(Stage::Inference, job.timings.inference);
        Ok(job)
    }

    /// Whether any session has been running one batch for longer than `limit`.
    pub fn is_stuck(&self, limit: Duration) -> bool {
        self.line.longest_run().is_some_and(|busy| busy > limit)
    }

    /// Sessions of a model that run a batch or can take one.
    pub fn live_sessions(&self, model: usize) -> usize {
        self.line.sessions(model)
    }

    /// The API keys with the most recent work, by name, each with its share of all work: a bounded number.
    pub fn top_keys(&self) -> Vec<(Arc<str>, f64)> {
        self.line.top_keys()
    }

    /// Waits for the workers to finish their runs and end.
    pub async fn stop(&self) {
        self.line.close();
        self.workers.wait().await;
    }
}
