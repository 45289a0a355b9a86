//! What moves through the stages.

use std::sync::Arc;

use bytes::Bytes;
use tokio::time::Instant;

use super::Share;
use crate::timings::Timings;

/// One image on its way. It moves from stage to stage, its payload changing, and takes its share of the
/// budget along: the share is free again when the last stage lets go of the job, not when a client hangs up.
#[derive(Debug)]
pub struct Job<T> {
    /// What the next stage works on.
    pub payload: T,
    /// The instant after which nobody wants the answer.
    pub deadline: Instant,
    /// The image's place among those in flight.
    pub share: Arc<Share>,
    /// How long the stages behind it took.
    pub timings: Timings,
}

impl<T> Job<T> {
    /// The same job with another payload.
    pub fn map<U>(self, change: impl FnOnce(T) -> U) -> Job<U> {
        Job { payload: change(self.payload), deadline: self.deadline, share: self.share, timings: self.timings }
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
