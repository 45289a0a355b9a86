//! Bytes to the exact 256 x 256 RGB pixels that the reference sees.
//!
//! The reference is Pillow 11.3.0 (`Image.open(f).convert("RGB")`) followed by torchvision's
//! `Resize((256, 256))`. LFM judges traces below one grey level, so "nearly the same pixels" is not
//! good enough: another JPEG decoder or resizer moves logits by several units. Every format variant
//! here either gives the reference's bytes or is refused with [`ImageError::UnsupportedFormat`].
//!
//! [`inspect`] reads the header only and applies the [`Limits`]; [`prepare`] decodes and resizes;
//! [`decode`] gives the full-size pixels. All three are pure and synchronous.
//!
//! ```
//! use lfm_serve::image::{Limits, Preprocessing, Scratch, inspect, prepare};
//!
//! let bytes = std::fs::read("tests/golden/images/orig_rocket.jpg")?;
//! let header = inspect(&bytes, &Limits::default())?;
//! assert_eq!((header.width, header.height), (640, 427));
//! let pixels = prepare(&bytes, &header, Preprocessing::Crop, &mut Scratch::default())?;
//! assert_eq!(pixels.as_bytes().len(), 256 * 256 * 3);
//! # Ok::<_, Box<dyn std::error::Error>>(())
//! ```
//!
//! **Memory.** [`Header::peak_bytes`] bounds what [`prepare`] takes: a few rows for BMP and for PNG
//! without interlacing, 1 byte a pixel for GIF, 3 for baseline JPEG and at most 12 for any (progressive
//! CMYK), at most 11 for WebP, and for TIFF the stored samples, twice if it is one tile, and 3 more if
//! it has to be turned. The resize itself keeps a few rows.
//!
//! **Panics.** This code has none. The decoders that it calls promise none either, but a caller that
//! must survive any file should run [`decode`] and [`prepare`] where a panic can be caught.

mod bmp;
mod colour;
mod error;
mod facts;
mod footprint;
mod format;
mod gif;
mod ifd;
mod jpeg;
mod lzw;
mod png;
mod resize;
mod rows;
mod signal;
#[cfg(test)]
mod tests;
mod tiff;
mod view;
mod webp;

pub use error::ImageError;
pub use facts::ImageFacts;
pub use footprint::source_box;
pub use format::{Encoding, Format, Header, Limits, inspect};
pub use rows::{Pixels, Rgb};
pub use signal::no_signal;
pub use view::{View, view};

use resize::Resizer;
use rows::{CropSink, FrameSink, ResizeSink, RowSink};

/// Side of the network's input, in pixels.
pub const SIDE: u32 = 256;

/// All of the network's input as a box, `[x0, y0, x1, y1]`.
pub const WHOLE_INPUT: [u32; 4] = [0, 0, SIDE, SIDE];

/// How an image of any size becomes [`SIDE`] x [`SIDE`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Preprocessing {
    /// Both axes resized to [`SIDE`] regardless of aspect, as the reference does.
    #[default]
    Resize,
    /// One tile of native pixels from the centre, at an even offset so that the tile keeps the 2 x 2
    /// grid of the NPR residue. An image with a side below [`SIDE`] is resized instead.
    Crop,
}

impl Preprocessing {
    /// Whether an image of this size is judged by its centre tile alone.
    fn takes_tile(self, width: u32, height: u32) -> bool {
        self == Self::Crop && width.min(height) >= SIDE
    }
}

/// Buffers kept between calls by one thread, so that decoding a stream of photos does not map and
/// unmap tens of megabytes for each.
#[derive(Default)]
pub struct Scratch {
    /// Whole decoded frame of the formats that cannot be decoded row by row.
    frame: Vec<u8>,
    resizer: Resizer,
}

/// A frame buffer above this many bytes (16 megapixels of RGB) is returned after the call: one huge
/// image must not pin its memory to every thread for good.
const KEEP_FRAME_BYTES: usize = 48_000_000;

impl Scratch {
    fn trim(&mut self) {
        if self.frame.capacity() > KEEP_FRAME_BYTES {
            self.frame = Vec::new();
        }
    }
}

/// Decodes to full-size RGB. `header` must come from [`inspect`] of the same bytes.
///
/// # Errors
/// [`ImageError::Undecodable`] or [`ImageError::UnsupportedFormat`].
pub fn decode(bytes: &[u8], header: &Header) -> Result<Rgb, ImageError> {
    let mut sink = FrameSink::new(header.width, header.height);
    decode_rows(bytes, header, &mut Vec::new(), &mut sink)?;
    sink.finish().ok_or_else(|| header.undecodable("rows are missing"))
}

/// Decodes and brings to [`SIDE`] x [`SIDE`]. `header` must come from [`inspect`] of the same bytes.
///
/// # Errors
/// [`ImageError::Undecodable`] or [`ImageError::UnsupportedFormat`].
pub fn prepare(
    bytes: &[u8],
    header: &Header,
    preprocessing: Preprocessing,
    scratch: &mut Scratch,
) -> Result<Pixels, ImageError> {
    let pixels = if preprocessing.takes_tile(header.width, header.height) {
        let mut sink = CropSink::new(header.width, header.height);
        decode_rows(bytes, header, &mut scratch.frame, &mut sink).map(|()| sink.finish())
    } else {
        let mut sink = ResizeSink::new(&mut scratch.resizer, header.width, header.height);
        decode_rows(bytes, header, &mut scratch.frame, &mut sink).map(|()| sink.finish())
    };
    scratch.trim();
    pixels?.ok_or_else(|| header.undecodable("rows are missing"))
}

/// Brings full-size RGB to [`SIDE`] x [`SIDE`], as [`prepare`] does under [`Preprocessing::Resize`]; nothing if
/// `rgb` does not have the rows that it says.
pub fn resize(rgb: &Rgb, scratch: &mut Scratch) -> Option<Pixels> {
    let mut sink = ResizeSink::new(&mut scratch.resizer, rgb.width, rgb.height);
    rgb.data.chunks_exact((rgb.width as usize * 3).max(1)).for_each(|row| sink.row(row));
    sink.finish()
}

/// Feeds `sink` the rows from top to bottom. `frame` is a reusable buffer for whole-frame decoders.
fn decode_rows(bytes: &[u8], header: &Header, frame: &mut Vec<u8>, sink: &mut dyn RowSink) -> Result<(), ImageError> {
    match header.format {
        Format::Jpeg => jpeg::decode(bytes, header, frame, sink),
        Format::Png => png::decode(bytes, header, frame, sink),
        Format::WebP => webp::decode(bytes, header, frame, sink),
        Format::Gif => gif::decode(bytes, header, frame, sink),
        Format::Bmp => bmp::decode(bytes, header, frame, sink),
        Format::Tiff => tiff::decode(bytes, frame, sink),
    }
}
