//! WebP. The container is parsed here; the first frame's bitstream is decoded by `image-webp`. As in Pillow, the first
//! frame is never blended, and the rest of an animation's canvas is black.

use std::time::Duration;

use image_webp::DecodingError;

use super::colour;
use super::rows::RowSink;
use super::{Cancel, Encoding, Format, Header, ImageError, cost, ifd};

const ANIMATION_FLAG: u8 = 0x02;

fn undecodable(reason: &'static str) -> ImageError {
    Format::WebP.undecodable(reason)
}

/// A RIFF chunk: type and data, without padding.
pub(super) type Chunk<'a> = (&'a [u8; 4], &'a [u8]);

/// The chunks of a RIFF payload; ends early if one does not fit.
struct Chunks<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Chunks<'a> {
    type Item = Chunk<'a>;

    fn next(&mut self) -> Option<Chunk<'a>> {
        let kind = self.rest.first_chunk()?;
        let size = u32::from_le_bytes(*self.rest.get(4..)?.first_chunk()?) as usize;
        let data = self.rest.get(8..)?.get(..size)?;
        self.rest = self.rest.get(8 + size + size % 2..).unwrap_or_default();
        Some((kind, data))
    }
}

/// The chunks of a file, without its header.
pub(super) fn file_chunks(bytes: &[u8]) -> impl Iterator<Item = Chunk<'_>> {
    const HEADER_BYTES: usize = 12;
    chunks(bytes.get(HEADER_BYTES..).unwrap_or_default())
}

fn chunks(payload: &[u8]) -> Chunks<'_> {
    Chunks { rest: payload }
}

fn u24(bytes: &[u8], at: usize) -> Option<u32> {
    let &[a, b, c] = bytes.get(at..)?.first_chunk()?;
    Some(u32::from_le_bytes([a, b, c, 0]))
}

/// A frame's bitstream and its position on the canvas.
struct Frame<'a> {
    left: u32,
    top: u32,
    width: u32,
    height: u32,
    alpha: Option<&'a [u8]>,
    lossy: bool,
    bitstream: &'a [u8],
}

impl<'a> Frame<'a> {
    /// The first image among `chunks`, with the size in its bitstream.
    fn find(chunks: impl Iterator<Item = Chunk<'a>>) -> Option<Self> {
        let mut alpha = None;
        for (kind, data) in chunks {
            let lossy = match kind {
                b"VP8 " => true,
                b"VP8L" => false,
                b"ALPH" => {
                    alpha = Some(data);
                    continue;
                }
                _ => continue,
            };
            let (width, height) = if lossy {
                // RFC 6386 section 9.1: 14 bits of size, 2 of scaling.
                let size = data.get(6..)?.first_chunk::<4>()?;
                let [w, h] = [[size[0], size[1]], [size[2], size[3]]].map(u16::from_le_bytes);
                (u32::from(w & 0x3fff), u32::from(h & 0x3fff))
            } else {
                let bits = u32::from_le_bytes(*data.get(1..)?.first_chunk()?);
                ((bits & 0x3fff) + 1, (bits >> 14 & 0x3fff) + 1)
            };
            return Some(Self { left: 0, top: 0, width, height, alpha, lossy, bitstream: data });
        }
        None
    }
}

/// The container's contents.
struct Container<'a> {
    width: u32,
    height: u32,
    frame: Frame<'a>,
    frames: u32,
    exif_orientation: u8,
}

impl<'a> Container<'a> {
    fn parse(bytes: &'a [u8]) -> Result<Self, ImageError> {
        let truncated = || undecodable("it is truncated");
        let riff_size = bytes.get(4..).and_then(|b| b.first_chunk());
        let end = u32::from_le_bytes(*riff_size.ok_or_else(truncated)?) as usize;
        let payload = bytes.get(8..).and_then(|b| b.get(..end)).ok_or_else(truncated)?;
        let payload = payload.get(4..).ok_or_else(truncated)?;
        let no_image = || undecodable("it holds no complete image");
        let (kind, first) = chunks(payload).next().ok_or_else(no_image)?;
        match kind {
            b"VP8X" if first.len() == 10 => {
                let mut all = chunks(payload);
                all.by_ref().for_each(drop);
                if !all.rest.is_empty() {
                    return Err(truncated());
                }
            }
            b"VP8 " | b"VP8L" => {
                let frame = Frame::find(chunks(payload)).ok_or_else(no_image)?;
                return Ok(Self { width: frame.width, height: frame.height, frame, frames: 1, exif_orientation: 1 });
            }
            _ => return Err(undecodable("its first chunk is wrong")),
        }
        let size = |at| u24(first, at).map(|v| v + 1).ok_or_else(truncated);
        let (width, height) = (size(4)?, size(7)?);
        let animated = first.first().is_some_and(|flags| flags & ANIMATION_FLAG != 0);
        let frame = if animated {
            let (_, data) = chunks(payload).find(|(kind, _)| *kind == b"ANMF").ok_or_else(no_image)?;
            let place = |at| u24(data, at).map(|v| v * 2).ok_or_else(no_image);
            let size = |at| u24(data, at).map(|v| v + 1).ok_or_else(no_image);
            let inner = data.get(16..).unwrap_or_default();
            let mut frame = Frame::find(chunks(inner)).ok_or_else(no_image)?;
            (frame.left, frame.top) = (place(0)?, place(3)?);
            if (size(6)?, size(9)?) != (frame.width, frame.height) {
                return Err(undecodable("its frame sizes disagree"));
            }
            frame
        } else {
            // One image, after its alpha: libwebp refuses anything else.
            let count = |kinds: &[&[u8; 4]]| chunks(payload).filter(|c| kinds.contains(&c.0)).count();
            let frame = Frame::find(chunks(payload)).ok_or_else(no_image)?;
            let alphas = usize::from(frame.alpha.is_some());
            if count(&[b"VP8 ", b"VP8L"]) != 1 || count(&[b"ALPH"]) != alphas {
                return Err(undecodable("it holds more than one image"));
            }
            frame
        };
        let fits = if animated {
            frame.left + frame.width <= width && frame.top + frame.height <= height
        } else {
            (frame.width, frame.height) == (width, height)
        };
        if !fits {
            return Err(undecodable("its image does not fit its canvas"));
        }
        let exif_orientation = chunks(payload)
            .find(|(kind, _)| *kind == b"EXIF")
            .map_or(1, |(_, data)| ifd::exif_orientation(data.strip_prefix(b"Exif\0\0").unwrap_or(data)));
        let frames = chunks(payload).filter(|(kind, _)| *kind == b"ANMF").count().max(1) as u32;
        Ok(Self { width, height, frame, frames, exif_orientation })
    }
}

