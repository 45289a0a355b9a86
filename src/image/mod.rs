//! Bytes to the exact 256 x 256 RGB pixels that the reference sees.
//!
//! The reference is Pillow 11.3.0 (`Image.open(f).convert("RGB")`) followed by torchvision's
//! `Resize((256, 256))`. LFM judges traces below one grey level, so "nearly the same pixels" is not
//! good enough: another JPEG decoder or resizer moves logits by several units. Every format variant
//! here either gives the reference's bytes or is refused with [`ImageError::UnsupportedFormat`].
//!
//! [`inspect`] reads the header only and applies the [`Limits`]; [`prepare_regions`] decodes and makes the
//! network's inputs, [`prepare`] the first of them; [`decode`] gives the full-size pixels. All are
//! synchronous and end early when their [`Cancel`] says so; all are pure, but that AVIF and HEIC are decoded in a
//! process of its own.
//!
//! ```
//! use lfm_serve::image::{Cancel, Limits, Preprocessing, Scratch, inspect, prepare};
//!
//! let bytes = std::fs::read("tests/golden/images/orig_rocket.jpg")?;
//! let header = inspect(&bytes, &Limits::default())?;
//! assert_eq!((header.width, header.height), (640, 427));
//! let pixels = prepare(&bytes, &header, Preprocessing::Crop, &mut Scratch::default(), &Cancel::default())?;
//! assert_eq!(pixels.as_bytes().len(), 256 * 256 * 3);
//! # Ok::<_, Box<dyn std::error::Error>>(())
//! ```
//!
//! **Memory.** [`Header::peak_bytes`] bounds what [`prepare`] takes: some rows for BMP, for baseline JPEG and for
//! PNG without interlacing, 1 byte a pixel for GIF, 8 at most for other JPEGs (progressive CMYK), 5 for WebP,
//! for TIFF the stored samples, twice if it is one tile, and 3 more if it has to be turned, and for AVIF and
//! HEIC 2 to 6 a sample, in their process. The resize
//! itself keeps a few rows. [`Header::cost`] estimates the time.
//!
//! **Panics.** This code has none. The decoders that it calls promise none either, but a caller that
//! must survive any file should run [`decode`] and [`prepare`] where a panic can be caught.

pub(crate) mod avif;
mod bmp;
mod boxes;
mod cancel;
pub(crate) mod child;
mod colour;
#[cfg(any(test, feature = "server"))]
pub(crate) mod corpus;
mod cost;
mod error;
mod facts;
mod fit;
mod footprint;
mod format;
mod gif;
mod header;
pub(crate) mod heic;
mod ifd;
mod jpeg;
mod limits;
mod lzw;
mod metadata;
mod orientation;
mod png;
mod properties;
mod regions;
mod resize;
mod rows;
mod signal;
mod sniff;
#[cfg(test)]
mod tests;
mod tiff;
mod view;
mod webp;

pub use cancel::Cancel;
pub use error::ImageError;
pub use facts::ImageFacts;
pub use fit::{Filter, MOST_SIDE, Recipe, Scale};
pub use footprint::{region_box, source_box};
pub use format::{Format, sniff};
pub use header::{Encoding, Header};
pub use heic::heif_library;
pub use limits::Limits;
pub use metadata::{Metadata, exif_fields, exif_thumbnail, metadata};
pub use regions::{Region, Regions, cost_for_each, cost_of_regions, places, prepare_for_each, prepare_regions};
pub use rows::{Pixels, Rgb};
pub use sniff::Foreign;
pub use view::{View, view};

use std::path::{Path, PathBuf};

use fit::Fit;
use resize::{ResizeSink, Resizer};
use rows::{FrameSink, RowSink};
use signal::no_signal;
use sniff::foreign;

/// Side of LFM's input, in pixels. Classes of files and warnings use it for every model.
pub const SIDE: u32 = 256;

/// All of LFM's input as a box, `[x0, y0, x1, y1]`.
pub const WHOLE_INPUT: [u32; 4] = [0, 0, SIDE, SIDE];

/// How an image of any size becomes the network's input: [`SIDE`] x [`SIDE`] for LFM.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Preprocessing {
    /// Both axes resized to [`SIDE`] regardless of aspect, as the reference does.
    #[default]
    Resize,
    /// Tiles of native pixels, the centre's first ([`Regions`]). An image with a side below [`SIDE`] is resized
    /// instead.
    Crop,
    /// As another network was trained.
    Recipe(Recipe),
}

impl Preprocessing {
    /// The word on the wire and in the manifest.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Resize => "resize",
            Self::Crop => "crop",
            Self::Recipe(Recipe { scale: Scale::Native, .. }) => "crop",
            Self::Recipe(_) => "resize",
        }
    }

    /// Width and height of the network's input.
    pub const fn input(self) -> [u32; 2] {
        match self {
            Self::Resize | Self::Crop => [SIDE, SIDE],
            Self::Recipe(recipe) => [recipe.width, recipe.height],
        }
    }

    /// Number of bytes of the network's input.
    pub const fn input_bytes(self) -> usize {
        let [width, height] = self.input();
        width as usize * height as usize * 3
    }

    /// Whether an image of this size is judged by tiles.
    pub fn takes_tile(self, width: u32, height: u32) -> bool {
        let [wide, high] = self.input();
        let native = matches!(self, Self::Crop | Self::Recipe(Recipe { scale: Scale::Native, .. }));
        native && width >= wide && height >= high
    }

    /// How an image of this size is resized, where it is.
    fn fit(self, width: u32, height: u32) -> Fit {
        match self {
            Self::Resize | Self::Crop => Fit::square(width, height),
            Self::Recipe(recipe) => Fit::of(&recipe, width, height),
        }
    }

    /// Whether this input has nothing that the network judges. LFM sees the NPR residue alone; of another network
    /// nothing is known.
    pub fn no_signal(self, pixels: &Pixels) -> bool {
        !matches!(self, Self::Recipe(_)) && no_signal(pixels)
    }
}

