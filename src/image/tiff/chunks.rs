//! Assembles strips and tiles into one frame of interleaved samples.

use super::codecs::Decompressor;
use super::layout::{Compression, Layout, Place};
use super::{undecodable, unsupported};
use crate::image::{Cancel, ImageError, jpeg::Failure};

/// A tile may exceed the image by its padding, but not without bound.
const MAX_TILE_BYTES: usize = 16 << 20;

/// Tiles larger than this are refused.
pub(super) fn most_chunk_bytes(layout: &Layout) -> usize {
    (layout.row_bytes() * layout.height as usize).max(MAX_TILE_BYTES)
}

fn truncated() -> ImageError {
    undecodable("its data is damaged or truncated")
}

/// Fills `frame` with `height` rows of `row_bytes` bytes.
pub(super) fn read(bytes: &[u8], layout: &Layout, frame: &mut Vec<u8>, cancel: &Cancel) -> Result<(), ImageError> {
    let row_bytes = layout.row_bytes();
    let frame_bytes = row_bytes * layout.height as usize;
    let chunk_bytes = layout.chunk_bytes().filter(|&n| n <= most_chunk_bytes(layout));
    let chunk_bytes = chunk_bytes.ok_or_else(|| unsupported("tiles far larger than the image"))?;
    // Tiles that do not start on a whole byte of the frame.
    if layout.tiled && !(layout.chunk_width as usize * usize::from(layout.bits)).is_multiple_of(8) {
        return Err(unsupported("tiles that are not aligned to bytes"));
    }
    cancel.zeros(frame, frame_bytes)?;
    let mut decompressor = Decompressor::new(layout.compression);
    let mut chunk = Vec::new();
    for (index, &(start, length)) in layout.chunks.iter().enumerate() {
        cancel.check()?;
        let place = layout.place(index);
        let data = bytes.get(start..).unwrap_or_default();
        if layout.compression == Compression::None {
            // Pillow reads only the needed bytes from the start and requires no padding.
            let needed = (place.rows - 1) * layout.chunk_row_bytes() + layout.used_bytes(&place);
            put(data.get(..needed).ok_or_else(truncated)?, &place, layout, frame, cancel)?;
            continue;
        }
        let data = data.get(..length).ok_or_else(truncated)?;
        let stored_bytes = place.stored_rows * layout.chunk_row_bytes();
        // An interleaved strip is a contiguous part of the frame.
        let in_place = !layout.tiled && !layout.planar;
        let target = if in_place {
            frame.get_mut(place.top * row_bytes..).and_then(|f| f.get_mut(..stored_bytes))
        } else {
            if chunk.is_empty() {
                cancel.zeros(&mut chunk, chunk_bytes)?;
            }
            chunk.get_mut(..stored_bytes)
        };
        let target = target.ok_or_else(truncated)?;
        match layout.jpeg_chunk(bytes, index) {
            Some(jpeg) => {
                let (width, height) = (layout.chunk_width, place.stored_rows as u32);
                jpeg.decode(width, height, layout.jpeg_stored, target, cancel).map_err(|failure| match failure {
                    Failure::Cancelled | Failure::OutOfMemory => failure.into(),
                    _ => undecodable("its JPEG data is damaged or contradicts its tags"),
                })?;
            }
            None if decompressor.fill(data, target, cancel)? => {}
            None => return Err(truncated()),
        }
        if layout.differenced {
            for row in target.chunks_exact_mut(layout.chunk_row_bytes()) {
                cancel.check()?;
                accumulate(row, layout);
            }
        }
        if !in_place {
            put(&chunk, &place, layout, frame, cancel)?;
        }
    }
    Ok(())
}

/// Copies the rows of a strip or tile into the frame, without padding.
fn put(data: &[u8], place: &Place, layout: &Layout, frame: &mut [u8], cancel: &Cancel) -> Result<(), ImageError> {
    let used = layout.used_bytes(place);
    let targets = frame.chunks_exact_mut(layout.row_bytes()).skip(place.top).take(place.rows);
    for (row, target) in data.chunks(layout.chunk_row_bytes()).zip(targets) {
        cancel.check()?;
        let row = row.get(..used).ok_or_else(truncated)?;
        if layout.planar {
            interleave(row, place, layout, target);
        } else {
            let at = layout.bytes_for(place.left, layout.samples);
            target.get_mut(at..at + used).ok_or_else(truncated)?.copy_from_slice(row);
        }
    }
    Ok(())
}

/// Interleaves one plane's samples with the others'.
fn interleave(row: &[u8], place: &Place, layout: &Layout, target: &mut [u8]) {
    let sample_bytes = usize::from(layout.bits / 8);
    let pixels = target.chunks_exact_mut(layout.samples * sample_bytes).skip(place.left as usize);
    for (sample, pixel) in row.chunks_exact(sample_bytes).zip(pixels) {
        let own = pixel.get_mut(place.plane * sample_bytes..).unwrap_or_default();
        own.iter_mut().zip(sample).for_each(|(to, from)| *to = *from);
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
