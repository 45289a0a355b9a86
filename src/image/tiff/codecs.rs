//! Decompression of strips and tiles, byte for byte as libtiff does.

use flate2::{Decompress, FlushDecompress, Status};
use weezl::BitOrder;

use super::layout::Compression;
use crate::image::{Cancel, ImageError, lzw};

/// Decompresses chunks one after another.
pub(super) enum Decompressor {
    Lzw(weezl::decode::Decoder),
    Deflate(Decompress),
    PackBits,
    /// Uncompressed, or JPEG.
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

    /// Fills all of `out`; false if there is too little data. Further data is ignored, as in libtiff.
    pub(super) fn fill(&mut self, data: &[u8], out: &mut [u8], cancel: &Cancel) -> Result<bool, ImageError> {
        match self {
            Self::Lzw(decoder) => {
                decoder.reset();
                lzw::fill(decoder, data, out, cancel)
            }
            Self::Deflate(decoder) => {
                decoder.reset(true);
                inflate(decoder, data, out, cancel)
            }
            Self::PackBits => pack_bits(data, out, cancel),
            Self::Idle => Ok(false),
        }
    }
}

/// Limit of input and output bytes between two checks of the flag.
const STEP_BYTES: usize = 1 << 18;

fn inflate(decoder: &mut Decompress, data: &[u8], out: &mut [u8], cancel: &Cancel) -> Result<bool, ImageError> {
    loop {
        cancel.check()?;
        let (taken, made) = (decoder.total_in() as usize, decoder.total_out() as usize);
        let input = data.get(taken..).unwrap_or_default();
        let input = &input[..input.len().min(STEP_BYTES)];
        let room = out.len().min(made.saturating_add(STEP_BYTES));
        // An error after the last needed byte (a wrong checksum) is ignored.
        let Ok(status) = decoder.decompress(input, out.get_mut(made..room).unwrap_or_default(), FlushDecompress::None)
        else {
            return Ok(false);
        };
        let complete = decoder.total_out() == out.len() as u64;
        let stuck = (decoder.total_in() as usize, decoder.total_out() as usize) == (taken, made);
        if complete || stuck || status == Status::StreamEnd {
            return Ok(complete);
        }
    }
}

/// PackBits, TIFF 6.0 section 9. Output beyond `out` is dropped, as in libtiff.
fn pack_bits(mut data: &[u8], mut out: &mut [u8], cancel: &Cancel) -> Result<bool, ImageError> {
    const STEP: usize = 1 << 12;
    for packet in 0.. {
        if out.is_empty() {
            break;
        }
        if packet % STEP == 0 {
            cancel.check()?;
        }
        match unpack(data, out) {
            Some(left) => (data, out) = left,
            None => return Ok(false),
        }
    }
    Ok(true)
}

/// Unpacks one packet; returns the remaining data and output.
fn unpack<'a, 'b>(data: &'a [u8], out: &'b mut [u8]) -> Option<(&'a [u8], &'b mut [u8])> {
    let (&count, data) = data.split_first()?;
    let count = count as i8;
    if count == -128 {
        return Some((data, out));
    }
    let length = usize::from(count.unsigned_abs()) + 1;
    let (filled, out) = out.split_at_mut(length.min(out.len()));
    if count < 0 {
        let (&value, data) = data.split_first()?;
        filled.fill(value);
        Some((data, out))
    } else {
        let (literal, data) = data.split_at_checked(length)?;
        filled.copy_from_slice(literal.get(..filled.len())?);
        Some((data, out))
    }
}
