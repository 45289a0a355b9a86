//! What moves through the stages.

use std::sync::Arc;

use bytes::Bytes;
use tokio::{sync::OwnedSemaphorePermit, time::Instant};

use super::Line;
use crate::{
    scheduler::{Client, Share},
    timings::Timings,
};

/// One image on its way. It moves from stage to stage, its payload changing.
#[derive(Debug)]
pub struct Job<T> {
    /// What the next stage works on.
    pub payload: T,
    /// The instant after which nobody wants the answer.
    pub deadline: Instant,
    /// The image's in-flight permit: returned when the last stage drops the job, not when a client disconnects.
    pub permit: Arc<Permit>,
    /// How long the stages behind it took.
    pub timings: Timings,
}

impl<T> Job<T> {
    /// A job that has been through no stage.
    pub fn new(payload: T, deadline: Instant, permit: Arc<Permit>) -> Self {
        Self { payload, deadline, permit, timings: Timings::default() }
    }

    /// The same job with another payload.
    pub fn map<U>(self, change: impl FnOnce(T) -> U) -> Job<U> {
        Job { payload: change(self.payload), deadline: self.deadline, permit: self.permit, timings: self.timings }
    }
}

/// An encoded image as it came.
#[derive(Debug, Clone)]
pub struct Upload {
    /// The file's bytes.
    pub bytes: Bytes,
    /// Their share of the bytes held, given back once they are decoded. A batch's images share one body.
    pub held: Arc<Share>,
}

/// Permission for one image to be in flight. All its work, decoding and any number of runs, is done under it.
#[derive(Debug)]
pub struct Permit {
    line: Arc<Line>,
    pub(in crate::scheduler) client: Client,
    /// By arrival: the order in which a client's images are served.
    pub(super) order: u64,
    _place: Option<OwnedSemaphorePermit>,
}

impl Permit {
    pub(super) fn new(line: Arc<Line>, client: Client, order: u64) -> Self {
        Self { line, client, order, _place: None }
    }

    /// Ties a permit of another kind to this one: both are returned together.
    #[must_use]
    pub fn with_place(mut self, place: OwnedSemaphorePermit) -> Self {
        self._place = Some(place);
        self
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.line.leave(&self.client);
    }
}
