//! BMP as Pillow's BmpImagePlugin reads it. The `image` crate rounds 5- and 6-bit channels where
//! Pillow truncates, and accepts other variants, hence this reader.

use std::time::Duration;

use super::colour::{self, Palette};
use super::rows::RowSink;
use super::{Cancel, Encoding, Format, Header, ImageError, cost};

const FILE_HEADER_BYTES: usize = 14;

fn undecodable(reason: &'static str) -> ImageError {
    Format::Bmp.undecodable(reason)
}

fn unsupported(reason: &'static str) -> ImageError {
    Format::Bmp.unsupported(reason)
}

fn truncated() -> ImageError {
    undecodable("it is truncated")
}

fn u16_at(bytes: &[u8], at: usize) -> Result<u32, ImageError> {
    let raw = bytes.get(at..).and_then(|b| b.first_chunk());
    raw.map(|b| u16::from_le_bytes(*b).into()).ok_or_else(truncated)
}

fn u32_at(bytes: &[u8], at: usize) -> Result<u32, ImageError> {
    let raw = bytes.get(at..).and_then(|b| b.first_chunk());
    raw.map(|b| u32::from_le_bytes(*b)).ok_or_else(truncated)
}

/// How stored pixels become RGB.
#[derive(Clone)]
enum Storage {
    /// Packed palette indices (or bits or grey levels, with an identity palette).
    Indexed { bits: u8 },
    /// 16 bits, little-endian: (shift, maximum) of red, green and blue.
    Packed([(u16, u16); 3]),
    /// Whole bytes: the positions of red, green and blue among `bytes`.
    Bytes { bytes: usize, order: [usize; 3] },
    /// Run-length coded indices, two or one per byte.
    Rle { nibbles: bool },
}

const RGB555: [(u16, u16); 3] = [(10, 31), (5, 31), (0, 31)];
const RGB565: [(u16, u16); 3] = [(11, 31), (5, 63), (0, 31)];
const BGR: [usize; 3] = [2, 1, 0];

/// The headers' fields.
struct Bitmap {
    width: u32,
    height: u32,
    top_down: bool,
    storage: Storage,
    bits: u32,
    palette: Palette,
    /// Where the pixels start.
    offset: usize,
}

impl Bitmap {
    fn parse(bytes: &[u8]) -> Result<Self, ImageError> {
        let mut offset = u32_at(bytes, 10)? as usize;
        let header_size = u32_at(bytes, FILE_HEADER_BYTES)? as usize;
        let after_header = FILE_HEADER_BYTES + header_size;
        let header = bytes.get(FILE_HEADER_BYTES..after_header).ok_or_else(truncated)?;
        let (width, height, top_down, bits, compression, colors, entry_bytes);
        match header_size {
            12 => {
                (width, height) = (u16_at(header, 4)?, u16_at(header, 6)?);
                bits = u16_at(header, 10)?;
                (top_down, compression, colors, entry_bytes) = (false, 0, 0, 3);
            }
            40 | 52 | 56 | 64 | 108 | 124 => {
                width = u32_at(header, 4)?;
                let stored = u32_at(header, 8)?;
                // Pillow's test for a negative height: its top byte alone.
                top_down = stored >> 24 == 0xff;
                height = if top_down { stored.wrapping_neg() } else { stored };
                bits = u16_at(header, 14)?;
                compression = u32_at(header, 16)?;
                colors = u32_at(header, 32)?;
                entry_bytes = 4;
            }
            _ => return Err(unsupported("an unknown header")),
        }
        let mut after_masks = after_header;
        let storage = match (bits, compression) {
            (1 | 4 | 8, 0) => Storage::Indexed { bits: bits as u8 },
            (16, 0) => Storage::Packed(RGB555),
            (24, 0) => Storage::Bytes { bytes: 3, order: BGR },
            (32, 0) => Storage::Bytes { bytes: 4, order: BGR },
            (1 | 4 | 8, 1) => Storage::Rle { nibbles: false },
            (1 | 4 | 8, 2) => Storage::Rle { nibbles: true },
            (16 | 24 | 32, 3) => {
                let mask = |index: usize| u32_at(bytes, FILE_HEADER_BYTES + 40 + index * 4);
                if header_size == 40 {
                    after_masks += 12;
                }
                // Headers below 56 bytes have no alpha mask.
                let alpha = if header_size < 56 { 0 } else { mask(3)? };
                masked([mask(0)?, mask(1)?, mask(2)?, alpha], bits).ok_or_else(|| unsupported("its colour masks"))?
            }
            _ => return Err(unsupported("its pixel depth or compression")),
        };
        let colors = if colors == 0 { 1 << bits.min(16) } else { colors };
        if offset == after_header && bits <= 8 {
            offset += 4 * colors as usize;
        }
        let mut palette = Palette::grey();
        if bits <= 8 {
            if colors > 256 {
                return Err(unsupported("more than 256 palette colours"));
            }
            let end = after_masks + colors as usize * entry_bytes;
            let entries = bytes.get(after_masks..end).ok_or_else(truncated)?;
            after_masks = end;
            let colours = || {
                let entries = entries.chunks_exact(entry_bytes);
                entries.filter_map(|e| e.first_chunk()).map(|&[b, g, r]| [r, g, b])
            };
            // Pillow reads a palette that is black and white as 1-bit data and a grey ramp as 8-bit
            // data, whatever the depth.
            let assumed_bits = if colors == 2 && colours().eq([[0; 3], [255; 3]]) {
                Some(1)
            } else if colors != 2 && colours().eq((0..=255).map(|v| [v; 3]).take(colors as usize)) {
                Some(8)
            } else {
                None
            };
            let misread = match storage {
                Storage::Rle { .. } => assumed_bits == Some(1),
                _ => assumed_bits.is_some_and(|assumed| assumed != bits),
            };
            if misread {
                return Err(unsupported("a grey palette that the reference takes for another depth"));
            }
            if assumed_bits != Some(8) {
                palette = Palette::new(colours());
            }
        }
        if offset == 0 {
            offset = after_masks;
        }
        Ok(Self { width, height, top_down, storage, bits, palette, offset })
    }

