//! What the header of an image says.

use std::time::Duration;

use super::{format::Format, orientation::Orientation};

/// How the pixels were stored: lossy coding destroys part of the traces the network judges.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// The stored samples are what the encoder was given.
    Lossless,
    /// JPEG, or WebP's VP8.
    Lossy {
        /// Quality 1 to 100 on libjpeg's scale, estimated from the luma quantisation table; unknown
        /// for WebP.
        quality: Option<u8>,
    },
}

/// What the header says. It comes from [`inspect`](super::inspect), so the limits have been checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Found from the content.
    pub format: Format,
    /// Width in pixels as the reference sees it: EXIF orientation ignored, a TIFF's own applied.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
    /// EXIF or TIFF orientation 1 to 8; 1 where absent.
    pub exif_orientation: u8,
    /// Lossy or lossless.
    pub encoding: Encoding,
    /// Pictures in the file: frames of an animation, pages, views. The first is read. Of a file of very many it is
    /// as many as were counted.
    pub frames: u32,
    /// Most memory, in bytes, that [`prepare`](super::prepare) takes for this image, besides a few rows and a copy
    /// of the input. [`decode`](super::decode) takes `pixels() * 3` more.
    pub peak_bytes: u64,
    /// CPU time that [`prepare`](super::prepare) is estimated to take, within a factor of three on the machine that
    /// it was measured on; of damaged and hostile files it may be less.
    pub cost: Duration,
    /// The part of `cost` that only rows with a part of a region take ([`cost_of_regions`](super::cost_of_regions)).
    pub row_cost: Duration,
}

impl Header {
    /// Width x height.
    pub fn pixels(&self) -> u64 {
        u64::from(self.width) * u64::from(self.height)
    }

    /// Where a viewer that heeds the orientation shows a box of the decoded picture. Of a TIFF the decoded picture
    /// is turned already, as the reference's is.
    pub fn as_shown(&self, decoded: [u32; 4]) -> [u32; 4] {
        match self.format {
            Format::Tiff => decoded,
            _ => Orientation(self.exif_orientation).seen(self.width, self.height, decoded),
        }
    }

    /// Where a box of the decoded picture lies in the file.
    pub fn as_stored(&self, decoded: [u32; 4]) -> [u32; 4] {
        match self.format {
            Format::Tiff => Orientation(self.exif_orientation).inverse().seen(self.width, self.height, decoded),
            _ => decoded,
        }
    }
}
