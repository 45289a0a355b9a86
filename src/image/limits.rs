//! What is refused on the header alone.

use std::time::Duration;

use super::{Format, Header, ImageError};

/// Longest side in pixels, whatever the limits say: the most that JPEG can have. A narrow image of
/// millions of rows passes any limit on pixels, but the reference's resize widens each of its rows.
const MAX_SIDE: u32 = 65_535;

/// What is refused on the header alone, before any pixel is decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Most pixels (width x height).
    pub max_pixels: u64,
    /// Shortest side allowed, in pixels; 0 allows any.
    pub min_side: u32,
    /// Most CPU time that a decode may be estimated to take ([`Header::cost`]).
    pub max_cost: Duration,
    /// Whether HEIC is read, by libde265 of the machine ([`heif_library`](super::heif_library)).
    pub heif: bool,
}

impl Default for Limits {
    /// 64 megapixels (64 * 10^6), any side, ten seconds, no HEIC.
    fn default() -> Self {
        Self { max_pixels: 64_000_000, min_side: 0, max_cost: Duration::from_secs(10), heif: false }
    }
}

impl Limits {
    /// Whether files of the format are read.
    pub fn reads(&self, format: Format) -> bool {
        format != Format::Heic || self.heif
    }

    /// Refuses what is beyond a limit.
    pub(super) fn check(&self, header: &Header) -> Result<(), ImageError> {
        let (width, height) = (header.width, header.height);
        if width == 0 || height == 0 {
            return Err(header.undecodable("the header says that it has no pixels"));
        }
        if header.pixels() > self.max_pixels {
            let max_pixels = self.max_pixels;
            return Err(ImageError::TooLarge { width, height, max_pixels });
        }
        if width.max(height) > MAX_SIDE {
            let max_side = MAX_SIDE;
            return Err(ImageError::TooLong { width, height, max_side });
        }
        if width.min(height) < self.min_side {
            let min_side = self.min_side;
            return Err(ImageError::TooSmall { width, height, min_side });
        }
        if header.cost > self.max_cost {
            return Err(ImageError::TooCostly { cost: header.cost, max_cost: self.max_cost });
        }
        Ok(())
    }
}