    fn row_from_top(&self, y: u32) -> u32 {
        if self.top_down { y } else { self.height - 1 - y }
    }
}

/// The layouts of colour masks (red, green, blue, alpha) that Pillow supports.
fn masked(masks: [u32; 4], bits: u32) -> Option<Storage> {
    let bytes = |bytes, order| Some(Storage::Bytes { bytes, order });
    match (bits, masks) {
        (16, [0xf800, 0x7e0, 0x1f, _]) => Some(Storage::Packed(RGB565)),
        (16, [0x7c00, 0x3e0, 0x1f, _]) => Some(Storage::Packed(RGB555)),
        (24, [0xff_0000, 0xff00, 0xff, _]) => bytes(3, BGR),
        (32, [0, 0, 0, 0] | [0xff_0000, 0xff00, 0xff, 0 | 0xff00_0000]) => bytes(4, BGR),
        (32, [0xff00_0000, 0xff_0000, 0xff00, 0 | 0xff]) => bytes(4, [3, 2, 1]),
        (32, [0xff00_0000, 0xff00, 0xff, 0 | 0xff_0000]) => bytes(4, [3, 1, 0]),
        (32, [0xff, 0xff00, 0xff_0000, 0xff00_0000]) => bytes(4, [0, 1, 2]),
        _ => None,
    }
}

/// Nanoseconds to unpack a pixel of whole bytes, of 5 and 6 bits, and of runs; and per byte of runs.
const PIXEL: f64 = 1.0;
const PACKED_PIXEL: f64 = 4.0;
const RLE_PIXEL: f64 = 2.0;
const RLE_BYTE: f64 = 2.0;

pub(super) fn inspect(bytes: &[u8]) -> Result<Header, ImageError> {
    let bitmap = Bitmap::parse(bytes)?;
    let pixels = u64::from(bitmap.width) * u64::from(bitmap.height);
    let is_rle = matches!(bitmap.storage, Storage::Rle { .. });
    let pixel = match bitmap.storage {
        Storage::Rle { .. } => RLE_PIXEL,
        Storage::Packed(_) => PACKED_PIXEL,
        _ => PIXEL,
    };
    Ok(Header {
        format: Format::Bmp,
        width: bitmap.width,
        height: bitmap.height,
        exif_orientation: 1,
        encoding: Encoding::Lossless,
        frames: 1,
        peak_bytes: if is_rle { pixels + 2 * u64::from(bitmap.width) } else { 0 },
        cost: cost::cost(&[(pixels, cost::ROW_PIXEL + pixel), (if is_rle { bytes.len() as u64 } else { 0 }, RLE_BYTE)]),
        row_cost: Duration::ZERO,
    })
}

