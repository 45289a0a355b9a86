//! Rows of an image, their sinks, and the network's input pixels.

use super::{ImageError, SIDE};

/// Takes the rows of one image from top to bottom, each `width * 3` bytes of interleaved RGB.
pub(super) trait RowSink {
    fn row(&mut self, rgb: &[u8]);

    /// How many of the next rows it does not look at, at least; there may be fewer left.
    fn unused(&self) -> u32 {
        0
    }

    /// Some of its [`unused`](Self::unused) rows are passed over instead of given.
    fn skip(&mut self, _rows: u32) {}
}

/// A full-size image: `height` rows of `width` interleaved RGB pixels, no padding.
#[derive(Clone, PartialEq, Eq)]
pub struct Rgb {
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
    /// `width * height * 3` bytes.
    pub data: Vec<u8>,
}

impl std::fmt::Debug for Rgb {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Rgb({} x {})", self.width, self.height)
    }
}

/// The network's input: interleaved RGB pixels, [`SIDE`] x [`SIDE`] for LFM.
#[derive(Clone, PartialEq, Eq)]
pub struct Pixels(Box<[u8]>);

impl Pixels {
    /// Number of bytes of LFM's input: 256 * 256 * 3.
    pub const LEN: usize = SIDE as usize * SIDE as usize * 3;

    /// Takes exactly [`Pixels::LEN`] bytes; `None` for any other length.
    pub fn new(data: Vec<u8>) -> Option<Self> {
        Self::sized(data, SIDE, SIDE)
    }

    /// The input of a network of another size; `None` if the number of bytes is not `width * height * 3`.
    pub fn sized(data: Vec<u8>, width: u32, height: u32) -> Option<Self> {
        (data.len() == width as usize * height as usize * 3).then(|| Self(data.into_boxed_slice()))
    }

    /// The pixels, row by row.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl std::fmt::Debug for Pixels {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Pixels")
    }
}

/// Collects the full-size image.
pub(super) struct FrameSink {
    frame: Rgb,
    len: usize,
}

impl FrameSink {
    pub(super) fn new(width: u32, height: u32) -> Result<Self, ImageError> {
        let len = width as usize * height as usize * 3;
        let mut data = Vec::new();
        data.try_reserve_exact(len).map_err(|_| ImageError::OutOfMemory)?;
        Ok(Self { frame: Rgb { width, height, data }, len })
    }

    pub(super) fn finish(self) -> Option<Rgb> {
        (self.frame.data.len() == self.len).then_some(self.frame)
    }
}

impl RowSink for FrameSink {
    fn row(&mut self, rgb: &[u8]) {
        self.frame.data.extend_from_slice(rgb);
    }
}
