//! Label values.

use crate::error::Code;

/// A timed stage of an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Reading the body.
    Read,
    /// Decoding to 256x256 pixels.
    Decode,
    /// Waiting, for a decoder or a session.
    Queue,
    /// Running the batch.
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

/// Outcome of an image: exactly one for each image received.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It was scored.
    Scored,
    /// It was refused because of its content: not an image, too large, undecodable.
    Rejected,
    /// It was refused because the server is at capacity or draining.
    Shed,
    /// Its deadline passed.
    Expired,
    /// Its client disconnected.
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

    /// The outcome for an error.
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
    /// A session was free and took all waiting images.
    Idle,
    /// The queue delay was over while further images were still being decoded.
    Window,
    /// With one more image the run would have exceeded a deadline in it.
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
    /// Closed normally by the client or the server.
    Done,
    /// Its client disconnected within a request or an answer.
    ClientGone,
    /// No byte was received after it was opened.
    FirstByteTimeout,
    /// A request's head was not complete in time.
    HeadTimeout,
    /// No further request was received.
    IdleTimeout,
    /// Its client did not read the answer.
    WriteTimeout,
    /// A request's head was malformed.
    BadHead,
    /// A request's head was larger than the limit.
    HeadTooLarge,
    /// The HTTP/2 protocol was violated.
    ProtocolError,
    /// It was idle when the limit of connections was reached.
    Evicted,
    /// The limit of connections was reached.
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
