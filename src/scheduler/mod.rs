//! The way of one image, by value, through stages that know only the next one:
//!
//! ```text
//! HTTP -> admission -> decode pool -> queue -> session worker -> HTTP
//! bytes   share        256x256x3 u8   batch    logit, top-k
//! ```
//!
//! A caller drives its own image: [`Scheduler::score`] is one future, and dropping it (the client left,
//! the deadline passed) withdraws the image wherever it stands. Work that cannot be interrupted (a
//! decode, a run) finishes on its own and gives its share back when it is really over.

mod budget;
mod decode;
mod explain;
mod job;
mod load;
mod queue;
mod worker;

use std::{sync::Arc, time::Duration};

use tokio::time::timeout_at;
use tokio_util::task::TaskTracker;

pub use budget::Share;
pub use job::{Job, Upload};
pub use worker::Rebuild;

use self::{
    budget::Budget,
    decode::DecodePool,
    queue::{Announced, Queue},
    worker::Worker,
};
use crate::{
    error::{Code, Error},
    image::{ImageFacts, Limits, Pixels, Preprocessing},
    metrics::{Metrics, Stage},
    model::{Model, Output},
    timings::Timings,
};

const BYTES_FULL: &str = "it receives as many bytes as it may hold";

/// What bounds the scheduler, and how it prepares images.
#[derive(Debug, Clone)]
pub struct SchedulerConfig {
    /// Images admitted and not yet answered.
    pub max_in_flight: usize,
    /// Bytes of request bodies held.
    pub max_admitted_bytes: u64,
    /// How long a free session may wait for images that are being decoded.
    pub max_queue_delay: Duration,
    /// Images decoded at the same time.
    pub decode_threads: usize,
    /// Limits on one image.
    pub limits: Limits,
    /// How an image becomes 256x256.
    pub preprocessing: Preprocessing,
    /// Whether [`ImageFacts::rgb256_sha256`] is wanted: it costs a hash of 196,608 bytes an image.
    pub hash_pixels: bool,
}

/// An image that went all the way.
#[derive(Debug)]
pub struct Scored {
    /// The image.
    pub image: ImageFacts,
    /// What the network says of it.
    pub output: Output,
    /// How long each stage took.
    pub timings: Timings,
    /// Its place among those in flight, until its answer is made.
    pub share: Share,
}

/// The stages, running.
#[derive(Debug)]
pub struct Scheduler {
    images: Arc<Budget>,
    bytes: Arc<Budget>,
    decode: DecodePool,
    queue: Arc<Queue>,
    workers: TaskTracker,
    metrics: Arc<Metrics>,
}

impl Scheduler {
    /// Starts one worker a model. A model that fails is replaced by what `rebuild` makes.
    pub fn start<M: Model>(
        config: SchedulerConfig,
        models: Vec<M>,
        rebuild: Rebuild<M>,
        metrics: Arc<Metrics>,
    ) -> Self {
        let queue = Arc::new(Queue::new(config.max_queue_delay, Arc::clone(&metrics)));
        let workers = TaskTracker::new();
        for model in models {
            let worker = Worker::new(model, Arc::clone(&rebuild), Arc::clone(&queue), Arc::clone(&metrics));
            workers.spawn(worker.run());
        }
        workers.close();
        Self {
            images: Budget::new(config.max_in_flight as u64, metrics.images_in_flight.clone()),
            bytes: Budget::new(config.max_admitted_bytes, metrics.admitted_bytes.clone()),
            decode: DecodePool::new(config, &metrics),
            queue,
            workers,
            metrics,
        }
    }

    /// Takes in one image, before any of its bytes is read.
    ///
    /// # Errors
    /// `overloaded` when the budget is used up, or when images have been waiting too long for a while.
    pub fn admit_image(&self) -> Result<Share, Error> {
        if self.queue.is_standing() {
            return Err(self.overloaded("its queue has been standing for a while"));
        }
        Budget::take(&self.images, 1).ok_or_else(|| self.overloaded("it judges as many images as it may hold"))
    }

