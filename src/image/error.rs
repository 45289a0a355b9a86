use std::time::Duration;

use super::{Foreign, Format, Header};

/// Why an image was refused. The texts are for clients: plain words, no paths, no library output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ImageError {
    /// The file is empty.
    #[error("the image is empty")]
    Empty,
    /// The bytes are not a supported image format.
    #[error("the bytes are not a JPEG, PNG, WebP, GIF, BMP, TIFF or AVIF image")]
    UnknownFormat,
    /// A known kind of file that is not supported.
    #[error("{0}")]
    Foreign(Foreign),
    /// A known format, but a variant that cannot be decoded exactly as the reference does.
    #[error("unsupported {format} image: {reason}")]
    UnsupportedFormat {
        /// The format found.
        format: Format,
        /// The variant, in words.
        reason: &'static str,
    },
    /// Damaged, truncated or inconsistent.
    #[error("cannot decode the {format} image: {reason}")]
    Undecodable {
        /// The format found.
        format: Format,
        /// What is wrong, in words.
        reason: &'static str,
    },
    /// The header claims more pixels than [`Limits::max_pixels`](super::Limits::max_pixels).
    #[error("the image has {width} x {height} pixels, more than the {max_pixels} allowed")]
    TooLarge {
        /// Width in pixels, as the header claims.
        width: u32,
        /// Height in pixels, as the header claims.
        height: u32,
        /// The limit.
        max_pixels: u64,
    },
    /// A side is longer than any real image's.
    #[error("the image has {width} x {height} pixels, a side longer than the {max_side} allowed")]
    TooLong {
        /// Width in pixels, as the header claims.
        width: u32,
        /// Height in pixels, as the header claims.
        height: u32,
        /// The limit.
        max_side: u32,
    },
    /// Decoding is estimated to take longer than [`Limits::max_cost`](super::Limits::max_cost).
    #[error("decoding the image would take about {} of CPU time, more than the {} allowed", Rounded(*.cost), Rounded(*.max_cost))]
    TooCostly {
        /// The estimate.
        cost: Duration,
        /// The limit.
        max_cost: Duration,
    },
    /// Stopped by its [`Cancel`](super::Cancel).
    #[error("the decode was cancelled")]
    Cancelled,
    /// A memory allocation failed.
    #[error("there is no memory to decode the image now")]
    OutOfMemory,
    /// The shorter side is below [`Limits::min_side`](super::Limits::min_side).
    #[error("the image has {width} x {height} pixels, a side shorter than the {min_side} required")]
    TooSmall {
        /// Width in pixels.
        width: u32,
        /// Height in pixels.
        height: u32,
        /// The limit.
        min_side: u32,
    },
}

/// A duration in one unit and two digits at most: `80 ms`, `1.5 s`, `12 s`.
struct Rounded(Duration);

impl std::fmt::Display for Rounded {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0.as_secs_f64() {
            seconds if seconds < 0.995 => write!(f, "{:.0} ms", seconds * 1e3),
            seconds if seconds < 9.95 => write!(f, "{seconds:.1} s"),
            seconds => write!(f, "{seconds:.0} s"),
        }
    }
}

impl Header {
    pub(super) fn undecodable(&self, reason: &'static str) -> ImageError {
        self.format.undecodable(reason)
    }
}

impl Format {
    pub(super) fn undecodable(self, reason: &'static str) -> ImageError {
        ImageError::Undecodable { format: self, reason }
    }

    pub(super) fn unsupported(self, reason: &'static str) -> ImageError {
        ImageError::UnsupportedFormat { format: self, reason }
    }
}
