//! A session worker: takes a batch when its session is free, runs it, answers each image.

use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, sleep};

use super::line::{Batch, Line};
use crate::{
    error::Error,
    image::Pixels,
    metrics::Metrics,
    model::{Model, Output, RunError},
};

/// Builds a replacement for a failed model. It may block: it is called on a blocking thread.
pub type Rebuild<M> = Arc<dyn Fn() -> Result<M, String> + Send + Sync>;

/// Delay before the first retry of a rebuild; it doubles up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// One session of a model and its work loop.
pub(super) struct Worker<M> {
    /// The model's number.
    number: usize,
    model: M,
    rebuild: Rebuild<M>,
    line: Arc<Line>,
    metrics: Arc<Metrics>,
}

impl<M: Model> Worker<M> {
    pub(super) fn new(number: usize, model: M, rebuild: Rebuild<M>, line: Arc<Line>, metrics: Arc<Metrics>) -> Self {
        Self { number, model, rebuild, line, metrics }
    }

    /// Runs batches until the line is closed and empty.
    pub(super) async fn run(mut self) {
        let mut up = self.line.join(self.number, self.model.costs().first().copied());
        while let Some(batch) = self.line.next_batch(self.number, self.model.costs()).await {
            if self.run_batch(batch).await.is_err() {
                // A session that failed is replaced before the next batch.
                drop(up);
                self.replace_model().await;
                up = self.line.join(self.number, self.model.costs().first().copied());
            }
        }
    }

    /// Runs a batch and answers every image in it.
    async fn run_batch(&mut self, mut batch: Batch) -> Result<(), RunError> {
        let started = batch.started;
        let size = batch.jobs.len();
        let outcome = self.run_model(batch.pixels()).await;
        let spent = started.elapsed();
        self.metrics.batch(self.number, batch.reason, size, spent);
        let jobs = std::mem::take(&mut batch.jobs);
        let result = match outcome {
            Ok(outputs) => {
                jobs.into_iter().zip(outputs).for_each(|(job, output)| job.answer(Ok(output), started));
                Ok(())
            }
            Err(error) if size == 1 => {
                tracing::error!(%error, "an inference run failed");
                jobs.into_iter().for_each(|job| job.answer(Err(Error::inference_failed()), started));
                Err(error)
            }
            Err(error) => {
                // One image may have made the whole batch fail: each gets its own run, so that only that one fails.
                tracing::warn!(%error, images = size, "a batch failed; its images are run one by one");
                let mut last = Ok(());
                for job in jobs {
                    match self.run_model(vec![job.pixels()]).await {
                        Ok(mut outputs) => job.answer(outputs.pop().ok_or_else(Error::inference_failed), started),
                        Err(error) => {
                            tracing::error!(%error, "an inference run failed");
                            job.answer(Err(Error::inference_failed()), started);
                            last = Err(error);
                        }
                    }
                }
                last
            }
        };
        batch.went_well = result.is_ok();
        result
    }

    /// Runs the model and checks that it returns one output per image.
    async fn run_model(&mut self, pixels: Vec<Pixels>) -> Result<Vec<Output>, RunError> {
        let images = pixels.len();
        let outputs = self.model.run(pixels).await?;
        if outputs.len() == images {
            Ok(outputs)
        } else {
            Err(RunError(format!("the model returned {} outputs for {images} images", outputs.len())))
        }
    }

    async fn replace_model(&mut self) {
        let mut pause = FIRST_PAUSE;
        loop {
            let rebuild = Arc::clone(&self.rebuild);
            let began = Instant::now();
            match tokio::task::spawn_blocking(move || rebuild()).await {
                Ok(Ok(model)) => {
                    tracing::info!(took_ms = began.elapsed().as_millis() as u64, "the session was rebuilt");
                    self.model = model;
                    return;
                }
                Ok(Err(error)) => tracing::error!(error, "the session cannot be rebuilt yet"),
                Err(error) => tracing::error!(%error, "rebuilding the session panicked"),
            }
            sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }
}
