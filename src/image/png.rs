//! PNG; non-interlaced files are decoded row by row.

use std::cell::Cell;
use std::io::{self, BufRead};
use std::rc::Rc;
use std::time::Duration;

use ::png::{
    BitDepth, ColorType, DecodeOptions, Decoder, InterlaceInfo, Limits, Transformations, expand_interlaced_row,
};

use super::colour::{self, Palette};
use super::rows::RowSink;
use super::{Cancel, Encoding, Format, Header, ImageError, cost, ifd};

const SIGNATURE_BYTES: usize = 8;

/// Compressed bytes allowed after the last row.
const MAX_TAIL_BYTES: usize = 1 << 16;

fn undecodable(reason: &'static str) -> ImageError {
    Format::Png.undecodable(reason)
}

/// The chunks as (type, data), up to where the bytes end.
pub(super) fn chunks(bytes: &[u8]) -> impl Iterator<Item = (&[u8; 4], &[u8])> {
    let mut rest = bytes.get(SIGNATURE_BYTES..).unwrap_or_default();
    std::iter::from_fn(move || {
        let length = u32::from_be_bytes(*rest.first_chunk()?) as usize;
        let kind = rest.get(4..)?.first_chunk()?;
        let data = rest.get(8..)?.get(..length)?;
        // The checksum follows the data.
        rest = rest.get(8 + length + 4..)?;
        Some((kind, data))
    })
}

/// Nanoseconds to convert a pixel and to place an interlaced one; per byte of rows; per byte of the file.
const PIXEL: f64 = 0.5;
const INTERLACED_PIXEL: f64 = 3.0;
const RAW_BYTE: f64 = 0.6;
const BYTE: f64 = 3.0;

pub(super) fn inspect(bytes: &[u8]) -> Result<Header, ImageError> {
    let mut chunks = chunks(bytes);
    let Some((b"IHDR", header)) = chunks.next() else {
        return Err(undecodable("it does not start with a header"));
    };
    let &[w0, w1, w2, w3, h0, h1, h2, h3, depth, colour, _, _, interlace, ..] = header else {
        return Err(undecodable("its header is cut short"));
    };
    if (depth, colour) == (16, 0) {
        return Err(Format::Png.unsupported("16-bit greyscale, which the reference clips to white instead of scaling"));
    }
    let (mut exif_orientation, mut frames) = (None, 1);
    for (kind, data) in chunks.take_while(|(kind, _)| *kind != b"IDAT") {
        match kind {
            b"eXIf" if exif_orientation.is_none() => exif_orientation = Some(ifd::exif_orientation(data)),
            // An animation's number of frames.
            b"acTL" => frames = data.first_chunk().map_or(1, |count| u32::from_be_bytes(*count)).max(1),
            _ => {}
        }
    }
    let (width, height) = (u32::from_be_bytes([w0, w1, w2, w3]), u32::from_be_bytes([h0, h1, h2, h3]));
    let samples = ColorType::from_u8(colour).map_or(1, ColorType::samples) as u64;
    let interlaced = interlace != 0;
    let pixels = u64::from(width) * u64::from(height);
    let row_bytes = (u64::from(width) * samples * u64::from(depth)).div_ceil(8);
    Ok(Header {
        format: Format::Png,
        width,
        height,
        exif_orientation: exif_orientation.unwrap_or(1),
        encoding: Encoding::Lossless,
        frames,
        // Without interlacing a few rows suffice.
        peak_bytes: row_bytes.saturating_mul(if interlaced { u64::from(height) + 8 } else { 8 }),
        cost: cost::cost(&[
            (pixels, cost::ROW_PIXEL + PIXEL + if interlaced { INTERLACED_PIXEL } else { 0.0 }),
            (row_bytes.saturating_mul(height.into()), RAW_BYTE),
            (bytes.len() as u64, BYTE),
        ]),
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
    // The decoder does not report why its input failed.
    let damaged = |_| match cancel.check() {
        Ok(()) => undecodable("its data is damaged or truncated"),
        Err(cancelled) => cancelled,
    };
    let mut options = DecodeOptions::default();
    // Neither is used, and a few bytes of either may expand to megabytes.
    options.set_ignore_text_chunk(true);
    options.set_ignore_iccp_chunk(true);
    // Pillow checks both.
    options.set_ignore_adler32(false);
    options.set_skip_ancillary_crc_failures(false);
    let input = Input { bytes, position: Rc::default(), cancel };
    let position = Rc::clone(&input.position);
    let mut decoder = Decoder::new_with_options(input, options);
    decoder.set_limits(Limits { bytes: usize::MAX });
    decoder.set_transformations(Transformations::IDENTITY);
    let mut reader = decoder.read_info().map_err(damaged)?;
    let info = reader.info();
    if info.size() != (header.width, header.height) {
        return Err(undecodable("its header is inconsistent"));
    }
    let mut converter = Converter::new(info.color_type, info.bit_depth, info.palette.as_deref(), header.width)?;
    let (row_bytes, pixel_bits) = (info.raw_row_length() - 1, info.bits_per_pixel() as u8);
    let interlaced = info.interlaced;
    let stored_rows = if interlaced {
        // The passes of images below 8 bits are merged into the frame, so it must be clear.
        cancel.zeros(frame, row_bytes * header.height as usize)?;
        ADAM7.iter().map(|pass| pass.rows(header)).sum()
    } else {
        header.height
    };
    for _ in 0..stored_rows {
        cancel.check()?;
        let row = reader.next_interlaced_row().map_err(damaged)?;
        let row = row.ok_or_else(|| undecodable("rows are missing"))?;
        match row.interlace() {
            InterlaceInfo::Null(_) => sink.row(converter.rgb(row.data())),
            InterlaceInfo::Adam7(info) => {
                expand_interlaced_row(frame, row_bytes, row.data(), info, pixel_bits);
            }
        }
    }
    // Reads to the end of the compressed stream, where its checksum is; limited, since the stream may continue for
    // gigabytes.
    position.end.set(position.at.get().saturating_add(MAX_TAIL_BYTES));
    reader.next_row().map_err(damaged)?;
    if interlaced {
        for row in frame.chunks_exact(row_bytes) {
            cancel.check()?;
            sink.row(converter.rgb(row));
        }
    }
    if !chunks(bytes).any(|(kind, _)| kind == b"IEND") {
        return Err(undecodable("it is truncated"));
    }
    Ok(())
}

/// One pass of interlacing: every `step_y`-th row from `y`, and in it every `step_x`-th pixel from `x`.
struct Pass {
    x: u32,
    y: u32,
    step_y: u32,
}

impl Pass {
    /// Number of stored rows of the pass; empty rows are not stored.
    fn rows(&self, header: &Header) -> u32 {
        if header.width > self.x { header.height.saturating_sub(self.y).div_ceil(self.step_y) } else { 0 }
    }
}

/// PNG specification section 8.2.
#[rustfmt::skip]
const ADAM7: [Pass; 7] = [
    Pass { x: 0, y: 0, step_y: 8 },
    Pass { x: 4, y: 0, step_y: 8 },
    Pass { x: 0, y: 4, step_y: 8 },
    Pass { x: 2, y: 0, step_y: 4 },
    Pass { x: 0, y: 2, step_y: 4 },
    Pass { x: 1, y: 0, step_y: 2 },
    Pass { x: 0, y: 1, step_y: 2 },
];

/// Input bytes per decoder step: they expand at most a thousandfold.
const STEP_BYTES: usize = 4096;

/// The decoder's input: it can be made to end early, and fails once cancelled.
struct Input<'a> {
    bytes: &'a [u8],
    position: Rc<Position>,
    cancel: &'a Cancel,
}

struct Position {
    /// Bytes consumed.
    at: Cell<usize>,
    /// End of the input.
    end: Cell<usize>,
}

impl Default for Position {
    fn default() -> Self {
        Self { at: Cell::new(0), end: Cell::new(usize::MAX) }
    }
}

impl BufRead for Input<'_> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.cancel.check().map_err(io::Error::other)?;
        let at = self.position.at.get();
        let end = self.position.end.get().min(self.bytes.len()).min(at.saturating_add(STEP_BYTES));
        Ok(self.bytes.get(at..end).unwrap_or_default())
    }

    fn consume(&mut self, amount: usize) {
        self.position.at.set(self.position.at.get().saturating_add(amount));
    }
}

