//! Time that one image spent in each stage.

use std::time::Duration;

use tokio::time::Instant;

/// Time spent in each stage.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Timings {
    /// Decoding and resizing.
    pub decode: Duration,
    /// Waiting, for a decoder and for a session.
    pub queue: Duration,
    /// The run of its batch.
    pub inference: Duration,
    /// When decoding began; none where the caller sent pixels.
    pub decode_began: Option<Instant>,
    /// When the run of its batch began.
    pub inference_began: Option<Instant>,
}
