//! TIFF, the first page, as Pillow and libtiff read it: uncompressed, LZW, Deflate, PackBits and JPEG; strips and
//! tiles, interleaved and planar. The `tiff` crate does not support palette images and panics on sizes from the file,
//! hence this reader on top of the codec crates.

mod chunks;
mod codecs;
mod layout;

use std::time::Duration;

use super::colour::{self, Palette};
use super::ifd::{self, Tiff};
use super::rows::RowSink;
use super::{Cancel, Encoding, Format, Header, ImageError, cost};
use layout::{Colour, Compression, Layout};

/// Directories of the file. One with nothing but a C2PA manifest is no page.
fn pages(bytes: &[u8]) -> u32 {
    let Some(tiff) = Tiff::new(bytes) else { return 0 };
    let is_page = |&start: &usize| {
        let mut entries = tiff.directory(start).into_iter().flatten();
        !(entries.next().is_some_and(|entry| entry.tag == ifd::C2PA) && entries.next().is_none())
    };
    tiff.directories().filter(is_page).count() as u32
}

fn undecodable(reason: &'static str) -> ImageError {
    Format::Tiff.undecodable(reason)
}

fn unsupported(reason: &'static str) -> ImageError {
    Format::Tiff.unsupported(reason)
}

pub(super) fn inspect(bytes: &[u8]) -> Result<Header, ImageError> {
    // Allocates the lists of strips and palette colours, bounded by constants and by the file's length.
    let layout = Layout::parse(bytes)?;
    let (width, height) = (layout.width, layout.height);
    // The size as shown: Pillow applies a TIFF's own orientation, unlike an EXIF block's. (It does so wrongly where it
    // maps a file into memory: uncompressed L or CMYK opened by its path. The pixels here are those of the bytes.)
    let (width, height) = if layout.orientation.is_transposed() { (height, width) } else { (width, height) };
    let pixels = u64::from(width) * u64::from(height);
    let frame_bytes = (layout.row_bytes() as u64).saturating_mul(layout.height.into());
    // Additionally a tile or a plane's strip, and the whole image before it is rotated.
    let apart = layout.tiled || layout.planar;
    let chunk_bytes = if apart { layout.chunk_bytes().unwrap_or(0).min(chunks::most_chunk_bytes(&layout)) } else { 0 };
    let (turned_pixels, turned_bytes) = if layout.orientation.is_transposed() {
        let columns = u64::from(layout.width).min(TURNED_TOGETHER as u64) * u64::from(layout.height);
        (pixels, (pixels + columns) * 3)
    } else {
        (0, 0)
    };
    // The largest JPEG strip; each is freed before the next.
    let (mut terms, mut jpeg_bytes) = (Vec::new(), 0);
    for index in 0..layout.chunks.len() {
        let Some((work, bytes)) = layout.jpeg_chunk(bytes, index).and_then(|jpeg| jpeg.work()) else { continue };
        terms.extend(work);
        terms.push((1, JPEG_CHUNK));
        jpeg_bytes = jpeg_bytes.max(bytes);
    }
    let (byte, raw_byte) = match layout.compression {
        Compression::None | Compression::Jpeg => (0.0, 0.0),
        Compression::Lzw => LZW,
        Compression::Deflate => DEFLATE,
        Compression::PackBits => PACK_BITS,
    };
    let spread = if apart { APART_BYTE } else { 0.0 } + if layout.differenced { DIFFERENCED_BYTE } else { 0.0 };
    terms.extend([
        (pixels, cost::ROW_PIXEL + PIXEL),
        (frame_bytes, FRAME_BYTE + raw_byte + spread),
        (bytes.len() as u64, byte),
        (turned_pixels, TURNED_PIXEL),
        (layout.chunks.len() as u64, CHUNK),
    ]);
    Ok(Header {
        format: Format::Tiff,
        width,
        height,
        exif_orientation: layout.orientation.0,
        frames: pages(bytes).max(1),
        encoding: match layout.jpeg_chunk(bytes, 0) {
            Some(jpeg) => Encoding::Lossy { quality: jpeg.quality() },
            None => Encoding::Lossless,
        },
        peak_bytes: frame_bytes
            .saturating_add(chunk_bytes as u64)
            .saturating_add(jpeg_bytes)
            .saturating_add(turned_bytes),
        cost: cost::cost(&terms),
        row_cost: Duration::ZERO,
    })
}

/// Columns that are turned at a time: what the cache loads of a row is used whole (64 bytes are 21 pixels).
const TURNED_TOGETHER: usize = 32;

/// Nanoseconds to convert and to rotate a pixel, to store a byte of samples, and to set up a strip's codec.
const PIXEL: f64 = 0.5;
const TURNED_PIXEL: f64 = 4.0;
const FRAME_BYTE: f64 = 0.15;
const CHUNK: f64 = 2_000.0;
const JPEG_CHUNK: f64 = 20_000.0;

/// Nanoseconds to copy a byte of samples from a tile or plane, and to add it to its neighbour.
const APART_BYTE: f64 = 1.0;
const DIFFERENCED_BYTE: f64 = 1.0;

