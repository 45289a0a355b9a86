//! What moves through the stages.

use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use super::Share;

/// One image on its way. It moves from stage to stage, its payload changing, and takes its share of the
/// budget along: the share is free again when the last stage lets go of the job, not when a client hangs up.
#[derive(Debug)]
pub struct Job<T> {
    /// What the next stage works on.
    pub payload: T,
    /// The instant after which nobody wants the answer.
    pub deadline: Instant,
    /// The image's place among those in flight.
    pub share: Share,
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
    pub held: std::sync::Arc<Share>,
}

/// Time spent in each stage.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Timings {
    /// Decoding and resizing.
    pub decode: Duration,
    /// Waiting, for a decoder and for a session.
    pub queue: Duration,
    /// The run of its batch.
    pub inference: Duration,
    /// When it was begun to be decoded; not at all where pixels came.
    pub decode_began: Option<Instant>,
    /// When its batch was begun to be run.
    pub inference_began: Option<Instant>,
}
