//! JPEG through libjpeg-turbo with the reference's settings: accurate integer IDCT, smooth ("fancy")
//! chroma upsampling, full scale.

mod cost;
mod markers;
mod quality;
mod reader;
mod restarts;
#[cfg(test)]
mod tests;

use std::time::Duration;

use super::rows::RowSink;
use super::{Cancel, Encoding, Format, Header, ImageError, colour, cost as image_cost, ifd};
pub(super) use markers::{SOS, Segment, Segments};
use reader::{Expected, Layout, Reader};
use restarts::{Part, Restarts};

pub(super) use reader::{Failure, Stored};

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
    progressive: bool,
    arithmetic: bool,
    /// Width and height in pixels of an MCU, the unit of a scan of all components.
    unit: [u32; 2],
    /// Id and number of blocks of each component.
    blocks: [(u8, u64); 4],
    /// Bytes of all coefficients, 2 each, in whole blocks.
    coefficient_bytes: u64,
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
        let (width, height) = (u16::from_be_bytes([w1, w0]), u16::from_be_bytes([h1, h0]));
        let specifications = body.get(6..).unwrap_or_default().as_chunks::<3>().0.iter();
        let specifications = specifications.take(components.into());
        let factors = specifications.clone().map(|&[_, f, _]| [f >> 4, f & 15].map(u64::from));
        let most = |axis: usize| factors.clone().map(|f| f[axis]).max().unwrap_or(1).max(1);
        let most = [most(0), most(1)];
        // Sizes are padded to a whole interleaved unit of at most 4 x 4 blocks.
        let padded = |size: u16, factor: u64, most: u64| (u64::from(size) * factor).div_ceil(most) + 32;
        let coefficient_bytes =
            factors.clone().map(|f| 2 * padded(width, f[0], most[0]) * padded(height, f[1], most[1])).sum();
        let mut blocks = [(0, 0); 4];
        for (own, (&[id, ..], f)) in blocks.iter_mut().zip(specifications.zip(factors)) {
            let across = (u64::from(width) * f[0]).div_ceil(8 * most[0]);
            *own = (id, across * (u64::from(height) * f[1]).div_ceil(8 * most[1]));
        }
        Ok(Self {
            width: width.into(),
            height: height.into(),
            components,
            luma_table: *body.get(8).ok_or_else(short)?,
            lossless: marker == 0xc3,
            progressive: matches!(marker, 0xc2 | 0xca),
            arithmetic: matches!(marker, 0xc9 | 0xca),
            unit: if components == 1 { [8, 8] } else { most.map(|most| 8 * most as u32) },
            blocks,
            coefficient_bytes,
        })
    }

    /// MCUs across and down.
    fn units(&self) -> [usize; 2] {
        [self.width.div_ceil(self.unit[0]), self.height.div_ceil(self.unit[1])].map(|units| units as usize)
    }

    /// Upper bound of the library's row buffers: fewer than 48 rows of each component, padded to whole blocks.
    fn rows_bytes(&self) -> u64 {
        48 * (u64::from(self.width) + 64) * u64::from(self.components)
    }

    fn layout(&self) -> Layout {
        if self.components == 4 { Layout::Cmyk } else { Layout::Rgb }
    }
}

/// Everything before the first scan.
struct Preamble {
    frame: Frame,
    exif_orientation: u8,
    /// Number of pictures in a multi-picture file (MPO).
    frames: u32,
    quality: Option<u8>,
    /// libjpeg keeps all coefficients until the last scan.
    many_scans: bool,
}

