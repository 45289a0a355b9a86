//! Decoding in a process of its own, for decoders that abort or have no memory safety: the program starts itself with a hidden
//! subcommand (`process`), which gives up its rights before it reads a byte (`confined`).
//!
//! It gets its job as its argument and the data on its standard input. It writes one byte, the [`State`], and after
//! [`State::Decoded`] rows of RGB.

#[cfg(feature = "server")]
pub(super) mod confined;
pub(crate) mod process;

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Format;

/// What a process is asked to do: its argument, as JSON.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Job<W> {
    #[serde(flatten)]
    pub(super) work: W,
    /// Most bytes of memory that it may have.
    pub(super) memory: u64,
    /// Most seconds of CPU time.
    pub(super) seconds: u64,
}

impl<W> Job<W> {
    /// `cost`: what decoding the file is estimated to take.
    pub(super) fn new(work: W, memory: u64, cost: Duration) -> Self {
        // The estimate is one of files that an encoder makes.
        Self { work, memory, seconds: 10 * (1 + cost.as_secs()) }
    }
}

/// A decoder that has a process of its own.
pub(super) trait Work: Serialize {
    const FORMAT: Format;
    /// The subcommand of `lfm-serve`.
    const COMMAND: &str;
    /// Width and height of the pixels that it writes; `None` where it is only asked whether the data can be decoded.
    fn output(&self) -> Option<(u32, u32)>;
}

/// What a process has to say before its pixels. One that ends without has met damaged data, or its limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    Decoded,
    /// It cannot give up its rights.
    Unconfined,
    /// The library that decodes is not installed.
    NoLibrary,
    /// The colours are in a matrix whose pixels would not be the reference's.
    UnknownMatrix,
}

impl State {
    const ALL: [Self; 4] = [Self::Decoded, Self::Unconfined, Self::NoLibrary, Self::UnknownMatrix];

    fn read(byte: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|&state| state as u8 == byte)
    }
}

/// What a matrix is refused with.
pub(super) const UNKNOWN_MATRIX: &str = "its colours are in an unusual matrix; convert it to JPEG or PNG";
