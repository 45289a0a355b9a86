//! Memory use of the server: one formula, enforced by the budgets, shown by `doctor` and quoted in docs/scaling.md.

use crate::{
    error::{Code, Error},
    image::{Preprocessing, Regions},
};

const MIB: u64 = 1 << 20;

/// Resident memory of `serve` without sessions: program, ONNX Runtime, threads.
const PROCESS: u64 = 48 * MIB;

/// LFM's transformed weights, which all sessions share; resident memory of a warm session, and the addition for each image of
/// its largest batch. Measured on lfm.cpu.onnx with 1 to 4 sessions at batches of 1 and 8 (89 to 369 MiB), ONNX Runtime
/// 1.31.1; a test of `doctor` compares them with a running server. A folder without that graph needs more: 72 MiB a
/// session, or 40 MiB an image.
const WEIGHTS: u64 = 32 * MIB;
const SESSION: u64 = 5 * MIB;
const SESSION_IMAGE: u64 = 9 * MIB;

/// Memory of a connection: a head that is not complete, and two HTTP/2 requests whose answers nobody takes. Measured in
/// 8000 heads of 31 KiB (41 KiB each), and 77,000 such requests (2 KiB each).
const CONNECTION: u64 = 46 << 10;

/// Decode memory per pixel of the largest image: enough for four baseline photographs of that size, or one
/// progressive CMYK JPEG (four 16-bit coefficients and four bytes a pixel).
const BYTES_PER_PIXEL: u64 = 12;

/// Memory budget of decodes that have begun. A decode that does not fit waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DecodeMemory {
    /// Limit for large images.
    large: u64,
    /// Additional memory for small images only, so that they do not wait behind large ones that wait for memory.
    reserve: u64,
}

impl DecodeMemory {
    /// The budget for images of at most `max_pixels`.
    pub fn new(max_pixels: u64) -> Self {
        let large = max_pixels.saturating_mul(BYTES_PER_PIXEL).max(MIB);
        Self { large, reserve: large / 8 }
    }

    /// What one image can have.
    pub(super) fn largest(self) -> u64 {
        self.large
    }

    /// The whole budget.
    pub fn total(self) -> u64 {
        self.large.saturating_add(self.reserve)
    }

    /// Whether an image of `bytes` counts as small: the reserve has room for 16 of them.
    pub(super) fn is_small(self, bytes: u64) -> bool {
        bytes <= self.reserve / 16
    }

    /// Whether an image of `bytes` can start while `used` are taken.
    pub(super) fn fits(self, bytes: u64, used: u64) -> bool {
        let limit = if self.is_small(bytes) { self.total() } else { self.large };
        used.saturating_add(bytes) <= limit
    }

    /// # Errors
    /// `image_too_large` for an image that would never fit.
    pub(super) fn check(self, bytes: u64) -> Result<(), Error> {
        if bytes <= self.large {
            return Ok(());
        }
        let detail = format!(
            "decoding the image would take {} MiB of memory, more than the limit of {} MiB",
            bytes.div_ceil(MIB),
            self.large / MIB
        );
        Err(Error::new(Code::ImageTooLarge, detail))
    }
}

/// Memory of sessions.
#[derive(Debug, Clone, Copy)]
pub struct SessionMemory {
    shared: u64,
    each: u64,
}

impl SessionMemory {
    /// LFM's sessions, which run so many images at once.
    pub fn lfm(max_batch_size: u64) -> Self {
        Self { shared: WEIGHTS, each: SESSION.saturating_add(SESSION_IMAGE.saturating_mul(max_batch_size)) }
    }

    /// Sessions that share nothing and take so many bytes each.
    pub fn each(bytes: u64) -> Self {
        Self { shared: 0, each: bytes }
    }
}

/// What a model takes.
#[derive(Debug, Clone, Copy)]
pub struct ModelMemory {
    /// Its sessions.
    pub session: SessionMemory,
    /// How an image becomes its input.
    pub preprocessing: Preprocessing,
}

/// The settings that determine the server's memory use.
#[derive(Debug, Clone)]
pub struct Memory {
    /// The models.
    pub models: Vec<ModelMemory>,
    /// Sessions of each.
    pub sessions: u64,
    /// Bytes of request bodies held.
    pub max_admitted_bytes: u64,
    /// Pixels of the largest image.
    pub max_pixels: u64,
    /// Images in flight.
    pub max_in_flight: u64,
    /// Connections.
    pub max_connections: u64,
}

impl Memory {
    /// Bytes in use when ready: process, weights and sessions.
    pub fn at_start(&self) -> u64 {
        let model =
            |SessionMemory { shared, each }: SessionMemory| shared.saturating_add(each.saturating_mul(self.sessions));
        self.models.iter().fold(PROCESS, |sum, one| sum.saturating_add(model(one.session)))
    }

    /// Peak bytes: those at the start, all connections, all bodies, all decoding, and the most regions of each image in
    /// flight.
    pub fn most(&self) -> u64 {
        self.at_start()
            .saturating_add(CONNECTION.saturating_mul(self.max_connections))
            .saturating_add(self.max_admitted_bytes)
            .saturating_add(DecodeMemory::new(self.max_pixels).total())
            .saturating_add(self.max_in_flight.saturating_mul(self.image()))
    }

    /// Bytes of an image's most regions, for the model with the most.
    fn image(&self) -> u64 {
        let bytes = |preprocessing: Preprocessing| {
            let tiles = preprocessing.takes_tile(u32::MAX, u32::MAX);
            let regions = if tiles { Regions::Sixteen.count() as u64 } else { 1 };
            regions * preprocessing.input_bytes() as u64
        };
        self.models.iter().map(|one| bytes(one.preprocessing)).max().unwrap_or(0)
    }
}
