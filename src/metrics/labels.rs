//! The values that labels take.

use crate::error::Code;

/// A part of an image's way that is timed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// The body's bytes arrive.
    Read,
    /// Bytes become 256x256 pixels.
    Decode,
    /// The pixels wait for a session.
    Queue,
    /// The batch runs.
    Inference,
    /// From the request's head to its answer.
    Total,
}

impl Stage {
    pub(super) const ALL: [Self; 5] = [Self::Read, Self::Decode, Self::Queue, Self::Inference, Self::Total];

    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Decode => "decode",
            Self::Queue => "queue",
            Self::Inference => "inference",
            Self::Total => "total",
        }
    }
}

/// How an image's stay ended: exactly one for each image that came in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It was judged.
    Scored,
    /// It was refused for what it is: no image, too large, undecodable.
    Rejected,
    /// It was refused for want of capacity, or because the server drains.
    Shed,
    /// Its deadline passed.
    Expired,
    /// Its client left.
    Cancelled,
    /// The server failed on it.
    Failed,
}

impl Outcome {
    /// Every outcome.
    pub const ALL: [Self; 6] = [Self::Scored, Self::Rejected, Self::Shed, Self::Expired, Self::Cancelled, Self::Failed];

    /// The label's value.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Scored => "scored",
            Self::Rejected => "rejected",
            Self::Shed => "shed",
            Self::Expired => "expired",
            Self::Cancelled => "cancelled",
            Self::Failed => "failed",
        }
    }

    /// The outcome that an error stands for.
    pub const fn of(code: Code) -> Self {
        match code {
            Code::Overloaded | Code::Draining | Code::NotReady => Self::Shed,
            Code::DeadlineExceeded => Self::Expired,
            Code::InferenceFailed => Self::Failed,
            _ => Self::Rejected,
        }
    }
}

/// Why a batch was released to a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Release {
    /// It reached the largest size.
    Full,
    /// A session was free and this is what was there.
    Idle,
    /// The queue delay was over while further images were still being decoded.
    Window,
    /// One more image would have made the run outlast a deadline in it.
    Deadline,
}

impl Release {
    pub(super) const ALL: [Self; 4] = [Self::Full, Self::Idle, Self::Window, Self::Deadline];

    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Idle => "idle",
            Self::Window => "window",
            Self::Deadline => "deadline",
        }
    }
}
