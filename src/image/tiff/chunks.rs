//! Strips and tiles to one frame of interleaved samples.

use flate2::{Decompress, FlushDecompress};
use weezl::BitOrder;

use super::layout::{Compression, Layout};
use super::{undecodable, unsupported};
use crate::image::{ImageError, lzw};

/// A tile may exceed the image by its padding, but not without bound.
const MAX_TILE_BYTES: usize = 16 << 20;

fn truncated() -> ImageError {
    undecodable("its data is damaged or truncated")
}

/// Fills `frame` with `height` rows of `row_bytes` bytes.
pub(super) fn read(bytes: &[u8], layout: &Layout, frame: &mut Vec<u8>) -> Result<(), ImageError> {
    let row_bytes = layout.row_bytes();
    let frame_bytes = row_bytes * layout.height as usize;
    let chunk_row = layout.bytes_for(layout.chunk_width, layout.chunk_samples());
    let chunk_bytes = chunk_row.checked_mul(layout.chunk_height as usize);
    let chunk_bytes = chunk_bytes.filter(|&n| n <= frame_bytes.max(MAX_TILE_BYTES));
    let chunk_bytes = chunk_bytes.ok_or_else(|| unsupported("tiles far larger than the image"))?;
    // Tiles that do not start on a whole byte of the frame.
    if layout.tiled && !(layout.chunk_width as usize * usize::from(layout.bits)).is_multiple_of(8) {
        return Err(unsupported("tiles that are not aligned to bytes"));
    }
    frame.clear();
    frame.resize(frame_bytes, 0);

    let across = layout.width.div_ceil(layout.chunk_width) as usize;
    let down = layout.height.div_ceil(layout.chunk_height) as usize;
    let mut decoder = ChunkDecoder::new(layout.compression);
    let mut chunk = vec![0; chunk_bytes];
    let planes = if layout.planar { layout.samples } else { 1 };
    for (index, &(start, length)) in layout.chunks.iter().enumerate().take(across * down * planes) {
        let jpeg = layout.jpeg_chunk(bytes, index);
        let (plane, index) = (index / (across * down), index % (across * down));
        let (x, y) = (index % across, index / across);
        let top = y * layout.chunk_height as usize;
        let rows = (layout.chunk_height as usize).min(layout.height as usize - top);
        let left = x as u32 * layout.chunk_width;
        let width = layout.chunk_width.min(layout.width - left);
        let used = layout.bytes_for(width, layout.chunk_samples());
        // A tile is stored whole, the last strip only as far as the image goes.
        let stored_rows = if layout.tiled { layout.chunk_height as usize } else { rows };
        let data: &[u8] = if layout.compression == Compression::None {
            // Pillow reads what it needs from the start on and asks for no padding.
            let needed = (rows - 1) * chunk_row + used;
            bytes.get(start..).and_then(|b| b.get(..needed)).ok_or_else(truncated)?
        } else {
            let stored = bytes.get(start..).and_then(|b| b.get(..length)).ok_or_else(truncated)?;
            let chunk = chunk.get_mut(..stored_rows * chunk_row).ok_or_else(truncated)?;
            match jpeg {
                Some(jpeg) => {
                    let (width, height) = (layout.chunk_width, stored_rows as u32);
                    jpeg.decode(width, height, layout.jpeg_stored, chunk)
                        .ok_or_else(|| undecodable("its JPEG data is damaged or contradicts its tags"))?;
                }
                None => decoder.decode(stored, chunk).ok_or_else(truncated)?,
            }
            if layout.differenced {
                for row in chunk.chunks_exact_mut(chunk_row) {
                    accumulate(row, layout);
                }
            }
            chunk
        };
        let target_rows = frame.chunks_exact_mut(row_bytes).skip(top).take(rows);
        for (row, target) in data.chunks(chunk_row).zip(target_rows) {
            let row = row.get(..used).ok_or_else(truncated)?;
            if layout.planar {
                interleave(row, plane, left as usize, layout, target);
            } else {
                let at = layout.bytes_for(left, layout.samples);
                let target = target.get_mut(at..at + used).ok_or_else(truncated)?;
                target.copy_from_slice(row);
            }
        }
    }
    Ok(())
}

/// Puts one plane's samples between the others'.
fn interleave(row: &[u8], plane: usize, left: usize, layout: &Layout, target: &mut [u8]) {
    let sample_bytes = usize::from(layout.bits / 8);
    let pixels = target.chunks_exact_mut(layout.samples * sample_bytes).skip(left);
    for (sample, pixel) in row.chunks_exact(sample_bytes).zip(pixels) {
        let place = pixel.get_mut(plane * sample_bytes..).unwrap_or_default();
        place.iter_mut().zip(sample).for_each(|(to, from)| *to = *from);
    }
}

/// Undoes horizontal differencing (TIFF 6.0 section 14).
fn accumulate(row: &mut [u8], layout: &Layout) {
    let samples = layout.chunk_samples();
    if layout.bits == 8 {
        for at in samples..row.len() {
            row[at] = row[at].wrapping_add(row[at - samples]);
        }
        return;
    }
    let mut left = vec![0_u16; samples];
    for pixel in row.chunks_exact_mut(samples * 2) {
        for (sum, value) in left.iter_mut().zip(pixel.chunks_exact_mut(2)) {
            if let Ok(value) = <&mut [u8; 2]>::try_from(value) {
                let difference = match layout.big_endian {
                    true => u16::from_be_bytes(*value),
                    false => u16::from_le_bytes(*value),
                };
                *sum = sum.wrapping_add(difference);
                *value = match layout.big_endian {
                    true => sum.to_be_bytes(),
                    false => sum.to_le_bytes(),
                };
            }
        }
    }
}

/// Decompresses one chunk after another.
enum ChunkDecoder {
    Lzw(weezl::decode::Decoder),
    Deflate(Decompress),
    PackBits,
    /// Nothing is compressed, or by JPEG.
    Idle,
}

impl ChunkDecoder {
    fn new(compression: Compression) -> Self {
        match compression {
            Compression::Lzw => Self::Lzw(weezl::decode::Decoder::with_tiff_size_switch(BitOrder::Msb, 8)),
            Compression::Deflate => Self::Deflate(Decompress::new(true)),
            Compression::PackBits => Self::PackBits,
            Compression::None | Compression::Jpeg => Self::Idle,
        }
    }

    /// Fills all of `out` or fails; what the data holds beyond that is ignored, as libtiff does.
    fn decode(&mut self, data: &[u8], out: &mut [u8]) -> Option<()> {
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