/// Nanoseconds per byte of the file and per byte of samples.
const LZW: (f64, f64) = (4.0, 1.2);
const DEFLATE: (f64, f64) = (3.0, 0.5);
const PACK_BITS: (f64, f64) = (0.2, 0.2);

pub(super) fn decode(
    bytes: &[u8],
    frame: &mut Vec<u8>,
    sink: &mut dyn RowSink,
    cancel: &Cancel,
) -> Result<(), ImageError> {
    let layout = Layout::parse(bytes)?;
    chunks::read(bytes, &layout, frame, cancel)?;
    let width = layout.width as usize;
    let height = layout.height as usize;
    let mut converter = Converter::new(&layout);
    let rows = frame.chunks_exact(layout.row_bytes());
    let orientation = layout.orientation;
    if !orientation.is_transposed() {
        let mut emit = |row: &[u8]| {
            cancel.check()?;
            let rgb = converter.rgb(row);
            if orientation.reverses_columns() {
                reverse_pixels(rgb);
            }
            sink.row(rgb);
            Ok(())
        };
        return if orientation.reverses_rows() {
            rows.rev().try_for_each(&mut emit)
        } else {
            rows.into_iter().try_for_each(&mut emit)
        };
    }
    let mut rgb = Vec::new();
    rgb.try_reserve_exact(width * height * 3).map_err(|_| ImageError::OutOfMemory)?;
    for row in rows {
        cancel.check()?;
        rgb.extend_from_slice(converter.rgb(row));
    }
    let mut columns = Vec::new();
    cancel.zeros(&mut columns, width.min(TURNED_TOGETHER) * height * 3)?;
    for first in (0..width).step_by(TURNED_TOGETHER) {
        let count = TURNED_TOGETHER.min(width - first);
        let start = if orientation.reverses_columns() { width - first - count } else { first };
        for (y, row) in rgb.chunks_exact(width * 3).enumerate() {
            cancel.check()?;
            let pixels = row.get(start * 3..).unwrap_or_default().chunks_exact(3);
            for (column, pixel) in columns.chunks_exact_mut(height * 3).zip(pixels.take(count)) {
                if let Some(turned) = column.get_mut(y * 3..y * 3 + 3) {
                    turned.copy_from_slice(pixel);
                }
            }
        }
        let mut emit = |column: &mut [u8]| -> Result<(), ImageError> {
            cancel.check()?;
            if orientation.reverses_rows() {
                reverse_pixels(column);
            }
            sink.row(column);
            Ok(())
        };
        let mut turned = columns.chunks_exact_mut(height * 3).take(count);
        if orientation.reverses_columns() {
            turned.rev().try_for_each(&mut emit)?;
        } else {
            turned.try_for_each(&mut emit)?;
        }
    }
    Ok(())
}

/// Mirrors one row of RGB.
fn reverse_pixels(rgb: &mut [u8]) {
    rgb.reverse();
    rgb.chunks_exact_mut(3).for_each(<[u8]>::reverse);
}

/// Converts raw interleaved rows to RGB as Pillow does.
struct Converter {
    colour: Colour,
    bits: u8,
    samples_per_pixel: usize,
    big_endian: bool,
    palette: Palette,
    /// One byte a sample.
    samples: Vec<u8>,
    rgb: Vec<u8>,
}

impl Converter {
    fn new(layout: &Layout) -> Self {
        let width = layout.width as usize;
        Self {
            colour: layout.colour,
            bits: layout.bits,
            samples_per_pixel: layout.samples,
            big_endian: layout.big_endian,
            palette: Palette::new(layout.palette.iter().copied()),
            samples: vec![0; width * layout.samples],
            rgb: vec![0; width * 3],
        }
    }

    fn rgb(&mut self, row: &[u8]) -> &mut [u8] {
        match self.bits {
            8 => self.samples.copy_from_slice(row),
            16 => {
                let high = usize::from(!self.big_endian);
                for (sample, wide) in self.samples.iter_mut().zip(row.chunks_exact(2)) {
                    *sample = wide.get(high).copied().unwrap_or_default();
                }
            }
            bits => colour::unpack_row(row, bits, &mut self.samples),
        }
        let rgb = &mut self.rgb;
        match self.colour {
            Colour::Grey { inverted } => {
                let scale = if self.bits < 8 { 255 / ((1 << self.bits) - 1) } else { 1 };
                let flip = if inverted { 0xff } else { 0 };
                let pixels = self.samples.chunks_exact(self.samples_per_pixel);
                for (pixel, out) in pixels.zip(rgb.chunks_exact_mut(3)) {
                    out.fill(pixel.first().map_or(0, |v| (v * scale) ^ flip));
                }
            }
            Colour::Palette => {
                let pixels = self.samples.chunks_exact(self.samples_per_pixel);
                for (pixel, out) in pixels.zip(rgb.chunks_exact_mut(3)) {
                    self.palette.row(pixel.get(..1).unwrap_or_default(), out);
                }
            }
            Colour::Rgb => colour::first_three_row(&self.samples, self.samples_per_pixel, rgb),
            Colour::PremultipliedRgb => {
                colour::unpremultiplied_row(&self.samples, self.samples_per_pixel, rgb);
            }
            Colour::Cmyk => colour::cmyk_row(&self.samples, self.samples_per_pixel, rgb),
        }
        rgb
    }
}
