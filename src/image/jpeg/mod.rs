//! JPEG through libjpeg-turbo with the reference's settings: accurate integer IDCT, smooth ("fancy")
//! chroma upsampling, full scale.

mod markers;
mod quality;
mod turbo;

use super::rows::RowSink;
use super::{Encoding, Format, Header, ImageError, colour, ifd};
use markers::{Segment, Segments};
use turbo::{Layout, Outcome};

const SOF: std::ops::RangeInclusive<u8> = 0xc0..=0xcf;
/// Not frames, though numbered among them: huffman tables, reserved, arithmetic conditioning.
const NOT_SOF: [u8; 3] = [0xc4, 0xc8, 0xcc];
/// Baseline, extended, progressive, lossless; then extended and progressive with arithmetic coding.
const DECODABLE_SOF: [u8; 6] = [0xc0, 0xc1, 0xc2, 0xc3, 0xc9, 0xca];

fn undecodable(reason: &'static str) -> ImageError {
    Format::Jpeg.undecodable(reason)
}

fn unsupported(reason: &'static str) -> ImageError {
    Format::Jpeg.unsupported(reason)
}

/// The fields of a frame header (T.81 B.2.2).
#[derive(Clone, Copy)]
struct Frame {
    width: u32,
    height: u32,
    components: u8,
    luma_table: u8,
    lossless: bool,
}

impl Frame {
    fn parse(marker: u8, body: &[u8]) -> Result<Self, ImageError> {
        let short = || undecodable("its frame header is cut short");
        let &[precision, h1, h0, w1, w0, components, ..] = body else {
            return Err(short());
        };
        if precision != 8 {
            return Err(unsupported("only 8 bits a sample are read"));
        }
        if !matches!(components, 1 | 3 | 4) {
            return Err(unsupported("only 1, 3 or 4 components are read"));
        }
        if !DECODABLE_SOF.contains(&marker) {
            return Err(unsupported("a rare coding process (hierarchical or lossless)"));
        }
        Ok(Self {
            width: u16::from_be_bytes([w1, w0]).into(),
            height: u16::from_be_bytes([h1, h0]).into(),
            components,
            luma_table: *body.get(8).ok_or_else(short)?,
            lossless: marker == 0xc3,
        })
    }
}

/// What stands before the first scan.
struct Preamble {
    frame: Frame,
    exif_orientation: u8,
    quality: Option<u8>,
}

fn preamble(bytes: &[u8]) -> Result<Preamble, ImageError> {
    let mut frame = None;
    let mut exif_orientation = None;
    let mut tables = quality::Tables::default();
    for Segment { marker, body } in Segments::new(bytes) {
        match marker {
            0xda => break,
            0xdb => tables.define(body),
            0xe1 if exif_orientation.is_none() => {
                exif_orientation = body.strip_prefix(b"Exif\0\0").map(ifd::exif_orientation);
            }
            _ if SOF.contains(&marker) && !NOT_SOF.contains(&marker) => {
                if frame.is_some() {
                    return Err(undecodable("it has two frame headers"));
                }
                frame = Some(Frame::parse(marker, body)?);
            }
            _ => {}
        }
    }
    let frame = frame.ok_or_else(|| undecodable("it has no frame header"))?;
    Ok(Preamble { frame, exif_orientation: exif_orientation.unwrap_or(1), quality: tables.quality(frame.luma_table) })
}

pub(super) fn inspect(bytes: &[u8]) -> Result<Header, ImageError> {
    let Preamble { frame, exif_orientation, quality } = preamble(bytes)?;
    Ok(Header {
        format: Format::Jpeg,
        width: frame.width,
        height: frame.height,
        exif_orientation,
        encoding: if frame.lossless { Encoding::Lossless } else { Encoding::Lossy { quality } },
    })
}

pub(super) fn decode(
    bytes: &[u8],
    header: &Header,
    frame: &mut Vec<u8>,
    sink: &mut dyn RowSink,
) -> Result<(), ImageError> {
    let components = preamble(bytes)?.frame.components;
    let layout = if components == 4 { Layout::Cmyk } else { Layout::Rgb };
    let row_bytes = header.width as usize * layout.bytes_per_pixel();
    frame.resize(row_bytes * header.height as usize, 0);
    let outcome = turbo::decompress(bytes, header.width, header.height, layout, frame)
        .map_err(|turbo::Failure| undecodable("its data is damaged"))?;
    // The library names its first warning only, so a later "premature end" has to be found here.
    let truncated = match outcome {
        Outcome::Clean => false,
        Outcome::PrematureEnd => true,
        Outcome::OtherWarning => !markers::ends_properly(bytes),
    };
    if truncated {
        return Err(undecodable("it is truncated"));
    }
    match layout {
        Layout::Rgb => frame.chunks_exact(row_bytes).for_each(|row| sink.row(row)),
        Layout::Cmyk => {
            let mut rgb = vec![0; header.width as usize * 3];
            for row in frame.chunks_exact_mut(row_bytes) {
                // Pillow takes every four-component JPEG as Adobe's inverted CMYK ("CMYK;I").
                row.iter_mut().for_each(|ink| *ink = !*ink);
                colour::cmyk_row(row, 4, &mut rgb);
                sink.row(&rgb);
            }
        }
    }
    Ok(())
}