fn preamble<'a>(segments: impl Iterator<Item = Segment<'a>>) -> Result<Preamble, ImageError> {
    let mut frame = None;
    let mut exif_orientation = None;
    let mut frames = 1;
    let mut tables = quality::Tables::default();
    let mut first_scan_components = None;
    for Segment { marker, body } in segments {
        match marker {
            SOS => {
                first_scan_components = body.first().copied();
                break;
            }
            0xdb => tables.define(body),
            0xe1 if exif_orientation.is_none() => {
                exif_orientation = body.strip_prefix(b"Exif\0\0").map(ifd::exif_orientation);
            }
            0xe2 => {
                if let Some(index) = body.strip_prefix(b"MPF\0") {
                    frames = ifd::multi_picture_frames(index).max(1);
                }
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
    Ok(Preamble {
        frame,
        exif_orientation: exif_orientation.unwrap_or(1),
        frames,
        quality: tables.quality(frame.luma_table),
        many_scans: frame.progressive || first_scan_components != Some(frame.components),
    })
}

pub(super) fn inspect(bytes: &[u8]) -> Result<Header, ImageError> {
    let Preamble { frame, exif_orientation, frames, quality, many_scans } = preamble(Segments::new(bytes))?;
    let [pixels, samples, rest @ ..] = cost::terms(bytes, &frame, many_scans);
    let rows = [(u64::from(frame.width) * u64::from(frame.height), image_cost::ROW_PIXEL), pixels, samples];
    // That restart markers save more is not promised: whether they can be used is only known after all of the file.
    let skips = !frame.lossless && (many_scans || !frame.arithmetic);
    Ok(Header {
        format: Format::Jpeg,
        width: frame.width,
        height: frame.height,
        exif_orientation,
        frames,
        encoding: if frame.lossless { Encoding::Lossless } else { Encoding::Lossy { quality } },
        peak_bytes: frame.rows_bytes() + if many_scans { frame.coefficient_bytes } else { 0 },
        cost: image_cost::cost(&[&rows[..], &rest].concat()),
        row_cost: if skips { image_cost::time(&rows) } else { Duration::ZERO },
    })
}

pub(super) fn decode(bytes: &[u8], header: &Header, sink: &mut dyn RowSink, cancel: &Cancel) -> Result<(), ImageError> {
    let Preamble { frame, many_scans, .. } = preamble(Segments::new(bytes))?;
    // Of arithmetic coding there are no files with restart markers to try it on.
    let can_be_entered = !many_scans && !frame.lossless && !frame.arithmetic && sink.unused() > 0;
    let restarts = if can_be_entered { Restarts::find(bytes, &frame, cancel)? } else { None };
    let mut part = Some(Part { row: 0, head: Vec::new(), data: bytes });
    while let Some(this) = part {
        part = decode_part(&this, &frame, restarts.as_ref(), header, sink, cancel)?;
    }
    Ok(())
}

/// Decodes until a later part, which is returned, has the next rows that the sink looks at.
fn decode_part<'a>(
    part: &Part<'a>,
    frame: &Frame,
    restarts: Option<&Restarts<'a>>,
    header: &Header,
    sink: &mut dyn RowSink,
    cancel: &Cancel,
) -> Result<Option<Part<'a>>, ImageError> {
    let layout = frame.layout();
    let expected = Expected {
        width: header.width,
        height: header.height - part.row,
        layout,
        stored: None,
        coefficient_bytes: frame.coefficient_bytes,
    };
    let mut reader = Reader::start([&part.head, part.data], &expected, cancel)?;
    let mut row = vec![0; header.width as usize * layout.bytes_per_pixel()];
    let mut rgb = vec![0; if layout == Layout::Cmyk { header.width as usize * 3 } else { 0 }];
    let mut y = part.row;
    while y < header.height {
        let unused = sink.unused();
        if unused > 0
            && let Some(restarts) = restarts
        {
            let needed = y.saturating_add(unused);
            if needed >= header.height {
                // All markers up to the last are where they should be: nothing is truncated.
                return Ok(None);
            }
            if let Some(later) = restarts.part(y, needed) {
                sink.skip(later.row - y);
                return Ok(Some(later));
            }
        }
        // The library cannot skip rows of lossless images.
        if unused > 0 && !frame.lossless {
            let skipped = reader.skip(unused)?;
            sink.skip(skipped);
            y += skipped;
        }
        reader.row(&mut row)?;
        y += 1;
        if layout == Layout::Cmyk {
            // Pillow treats every four-component JPEG as Adobe's inverted CMYK ("CMYK;I").
            row.iter_mut().for_each(|ink| *ink = !*ink);
            colour::cmyk_row(&row, 4, &mut rgb);
            sink.row(&rgb);
        } else {
            sink.row(&row);
        }
    }
    if reader.finish()?.truncated {
        return Err(undecodable("it is truncated"));
    }
    Ok(None)
}

impl From<Failure> for ImageError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Damaged => undecodable("its data is damaged"),
            Failure::TooManyScans => undecodable("it has too many scans"),
            Failure::Cancelled => Self::Cancelled,
            Failure::OutOfMemory => Self::OutOfMemory,
        }
    }
}

/// A strip or tile of a TIFF: a JPEG stream whose tables may be stored separately, shared by all strips.
#[derive(Clone, Copy)]
pub(super) struct Embedded<'a> {
    /// A stream of tables only, or nothing.
    pub(super) tables: &'a [u8],
    /// The strip's own stream.
    pub(super) stream: &'a [u8],
}

impl Embedded<'_> {
    /// The quality estimated from the luma quantisation table.
    pub(super) fn quality(&self) -> Option<u8> {
        let segments = Segments::new(self.tables).chain(Segments::new(self.stream));
        preamble(segments).ok()?.quality
    }

    /// Counts and the time of each, and the memory of decoding besides the samples.
    pub(super) fn work(&self) -> Option<([(u64, f64); 5], u64)> {
        // The tables are not needed for this.
        let Preamble { frame, many_scans, .. } = preamble(Segments::new(self.stream)).ok()?;
        let peak = frame.rows_bytes() + if many_scans { frame.coefficient_bytes } else { 0 };
        Some((cost::terms(self.stream, &frame, many_scans), peak + self.stream.len() as u64))
    }

    /// Decodes to RGB, CMYK or grey samples according to `stored`; fails if anything is unusual.
    pub(super) fn decode(
        &self,
        width: u32,
        height: u32,
        stored: Stored,
        out: &mut [u8],
        cancel: &Cancel,
    ) -> Result<(), Failure> {
        const START: &[u8] = &[0xff, 0xd8];
        const END: &[u8] = &[0xff, 0xd9];
        // The TIFF tags define the components' meaning; libjpeg takes it from an Adobe marker.
        let transform = u8::from(stored == Stored::YCbCr);
        let adobe = [b"\xff\xee\0\x0eAdobe\0\x64\0\0\0\0".as_slice(), &[transform]].concat();
        let tables = self.tables.strip_prefix(START).unwrap_or_default();
        let tables = tables.strip_suffix(END).unwrap_or(tables);
        let stream = self.stream.strip_prefix(START).ok_or(Failure::Damaged)?;
        let jpeg = [START, &adobe, tables, stream].concat();
        let coefficient_bytes = preamble(Segments::new(&jpeg)).map_err(|_| Failure::Damaged)?.frame.coefficient_bytes;
        let layout = stored.layout();
        let expected = Expected { width, height, layout, stored: Some(stored), coefficient_bytes };
        let mut reader = Reader::start([&jpeg, &[]], &expected, cancel)?;
        let row_bytes = width as usize * layout.bytes_per_pixel();
        let mut rows = out.chunks_exact_mut(row_bytes);
        for _ in 0..height {
            reader.row(rows.next().ok_or(Failure::Damaged)?)?;
        }
        if reader.finish()?.warned { Err(Failure::Damaged) } else { Ok(()) }
    }
}
