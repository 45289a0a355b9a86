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

/// Why a connection was closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Closed {
    /// Its client or the server was done with it.
    Done,
    /// Its client broke off within a request or an answer.
    ClientGone,
    /// Nothing came after it was opened.
    FirstByteTimeout,
    /// A request's head did not come to its end.
    HeadTimeout,
    /// No further request came.
    IdleTimeout,
    /// Its client did not take what was sent.
    WriteTimeout,
    /// A request's head was malformed.
    BadHead,
    /// A request's head was larger than the limit.
    HeadTooLarge,
    /// The HTTP/2 protocol was violated.
    ProtocolError,
    /// It was idle when places for connections were short.
    Evicted,
    /// There was no place for it.
    Refused,
}

impl Closed {
    pub(super) const ALL: [Self; 11] = [
        Self::Done,
        Self::ClientGone,
        Self::FirstByteTimeout,
        Self::HeadTimeout,
        Self::IdleTimeout,
        Self::WriteTimeout,
        Self::BadHead,
        Self::HeadTooLarge,
        Self::ProtocolError,
        Self::Evicted,
        Self::Refused,
    ];

    /// The label's value.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::ClientGone => "client_gone",
            Self::FirstByteTimeout => "first_byte_timeout",
            Self::HeadTimeout => "head_timeout",
            Self::IdleTimeout => "idle_timeout",
            Self::WriteTimeout => "write_timeout",
            Self::BadHead => "bad_head",
            Self::HeadTooLarge => "head_too_large",
            Self::ProtocolError => "protocol_error",
            Self::Evicted => "evicted",
            Self::Refused => "refused",
        }
    }
}
