//! PNG, non-interlaced ones row by row.

use std::io::Cursor;

use ::png::{BitDepth, ColorType, DecodeOptions, Decoder, Limits, Transformations};

use super::colour::{self, Palette};
use super::rows::RowSink;
use super::{Encoding, Format, Header, ImageError, ifd};

const SIGNATURE_BYTES: usize = 8;

fn undecodable(reason: &'static str) -> ImageError {
    Format::Png.undecodable(reason)
}

/// The chunks as (type, data), up to where the bytes end.
fn chunks(bytes: &[u8]) -> impl Iterator<Item = (&[u8; 4], &[u8])> {
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
    let exif_orientation = chunks
        .take_while(|(kind, _)| *kind != b"IDAT")
        .find(|(kind, _)| *kind == b"eXIf")
        .map_or(1, |(_, data)| ifd::exif_orientation(data));
    let (width, height) = (u32::from_be_bytes([w0, w1, w2, w3]), u32::from_be_bytes([h0, h1, h2, h3]));
    let samples = ColorType::from_u8(colour).map_or(1, ColorType::samples) as u64;
    let row_bytes = (u64::from(width) * samples * u64::from(depth)).div_ceil(8);
    Ok(Header {
        format: Format::Png,
        width,
        height,
        exif_orientation,
        encoding: Encoding::Lossless,
        // Without interlacing a few rows suffice.
        peak_bytes: row_bytes.saturating_mul(if interlace == 0 { 8 } else { u64::from(height) + 8 }),
    })
}

pub(super) fn decode(
    bytes: &[u8],
    header: &Header,
    frame: &mut Vec<u8>,
    sink: &mut dyn RowSink,
) -> Result<(), ImageError> {
    let damaged = |_| undecodable("its data is damaged or truncated");
    let mut options = DecodeOptions::default();
    // Neither is used, and a few bytes of either can expand to megabytes.
    options.set_ignore_text_chunk(true);
    options.set_ignore_iccp_chunk(true);
    // Pillow checks both.
    options.set_ignore_adler32(false);
    options.set_skip_ancillary_crc_failures(false);
    let mut decoder = Decoder::new_with_options(Cursor::new(bytes), options);
    decoder.set_limits(Limits { bytes: usize::MAX });
    decoder.set_transformations(Transformations::IDENTITY);
    let mut reader = decoder.read_info().map_err(damaged)?;
    let info = reader.info();
    if info.size() != (header.width, header.height) {
        return Err(undecodable("its header is inconsistent"));
    }
    let mut converter = Converter::new(info.color_type, info.bit_depth, info.palette.as_deref(), header.width)?;
    if info.interlaced {
        let needed = reader.output_buffer_size().ok_or_else(|| undecodable("it is too large"))?;
        // The passes of images below 8 bits are merged into the buffer, so it must be clear.
        frame.clear();
        frame.resize(needed, 0);
        let layout = reader.next_frame(frame).map_err(damaged)?;
        for row in frame.chunks_exact(layout.line_size) {
            sink.row(converter.rgb(row));
        }
    } else {
        for _ in 0..header.height {
            let row = reader.next_row().map_err(damaged)?.ok_or_else(|| undecodable("rows are missing"))?;
            sink.row(converter.rgb(row.data()));
        }
        // Reads to the end of the compressed stream, where its checksum is.
        reader.next_row().map_err(damaged)?;
    }
    if !chunks(bytes).any(|(kind, _)| kind == b"IEND") {
        return Err(undecodable("it is truncated"));
    }
    Ok(())
}

/// Turns raw rows of one colour type into RGB as Pillow does.
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
