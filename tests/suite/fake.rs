//! A scripted model in place of ONNX Runtime.

use std::{
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use lfm_serve::{
    image::Pixels,
    model::{Linear, Model, Output, RunError},
    scheduler::Rebuild,
};
use tokio::sync::Semaphore;

type Run = Pin<Box<dyn Future<Output = Result<Vec<Output>, RunError>> + Send>>;

/// A scripted model; its clones share their counters.
#[derive(Clone)]
pub struct Fake {
    script: Arc<dyn Fn(Vec<Pixels>) -> Run + Send + Sync>,
    /// Its cost curve; its length is the largest batch.
    pub costs: Vec<Duration>,
    /// Images that were run.
    pub images: Arc<AtomicUsize>,
    /// Models that were made to replace a failed one.
    pub rebuilt: Arc<AtomicUsize>,
}

/// The fake's answer: the logit is the image's first byte, so that a test can assign answers to images.
pub fn answer(pixels: &Pixels) -> Output {
    let logit = f32::from(pixels.as_bytes()[0]);
    // All of it from a single place, the ninth of the third row.
    let linear = Linear { weight: vec![1.0; 1024].into(), bias: logit - 2.0 };
    Output {
        logit,
        topk_values: vec![2.0 / 1024.0; 1024].into(),
        topk_indices: vec![2 * 30 + 8; 1024].into(),
        linear: linear.into(),
    }
}

impl Fake {
    /// A model that runs `script` on each batch.
    pub fn new<F>(max_batch_size: usize, script: impl Fn(Vec<Pixels>) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Result<Vec<Output>, RunError>> + Send + 'static,
    {
        Self {
            script: Arc::new(move |batch| Box::pin(script(batch))),
            costs: vec![Duration::ZERO; max_batch_size],
            images: Arc::default(),
            rebuilt: Arc::default(),
        }
    }

    /// A model that answers at once.
    pub fn instant() -> Self {
        Self::new(4, async |batch: Vec<Pixels>| Ok(batch.iter().map(answer).collect()))
    }

    /// A model that takes `time` a batch.
    pub fn slow(max_batch_size: usize, time: Duration) -> Self {
        let mut model = Self::new(max_batch_size, move |batch: Vec<Pixels>| async move {
            tokio::time::sleep(time).await;
            Ok(batch.iter().map(answer).collect())
        });
        model.costs.fill(time);
        model
    }

    /// A model in which every batch waits for a permit of the semaphore.
    pub fn gated() -> (Self, Arc<Semaphore>) {
        let gate = Arc::new(Semaphore::new(0));
        let held = Arc::clone(&gate);
        let model = Self::new(1, move |batch: Vec<Pixels>| {
            let gate = Arc::clone(&held);
            async move {
                gate.acquire().await.map_err(|_| RunError("the gate is closed".into()))?.forget();
                Ok(batch.iter().map(answer).collect())
            }
        });
        (model, gate)
    }

    /// The scheduler's replacement for this model: a clone, counted.
    pub fn rebuild(&self) -> Rebuild<Self> {
        let model = self.clone();
        Arc::new(move || {
            model.rebuilt.fetch_add(1, SeqCst);
            Ok(model.clone())
        })
    }
}

impl Model for Fake {
    fn costs(&self) -> &[Duration] {
        &self.costs
    }

    async fn run(&mut self, batch: Vec<Pixels>) -> Result<Vec<Output>, RunError> {
        self.images.fetch_add(batch.len(), SeqCst);
        (self.script)(batch).await
    }
}