pub(super) fn decode(
    bytes: &[u8],
    header: &Header,
    frame: &mut Vec<u8>,
    sink: &mut dyn RowSink,
    cancel: &Cancel,
) -> Result<(), ImageError> {
    let bitmap = Bitmap::parse(bytes)?;
    let data = bytes.get(bitmap.offset..).ok_or_else(truncated)?;
    let width = header.width as usize;
    let (data, bits) = if let Storage::Rle { nibbles } = bitmap.storage {
        frame.clear();
        expand_runs(bytes, bitmap.offset, nibbles, header, frame, cancel)?;
        (frame.as_slice(), 8)
    } else {
        (data, bitmap.bits as usize)
    };
    let row_bytes = (width * bits).div_ceil(8);
    let is_rle = matches!(bitmap.storage, Storage::Rle { .. });
    let stride = if is_rle { row_bytes } else { row_bytes.next_multiple_of(4) };

    let mut samples = vec![0; width];
    let mut rgb = vec![0; width * 3];
    for y in 0..header.height {
        cancel.check()?;
        let start = bitmap.row_from_top(y) as usize * stride;
        let row = data.get(start..start + row_bytes).ok_or_else(truncated)?;
        match bitmap.storage {
            Storage::Rle { .. } => bitmap.palette.row(row, &mut rgb),
            Storage::Indexed { bits } => {
                colour::unpack_row(row, bits, &mut samples);
                bitmap.palette.row(&samples, &mut rgb);
            }
            Storage::Packed(channels) => {
                for (pixel, out) in row.chunks_exact(2).zip(rgb.chunks_exact_mut(3)) {
                    let pixel = pixel.iter().rev().fold(0, |v, &b| v << 8 | u16::from(b));
                    for (byte, (shift, max)) in out.iter_mut().zip(channels) {
                        // Truncated, as Pillow's unpackers do.
                        *byte = (u32::from(pixel >> shift & max) * 255 / u32::from(max)) as u8;
                    }
                }
            }
            Storage::Bytes { bytes: 3, order } => pick_bytes(row.as_chunks::<3>().0, order, &mut rgb),
            Storage::Bytes { order, .. } => pick_bytes(row.as_chunks::<4>().0, order, &mut rgb),
        }
        sink.row(&rgb);
    }
    Ok(())
}

fn pick_bytes<const N: usize>(pixels: &[[u8; N]], order: [usize; 3], rgb: &mut [u8]) {
    for (pixel, out) in pixels.iter().zip(rgb.as_chunks_mut::<3>().0) {
        *out = order.map(|at| pixel[at]);
    }
}

/// Pillow's BmpRleDecoder. `out` gets one index per pixel, rows in stored order.
fn expand_runs(
    bytes: &[u8],
    offset: usize,
    nibbles: bool,
    header: &Header,
    out: &mut Vec<u8>,
    cancel: &Cancel,
) -> Result<(), ImageError> {
    const STEP: usize = 1 << 12;
    let width = header.width as usize;
    let total = width * header.height as usize;
    // The last run may end beyond the image, by less than two rows.
    out.try_reserve_exact(total + 2 * width + 256).map_err(|_| ImageError::OutOfMemory)?;
    let mut at = offset;
    let mut x = 0_usize;
    for run in 0.. {
        if out.len() >= total {
            break;
        }
        if run % STEP == 0 {
            cancel.check()?;
        }
        let Some(&[count, value]) = bytes.get(at..).and_then(|b| b.first_chunk()) else {
            break;
        };
        at += 2;
        match (count, value) {
            (0, 0) => {
                out.resize(out.len().next_multiple_of(width), 0);
                x = 0;
            }
            (0, 1) => break,
            (0, 2) => {
                return Err(unsupported("run-length deltas, which the reference misreads"));
            }
            (0, length) => {
                if nibbles && length % 2 != 0 {
                    return Err(unsupported("odd 4-bit run-length literals, which the reference misreads"));
                }
                let stored = usize::from(length) / if nibbles { 2 } else { 1 };
                let literal = bytes.get(at..at + stored).ok_or_else(truncated)?;
                if nibbles {
                    out.extend(literal.iter().flat_map(|b| [b >> 4, b & 15]));
                } else {
                    out.extend_from_slice(literal);
                }
                // Padded to an even position in the file.
                at = (at + stored).next_multiple_of(2);
                x += usize::from(length);
            }
            (count, value) => {
                let count = usize::from(count).min(width.saturating_sub(x));
                let pair = if nibbles { [value >> 4, value & 15] } else { [value; 2] };
                out.extend(pair.iter().cycle().take(count));
                x += count;
            }
        }
    }
    if out.len() < total {
        return Err(truncated());
    }
    Ok(())
}