impl io::Read for Input<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = io::Read::read(&mut self.fill_buf()?, buffer)?;
        self.consume(read);
        Ok(read)
    }
}

/// Required by the decoder's signature; it only reads forward.
impl io::Seek for Input<'_> {
    fn seek(&mut self, _: io::SeekFrom) -> io::Result<u64> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

/// Converts raw rows of one colour type to RGB as Pillow does.
struct Converter {
    color: ColorType,
    depth: u8,
    palette: Palette,
    /// One byte a sample.
    samples: Vec<u8>,
    rgb: Vec<u8>,
}

impl Converter {
    fn new(color: ColorType, depth: BitDepth, palette: Option<&[u8]>, width: u32) -> Result<Self, ImageError> {
        if color == ColorType::Indexed && palette.is_none() {
            return Err(undecodable("it has no palette"));
        }
        Ok(Self {
            color,
            depth: depth as u8,
            palette: Palette::from_rgb(palette.unwrap_or_default()),
            samples: vec![0; width as usize * color.samples()],
            rgb: vec![0; width as usize * 3],
        })
    }

    fn rgb<'a>(&'a mut self, row: &'a [u8]) -> &'a [u8] {
        let samples = match self.depth {
            8 => row,
            16 => {
                // The high byte; scaling to 8 bits with rounding would differ.
                for (sample, wide) in self.samples.iter_mut().zip(row.chunks_exact(2)) {
                    *sample = wide.first().copied().unwrap_or_default();
                }
                &self.samples
            }
            bits => {
                colour::unpack_row(row, bits, &mut self.samples);
                if self.color == ColorType::Grayscale {
                    let scale = 255 / ((1 << bits) - 1);
                    self.samples.iter_mut().for_each(|v| *v *= scale);
                }
                &self.samples
            }
        };
        match self.color {
            ColorType::Grayscale => colour::grey_row(samples, &mut self.rgb),
            ColorType::Indexed => self.palette.row(samples, &mut self.rgb),
            ColorType::GrayscaleAlpha => {
                for (pixel, out) in samples.chunks_exact(2).zip(self.rgb.chunks_exact_mut(3)) {
                    out.fill(pixel.first().copied().unwrap_or_default());
                }
            }
            ColorType::Rgb => return samples,
            ColorType::Rgba => colour::first_three_row(samples, 4, &mut self.rgb),
        }
        &self.rgb
    }
}