/// Nanoseconds per pixel and per byte of the bitstream. A lossless pixel passes through up to four transforms.
const LOSSY_PIXEL: f64 = 18.0;
const LOSSY_BYTE: f64 = 30.0;
const LOSSLESS_PIXEL: f64 = 8.0;
const LOSSLESS_BYTE: f64 = 1.5;

pub(super) fn inspect(bytes: &[u8]) -> Result<Header, ImageError> {
    let container = Container::parse(bytes)?;
    let frame = &container.frame;
    // Whole blocks of 16 x 16 pixels.
    let pixels = u64::from(frame.width + 16) * u64::from(frame.height + 16);
    let length = frame.bitstream.len() as u64;
    // Encoders write some kilobytes of codes; a hostile file can cause a table of 4 KiB with every 8 bytes.
    let tables = |length: u64| length.saturating_mul(512).min(image_webp::MAX_TABLE_BYTES as u64);
    let lossless_bytes = |length| pixels * 9 / 2 + tables(length);
    let alpha = frame.alpha.filter(|_| frame.lossy).map(|alpha| alpha.len() as u64);
    let peak_bytes = if frame.lossy {
        // Planes 1.5, RGB 3, and the data kept for each block.
        (pixels * 5).max(alpha.map_or(0, lossless_bytes)) + 3 * length
    } else {
        lossless_bytes(length)
    };
    let (pixel, byte) = if frame.lossy { (LOSSY_PIXEL, LOSSY_BYTE) } else { (LOSSLESS_PIXEL, LOSSLESS_BYTE) };
    let cost = cost::cost(&[
        (u64::from(container.width) * u64::from(container.height), cost::ROW_PIXEL),
        (pixels, pixel),
        (length, byte),
        (alpha.map_or(0, |_| pixels), LOSSLESS_PIXEL),
        (alpha.unwrap_or(0), LOSSLESS_BYTE),
    ]);
    Ok(Header {
        format: Format::WebP,
        width: container.width,
        height: container.height,
        exif_orientation: container.exif_orientation,
        frames: container.frames,
        encoding: if frame.lossy { Encoding::Lossy { quality: None } } else { Encoding::Lossless },
        peak_bytes,
        cost,
        row_cost: Duration::ZERO,
    })
}

pub(super) fn decode(
    bytes: &[u8],
    header: &Header,
    buffer: &mut Vec<u8>,
    sink: &mut dyn RowSink,
    cancel: &Cancel,
) -> Result<(), ImageError> {
    let Container { frame, .. } = Container::parse(bytes)?;
    let stop = || cancel.is_cancelled();
    let failed = |error| match error {
        DecodingError::Stopped => ImageError::Cancelled,
        DecodingError::OutOfMemory => ImageError::OutOfMemory,
        _ => undecodable("its data is damaged or truncated"),
    };
    let (Ok(width), Ok(height)) = (u16::try_from(frame.width), u16::try_from(frame.height)) else {
        return Err(undecodable("its frame sizes disagree"));
    };
    let samples = if frame.lossy {
        if let Some(alpha) = frame.alpha {
            image_webp::check_alpha(alpha, width, height, &stop).map_err(failed)?;
        }
        let planes = image_webp::decode_lossy(frame.bitstream, &stop).map_err(failed)?;
        if (planes.width, planes.height) != (width, height) {
            return Err(undecodable("its frame sizes disagree"));
        }
        cancel.zeros(buffer, frame.width as usize * frame.height as usize * 3)?;
        planes.fill_rgb(buffer, &stop).map_err(failed)?;
        3
    } else {
        *buffer = image_webp::decode_lossless(frame.bitstream, width, height, &stop).map_err(failed)?;
        4
    };
    let frame_row = frame.width as usize * samples;
    let mut rows = buffer.chunks_exact(frame_row);
    let mut rgb = vec![0; header.width as usize * 3];
    for y in 0..header.height {
        cancel.check()?;
        let covered = (frame.top..frame.top + frame.height).contains(&y);
        let left = frame.left as usize * 3;
        let place = rgb.get_mut(left..left + frame.width as usize * 3);
        match (rows.next_if(covered), place) {
            (Some(row), Some(place)) => colour::first_three_row(row, samples, place),
            _ => rgb.fill(0),
        }
        sink.row(&rgb);
    }
    Ok(())
}

/// Takes the next item only if a condition holds.
trait NextIf: Iterator {
    fn next_if(&mut self, wanted: bool) -> Option<Self::Item> {
        if wanted { self.next() } else { None }
    }
}

impl<I: Iterator> NextIf for I {}