impl std::fmt::Display for Preprocessing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Recipe(recipe) => recipe.fmt(f),
            Self::Resize | Self::Crop => f.write_str(self.as_str()),
        }
    }
}

/// Buffers kept between calls by one thread, so that decoding a stream of photos does not map and
/// unmap tens of megabytes for each.
#[derive(Default)]
pub struct Scratch {
    /// Whole decoded frame of the formats that cannot be decoded row by row.
    frame: Vec<u8>,
    /// The program that decodes AVIF and HEIC.
    program: Option<PathBuf>,
    resizer: Resizer,
}

/// A frame buffer above this many bytes is returned after the call: one huge image must not pin its memory to
/// every thread for good.
const KEEP_FRAME_BYTES: usize = 4 << 20;

impl Scratch {
    /// With the path of the program `lfm-serve`, which decodes AVIF and HEIC. Without, it is this process's own executable or lies
    /// beside that.
    pub fn with_program(program: PathBuf) -> Self {
        Self { program: Some(program), ..Self::default() }
    }

    fn trim(&mut self) {
        if self.frame.capacity() > KEEP_FRAME_BYTES {
            self.frame = Vec::new();
        }
    }
}

/// Finds the format from the content, reads the header and applies the limits. Takes microseconds and
/// allocates no pixels.
///
/// # Errors
/// Any [`ImageError`].
pub fn inspect(bytes: &[u8], limits: &Limits) -> Result<Header, ImageError> {
    if bytes.is_empty() {
        return Err(ImageError::Empty);
    }
    let unread = || foreign(bytes).map_or(ImageError::UnknownFormat, ImageError::Foreign);
    let header = match sniff(bytes).filter(|&format| limits.reads(format)).ok_or_else(unread)? {
        Format::Jpeg => jpeg::inspect(bytes),
        Format::Png => png::inspect(bytes),
        Format::WebP => webp::inspect(bytes),
        Format::Gif => gif::inspect(bytes),
        Format::Bmp => bmp::inspect(bytes),
        Format::Tiff => tiff::inspect(bytes),
        Format::Avif => avif::inspect(bytes),
        Format::Heic => heic::inspect(bytes),
    }?;
    limits.check(&header)?;
    Ok(header)
}

/// Decodes to full-size RGB. `header` must come from [`inspect`] of the same bytes.
///
/// # Errors
/// [`ImageError::Undecodable`], [`ImageError::UnsupportedFormat`], [`ImageError::Cancelled`] or
/// [`ImageError::OutOfMemory`].
pub fn decode(bytes: &[u8], header: &Header, cancel: &Cancel) -> Result<Rgb, ImageError> {
    let mut sink = FrameSink::new(header.width, header.height)?;
    decode_rows(bytes, header, &mut Vec::new(), None, &mut sink, cancel)?;
    sink.finish().ok_or_else(|| header.undecodable("rows are missing"))
}

/// Decodes and makes the first of [`places`] the network's input. `header` must come from [`inspect`] of the same bytes.
///
/// # Errors
/// As [`decode`].
pub fn prepare(
    bytes: &[u8],
    header: &Header,
    preprocessing: Preprocessing,
    scratch: &mut Scratch,
    cancel: &Cancel,
) -> Result<Pixels, ImageError> {
    let regions = prepare_regions(bytes, header, preprocessing, Regions::One, scratch, cancel)?;
    regions.into_iter().next().map(|region| region.pixels).ok_or_else(|| header.undecodable("rows are missing"))
}

/// Brings full-size RGB to [`SIDE`] x [`SIDE`], as [`prepare`] does under [`Preprocessing::Resize`]; nothing if
/// `rgb` does not have the rows that it says.
pub fn resize(rgb: &Rgb, scratch: &mut Scratch) -> Option<Pixels> {
    let mut sink = ResizeSink::new(&mut scratch.resizer, &Fit::square(rgb.width, rgb.height));
    rgb.data.chunks_exact((rgb.width as usize * 3).max(1)).for_each(|row| sink.row(row));
    sink.finish()
}

/// Feeds `sink` the rows from top to bottom. `frame` is a reusable buffer for whole-frame decoders, `program` decodes AVIF and
/// HEIC.
fn decode_rows(
    bytes: &[u8],
    header: &Header,
    frame: &mut Vec<u8>,
    program: Option<&Path>,
    sink: &mut dyn RowSink,
    cancel: &Cancel,
) -> Result<(), ImageError> {
    match header.format {
        Format::Jpeg => jpeg::decode(bytes, header, sink, cancel),
        Format::Png => png::decode(bytes, header, frame, sink, cancel),
        Format::WebP => webp::decode(bytes, header, frame, sink, cancel),
        Format::Gif => gif::decode(bytes, header, frame, sink, cancel),
        Format::Bmp => bmp::decode(bytes, header, frame, sink, cancel),
        Format::Tiff => tiff::decode(bytes, frame, sink, cancel),
        Format::Avif => avif::decode(bytes, header, program, sink, cancel),
        Format::Heic => heic::decode(bytes, header, program, sink, cancel),
    }
}
