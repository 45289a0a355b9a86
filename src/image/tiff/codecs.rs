//! Decompression of strips and tiles, byte for byte as libtiff does.

use flate2::{Decompress, FlushDecompress};
use weezl::BitOrder;

use super::layout::Compression;
use crate::image::lzw;

/// Decompresses one chunk after another.
pub(super) enum Decompressor {
    Lzw(weezl::decode::Decoder),
    Deflate(Decompress),
    PackBits,
    /// Nothing is compressed, or by JPEG.
    Idle,
}

impl Decompressor {
    pub(super) fn new(compression: Compression) -> Self {
        match compression {
            Compression::Lzw => Self::Lzw(weezl::decode::Decoder::with_tiff_size_switch(BitOrder::Msb, 8)),
            Compression::Deflate => Self::Deflate(Decompress::new(true)),
            Compression::PackBits => Self::PackBits,
            Compression::None | Compression::Jpeg => Self::Idle,
        }
    }

    /// Fills all of `out` or gives nothing; what the data holds beyond that is ignored, as libtiff does.
    pub(super) fn fill(&mut self, data: &[u8], out: &mut [u8]) -> Option<()> {
        match self {
            Self::Lzw(decoder) => {
                decoder.reset();
                lzw::fill(decoder, data, out)
            }
            Self::Deflate(decoder) => {
                decoder.reset(true);
                let status = decoder.decompress(data, out, FlushDecompress::Finish);
                let complete = decoder.total_out() == out.len() as u64;
                // An error after the last byte needed (a wrong checksum) does not count.
                (complete && status.is_ok()).then_some(())
            }
            Self::PackBits => pack_bits(data, out),
            Self::Idle => None,
        }
    }
}

/// PackBits, TIFF 6.0 section 9. What exceeds `out` is cut, as libtiff does.
fn pack_bits(mut data: &[u8], mut out: &mut [u8]) -> Option<()> {
    while !out.is_empty() {
        let (&count, rest) = data.split_first()?;
        data = rest;
        let count = count as i8;
        if count == -128 {
            continue;
        }
        let length = usize::from(count.unsigned_abs()) + 1;
        let (filled, open) = out.split_at_mut(length.min(out.len()));
        out = open;
        if count < 0 {
            let (&value, rest) = data.split_first()?;
            data = rest;
            filled.fill(value);
        } else {
            let (literal, rest) = data.split_at_checked(length)?;
            data = rest;
            filled.copy_from_slice(literal.get(..filled.len())?);
        }
    }
    Some(())
}