    /// Sets bytes of a request's body aside, before they are read.
    ///
    /// # Errors
    /// `overloaded` when the budget is used up.
    pub fn admit_bytes(&self, bytes: u64) -> Result<Share, Error> {
        Budget::take(&self.bytes, bytes).ok_or_else(|| self.overloaded(BYTES_FULL))
    }

    /// Whether that many bytes could be reserved now; nothing is.
    ///
    /// # Errors
    /// `overloaded` when they could not.
    pub fn could_admit_bytes(&self, bytes: u64) -> Result<(), Error> {
        if bytes <= self.bytes.free() { Ok(()) } else { Err(self.overloaded(BYTES_FULL)) }
    }

    /// Whether one client address may hold that many bytes: the last eighth of the budget is for those that hold less
    /// than half of it. A load balancer, which is one address, has seven eighths.
    ///
    /// # Errors
    /// `overloaded` when it may not.
    pub fn check_share(&self, held: u64) -> Result<(), Error> {
        let limit = self.bytes.limit();
        let short = self.bytes.free() < limit / 8;
        if short && held > limit / 2 {
            return Err(self.overloaded("most of the bytes that it may hold come from one address"));
        }
        Ok(())
    }

    /// The refusal when the allocator has no more memory.
    pub fn out_of_memory(&self) -> Error {
        self.overloaded("it has no memory left")
    }

    /// Reserves more bytes, before they are read or unpacked.
    ///
    /// # Errors
    /// `overloaded` when the budget is used up.
    pub fn grow_bytes(&self, held: &mut Share, extra: u64) -> Result<(), Error> {
        if held.grow(extra) { Ok(()) } else { Err(self.overloaded(BYTES_FULL)) }
    }

    /// The refusal for want of capacity: come back when the backlog of this moment is worked off.
    fn overloaded(&self, why: &str) -> Error {
        Error::retry(Code::Overloaded, format!("the server is at capacity: {why}"), self.retry_after())
    }

    /// When the backlog of this moment will be worked off; at least a second.
    pub fn retry_after(&self) -> Duration {
        self.queue.time_to_clear(self.images.used()).max(Duration::from_secs(1))
    }

    /// Takes one image all the way. Dropping the future withdraws it.
    ///
    /// # Errors
    /// What is wrong with the image; `deadline_exceeded`, at the job's deadline; `inference_failed`.
    pub async fn score(&self, job: Job<Upload>) -> Result<Scored, Error> {
        let deadline = job.deadline;
        let way = async {
            let announced = self.queue.announce();
            let (image, job) = self.decode.prepare(job).await?;
            self.metrics.stage(Stage::Decode, job.timings.decode);
            let job = self.run(job, announced).await?;
            Ok(Scored { image, output: job.payload, timings: job.timings, share: job.share })
        };
        timeout_at(deadline, way).await.unwrap_or_else(|_| Err(Error::deadline_exceeded()))
    }

    /// Takes an image that needs no decoding through the rest of the way. Dropping the future withdraws it.
    ///
    /// # Errors
    /// `deadline_exceeded`, at the job's deadline; `inference_failed`.
    pub async fn score_pixels(&self, job: Job<Pixels>) -> Result<Job<Output>, Error> {
        let way = timeout_at(job.deadline, self.run(job, self.queue.announce()));
        way.await.unwrap_or_else(|_| Err(Error::deadline_exceeded()))
    }

    async fn run(&self, job: Job<Pixels>, announced: Announced) -> Result<Job<Output>, Error> {
        let job = self.queue.run(job, announced).await?;
        self.metrics.stage(Stage::Queue, job.timings.queue);
        self.metrics.stage(Stage::Inference, job.timings.inference);
        Ok(job)
    }

    /// Whether some session has been busy with one batch for longer than `limit`.
    pub fn is_stuck(&self, limit: Duration) -> bool {
        self.queue.longest_run().is_some_and(|busy| busy > limit)
    }

    /// Sessions that can take a batch or are running one.
    pub fn live_sessions(&self) -> usize {
        self.queue.sessions()
    }

    /// Lets the workers finish what they run, and end.
    pub async fn stop(&self) {
        self.queue.close();
        self.workers.wait().await;
    }
}
