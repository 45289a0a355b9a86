//! The values passed between stages.

use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use tokio::{sync::OwnedSemaphorePermit, time::Instant};

use super::Line;
use crate::{
    scheduler::{Client, Share},
    timings::Timings,
};

/// One image in flight. It moves from stage to stage; each stage replaces the payload.
#[derive(Debug)]
pub struct Job<T> {
    /// Input of the next stage.
    pub payload: T,
    /// After this instant the answer is no longer wanted.
    pub deadline: Instant,
    /// The image's in-flight permit: returned when the last stage drops the job, not when a client disconnects.
    pub permit: Arc<Permit>,
    /// Time spent in the finished stages.
    pub timings: Timings,
}

impl<T> Job<T> {
    /// A job at the start of the pipeline.
    pub fn new(payload: T, deadline: Instant, permit: Arc<Permit>) -> Self {
        Self { payload, deadline, permit, timings: Timings::default() }
    }

    /// The same job with another payload.
    pub fn map<U>(self, change: impl FnOnce(T) -> U) -> Job<U> {
        Job { payload: change(self.payload), deadline: self.deadline, permit: self.permit, timings: self.timings }
    }
}

/// An encoded image as received.
#[derive(Debug, Clone)]
pub struct Upload {
    /// The file's bytes.
    pub bytes: Bytes,
    /// Their share of the byte budget, returned after decoding. Images of one batch request share one body.
    pub held: Arc<Share>,
}

/// In-flight permit of one image, held during all its work: decoding and any number of runs.
#[derive(Debug)]
pub struct Permit {
    line: Arc<Line>,
    pub(in crate::scheduler) client: Client,
    /// Order of arrival: a client's images are served in this order.
    pub(super) order: u64,
    /// The models that the image goes to, of several, once its header was read.
    pub(super) models: OnceLock<Vec<usize>>,
    _place: Option<OwnedSemaphorePermit>,
}

impl Permit {
    pub(super) fn new(line: Arc<Line>, client: Client, order: u64) -> Self {
        Self { line, client, order, models: OnceLock::new(), _place: None }
    }

    /// Attaches a permit of another kind: both are released together.
    #[must_use]
    pub fn with_place(mut self, place: OwnedSemaphorePermit) -> Self {
        self._place = Some(place);
        self
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.line.leave(&self.client, self.models.get().map(Vec::as_slice));
    }
}
