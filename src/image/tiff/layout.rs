use super::{undecodable, unsupported};
use crate::image::ImageError;
use crate::image::ifd::{self, ByteOrder, Entry, Tiff};
use crate::image::jpeg::{Embedded, Stored};
use crate::image::orientation::Orientation;

const IMAGE_WIDTH: u16 = 256;
const IMAGE_LENGTH: u16 = 257;
const BITS_PER_SAMPLE: u16 = 258;
const COMPRESSION: u16 = 259;
const PHOTOMETRIC: u16 = 262;
const FILL_ORDER: u16 = 266;
const STRIP_OFFSETS: u16 = 273;
const SAMPLES_PER_PIXEL: u16 = 277;
const ROWS_PER_STRIP: u16 = 278;
const STRIP_BYTE_COUNTS: u16 = 279;
const PLANAR_CONFIGURATION: u16 = 284;
const PREDICTOR: u16 = 317;
const COLOR_MAP: u16 = 320;
const TILE_WIDTH: u16 = 322;
const TILE_LENGTH: u16 = 323;
const TILE_OFFSETS: u16 = 324;
const TILE_BYTE_COUNTS: u16 = 325;
const EXTRA_SAMPLES: u16 = 338;
const SAMPLE_FORMAT: u16 = 339;
const JPEG_TABLES: u16 = 347;

/// A value of the tag PHOTOMETRIC.
const YCBCR: u32 = 6;

/// Pillow's MAX_SAMPLESPERPIXEL.
const MAX_SAMPLES: u32 = 6;

/// Limit of strips or tiles: each needs the set-up of a decompressor, whatever its size.
const MAX_CHUNKS: usize = 1 << 16;

/// Four quantisation and eight Huffman tables are smaller; they are parsed again for each strip.
const MAX_JPEG_TABLES_BYTES: usize = 1 << 13;

/// Colour model of the samples.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Colour {
    /// First sample is grey, or one minus grey.
    Grey { inverted: bool },
    /// First sample is an index.
    Palette,
    /// First three samples.
    Rgb,
    /// First three samples, multiplied by the fourth.
    PremultipliedRgb,
    /// First four samples, not inverted.
    Cmyk,
}

/// How strips and tiles are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Compression {
    None,
    Lzw,
    Deflate,
    PackBits,
    Jpeg,
}

/// Position of a strip or tile in the image, in pixels.
pub(super) struct Place {
    pub(super) plane: usize,
    pub(super) left: u32,
    pub(super) top: usize,
    /// Rows that belong to the image.
    pub(super) rows: usize,
    /// Rows that are stored.
    pub(super) stored_rows: usize,
}

/// The first directory's description of the pixels.
pub(super) struct Layout {
    /// Stored width in pixels, before orientation.
    pub(super) width: u32,
    /// Stored height in pixels, before orientation.
    pub(super) height: u32,
    pub(super) orientation: Orientation,
    pub(super) colour: Colour,
    /// Bits per sample: 1, 2, 4, 8 or 16.
    pub(super) bits: u8,
    /// Samples per pixel in the interleaved result.
    pub(super) samples: usize,
    pub(super) big_endian: bool,
    pub(super) palette: Vec<[u8; 3]>,
    pub(super) compression: Compression,
    /// Each sample is the difference to its left neighbour's.
    pub(super) differenced: bool,
    /// One plane per sample instead of interleaved samples.
    pub(super) planar: bool,
    /// Size of a strip (as wide as the image) or tile, in pixels.
    pub(super) chunk_width: u32,
    pub(super) chunk_height: u32,
    pub(super) tiled: bool,
    /// Location of each strip or tile in the file: (start, length). Row by row, then plane by plane.
    pub(super) chunks: Vec<(usize, usize)>,
    /// Location of the JPEG tables that all strips share; empty if there are none.
    pub(super) jpeg_tables: (usize, usize),
    /// Colour model of JPEG strips.
    pub(super) jpeg_stored: Stored,
}

impl Layout {
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, ImageError> {
        let tiff = Tiff::new(bytes).ok_or_else(|| unsupported("64-bit offsets (BigTIFF)"))?;
        Tags::read(tiff)?.layout()
    }

    /// Strip or tile `index` if it is a JPEG stream.
    pub(super) fn jpeg_chunk<'a>(&self, bytes: &'a [u8], index: usize) -> Option<Embedded<'a>> {
        if self.compression != Compression::Jpeg {
            return None;
        }
        let part = |(start, length)| bytes.get(start..).and_then(|b: &[u8]| b.get(..length));
        Some(Embedded { tables: part(self.jpeg_tables)?, stream: part(*self.chunks.get(index)?)? })
    }

    /// Bytes of an interleaved row of the image.
    pub(super) fn row_bytes(&self) -> usize {
        self.bytes_for(self.width, self.samples)
    }

    /// Bytes of a row of `width` pixels of `samples` samples, padded to whole bytes.
    pub(super) fn bytes_for(&self, width: u32, samples: usize) -> usize {
        (width as usize * samples * usize::from(self.bits)).div_ceil(8)
    }

    /// Bytes of a row of a strip or tile.
    pub(super) fn chunk_row_bytes(&self) -> usize {
        self.bytes_for(self.chunk_width, self.chunk_samples())
    }

    /// Bytes of a whole strip or tile.
    pub(super) fn chunk_bytes(&self) -> Option<usize> {
        self.chunk_row_bytes().checked_mul(self.chunk_height as usize)
    }

    /// Bytes of a row of the strip or tile at `place` that belong to the image.
    pub(super) fn used_bytes(&self, place: &Place) -> usize {
        let width = self.chunk_width.min(self.width - place.left);
        self.bytes_for(width, self.chunk_samples())
    }

    /// Position of strip or tile `index` of [`Layout::chunks`].
    pub(super) fn place(&self, index: usize) -> Place {
        let across = self.width.div_ceil(self.chunk_width) as usize;
        let down = self.height.div_ceil(self.chunk_height) as usize;
        let (plane, index) = (index / (across * down), index % (across * down));
        let top = index / across * self.chunk_height as usize;
        let rows = (self.chunk_height as usize).min(self.height as usize - top);
        Place {
            plane,
            left: (index % across) as u32 * self.chunk_width,
            top,
            rows,
            // A tile is stored whole, the last strip only up to the image's edge.
            stored_rows: if self.tiled { self.chunk_height as usize } else { rows },
        }
    }

    /// Samples per pixel within one strip or tile.
    pub(super) fn chunk_samples(&self) -> usize {
        if self.planar { 1 } else { self.samples }
    }
}

/// The first directory.
struct Tags<'a> {
    tiff: Tiff<'a>,
    entries: Vec<Entry>,
}

impl<'a> Tags<'a> {
    fn read(tiff: Tiff<'a>) -> Result<Self, ImageError> {
        let entries = tiff.first_directory().ok_or_else(|| undecodable("its directory lies outside the file"))?;
        // At most 65535 entries of 12 bytes, all of them within the file.
        let mut entries: Vec<Entry> = entries.collect();
        entries.sort_by_key(|entry| entry.tag);
        if entries.windows(2).any(|pair| pair[0].tag == pair[1].tag) {
            return Err(undecodable("its directory defines a tag twice"));
        }
        Ok(Self { tiff, entries })
    }

    fn find(&self, tag: u16) -> Option<&Entry> {
        let index = self.entries.binary_search_by_key(&tag, |entry| entry.tag);
        self.entries.get(index.ok()?)
    }

    /// All values of a tag, `None` if it is absent; `most` limits the count.
    fn values(&self, tag: u16, most: usize) -> Result<Option<Vec<u32>>, ImageError> {
        let Some(entry) = self.find(tag) else {
            return Ok(None);
        };
        if entry.count as usize > most {
            return Err(unsupported("a tag with too many values"));
        }
        let values = (0..entry.count).map(|index| self.tiff.unsigned(entry, index));
        let values: Option<Vec<u32>> = values.collect();
        match values {
            Some(values) if !values.is_empty() => Ok(Some(values)),
            _ => Err(undecodable("a tag has no valid value")),
        }
    }

    fn value(&self, tag: u16) -> Result<Option<u32>, ImageError> {
        match self.values(tag, 1)?.as_deref() {
            Some(&[value]) => Ok(Some(value)),
            _ => Ok(None),
        }
    }

    fn required(&self, tag: u16) -> Result<u32, ImageError> {
        self.value(tag)?.ok_or_else(|| undecodable("a required tag is missing"))
    }

    fn layout(&self) -> Result<Layout, ImageError> {
        let width = self.required(IMAGE_WIDTH)?;
        let height = self.required(IMAGE_LENGTH)?;
        let compression = match self.value(COMPRESSION)?.unwrap_or(1) {
            1 => Compression::None,
            5 => Compression::Lzw,
            7 => Compression::Jpeg,
            8 | 32946 => Compression::Deflate,
            32773 => Compression::PackBits,
            2..=4 => return Err(unsupported("fax compression")),
            _ => return Err(unsupported("its compression")),
        };
        if self.value(FILL_ORDER)?.unwrap_or(1) != 1 {
            return Err(unsupported("reversed bits (FillOrder 2)"));
        }
        let planar = match self.value(PLANAR_CONFIGURATION)?.unwrap_or(1) {
            1 => false,
            2 => true,
            _ => return Err(undecodable("its planar configuration")),
        };
        let differenced = match self.value(PREDICTOR)?.unwrap_or(1) {
            1 => false,
            2 => matches!(compression, Compression::Lzw | Compression::Deflate),
            _ => return Err(unsupported("its predictor")),
        };
        let (colour, bits, samples) = self.samples(compression)?;
        let jpeg_layout = matches!((colour, samples), (Colour::Grey { .. }, 1) | (Colour::Rgb, 3) | (Colour::Cmyk, 4));
        if compression == Compression::Jpeg && (bits != 8 || !jpeg_layout) {
            return Err(unsupported("its colour layout"));
        }
        if differenced && bits < 8 {
            return Err(unsupported("a predictor on less than 8 bits"));
        }
        if planar {
            // Pillow opens few other layouts, and misreads uncompressed 16-bit planes.
            let plain = (colour == Colour::Rgb && samples == 3) || (colour == Colour::Cmyk && samples == 4);
            let misread = bits == 16 && compression == Compression::None;
            if !plain || misread || compression == Compression::Jpeg {
                return Err(unsupported("its planar layout"));
            }
        }
        let orientation = self.value(ifd::ORIENTATION)?.unwrap_or(1);
        let orientation = match u8::try_from(orientation) {
            Ok(value @ 1..=8) => Orientation(value),
            _ => Orientation(1),
        };
        let palette = if colour == Colour::Palette { self.palette()? } else { Vec::new() };
        let jpeg_tables = self.find(JPEG_TABLES).map_or((0, 0), Entry::bytes);
        if jpeg_tables.1 > MAX_JPEG_TABLES_BYTES {
            return Err(undecodable("its JPEG tables are too long"));
        }
        let mut layout = Layout {
            width,
            height,
            orientation,
            colour,
            bits,
            samples,
            big_endian: self.tiff.order() == ByteOrder::Big,
            palette,
            compression,
            differenced,
            planar,
            chunk_width: width,
            chunk_height: height,
            tiled: false,
            chunks: Vec::new(),
            jpeg_tables,
            jpeg_stored: match (colour, self.value(PHOTOMETRIC)?) {
                (Colour::Cmyk, _) => Stored::Cmyk,
                (Colour::Rgb, Some(YCBCR)) => Stored::YCbCr,
                (Colour::Rgb | Colour::PremultipliedRgb, _) => Stored::Rgb,
                (Colour::Grey { .. } | Colour::Palette, _) => Stored::Grey,
            },
        };
        self.chunks(&mut layout)?;
        Ok(layout)
    }

    /// Colour, bits per sample and stored samples per pixel: Pillow's OPEN_INFO without the inexact modes.
    fn samples(&self, compression: Compression) -> Result<(Colour, u8, usize), ImageError> {
        let count = self.value(SAMPLES_PER_PIXEL)?.unwrap_or(1);
        if !(1..=MAX_SAMPLES).contains(&count) {
            return Err(unsupported("its number of samples"));
        }
        let most = MAX_SAMPLES as usize;
        let bits = self.values(BITS_PER_SAMPLE, most)?.unwrap_or(vec![1]);
        let format = self.values(SAMPLE_FORMAT, most)?.unwrap_or(vec![1]);
        let extra = self.values(EXTRA_SAMPLES, most)?.unwrap_or_default();
        let photometric = self.value(PHOTOMETRIC)?.unwrap_or(0);
        let (&first, rest) = bits.split_first().unwrap_or((&0, &[]));
        // A single value applies to all samples; surplus values are ignored.
        let rest = rest.get(..count as usize - 1).or(rest.is_empty().then_some(rest));
        if !rest.is_some_and(|rest| rest.iter().all(|&b| b == first)) {
            return Err(unsupported("samples of different depths"));
        }
        if format.iter().any(|&f| f != 1) {
            return Err(unsupported("samples that are not unsigned integers"));
        }
        let rgb_extra = count.saturating_sub(3) as usize;
        let colour = match (photometric, first, count, extra.as_slice()) {
            (0 | 1, 1 | 2 | 4 | 8, 1, []) => Colour::Grey { inverted: photometric == 0 },
            (1, 8, 2, [2]) => Colour::Grey { inverted: false },
            (0 | 1, 9.., 1, _) => {
                return Err(unsupported("more than 8-bit greyscale, which the reference clips to white"));
            }
            (2, 8 | 16, 3 | 4, []) => Colour::Rgb,
            (2, 8, 4, [999]) => Colour::Rgb,
            (2, 8, 4..=6, [first, others @ ..]) | (2, 16, 4, [first, others @ ..])
                if extra.len() == rgb_extra && others.iter().all(|&e| e == 0) =>
            {
                match first {
                    0 | 2 => Colour::Rgb,
                    1 => Colour::PremultipliedRgb,
                    _ => return Err(unsupported("its extra samples")),
                }
            }
            (3, 1 | 2 | 4 | 8, 1, []) | (3, 8, 2, [2]) => Colour::Palette,
            (5, 8 | 16, 4, []) | (5, 8, 5, [0]) | (5, 8, 6, [0, 0]) => Colour::Cmyk,
            // libjpeg converts it to RGB.
            (YCBCR, 8, 3, []) if compression == Compression::Jpeg => Colour::Rgb,
            _ => return Err(unsupported("its colour layout")),
        };
        Ok((colour, first as u8, count as usize))
    }

    /// The high bytes of all reds, then all greens, then all blues.
    fn palette(&self) -> Result<Vec<[u8; 3]>, ImageError> {
        let values = self.values(COLOR_MAP, 3 * 256)?.ok_or_else(|| undecodable("it has no palette"))?;
        let (red, rest) = values.split_at(values.len() / 3);
        let (green, blue) = rest.split_at(rest.len() / 2);
        let colours = red.iter().zip(green).zip(blue);
        Ok(colours.map(|((r, g), b)| [r, g, b].map(|v| (v >> 8) as u8)).collect())
    }

    /// Size and location of strips or tiles.
    fn chunks(&self, layout: &mut Layout) -> Result<(), ImageError> {
        let (offsets, lengths) = if self.find(STRIP_OFFSETS).is_some() {
            let rows = self.value(ROWS_PER_STRIP)?.unwrap_or(layout.height);
            layout.chunk_height = rows.min(layout.height);
            (STRIP_OFFSETS, STRIP_BYTE_COUNTS)
        } else {
            layout.tiled = true;
            layout.chunk_width = self.required(TILE_WIDTH)?;
            layout.chunk_height = self.required(TILE_LENGTH)?;
            (TILE_OFFSETS, TILE_BYTE_COUNTS)
        };
        if layout.width == 0 || layout.height == 0 {
            return Err(undecodable("the header says that it has no pixels"));
        }
        if layout.chunk_width == 0 || layout.chunk_height == 0 {
            return Err(undecodable("its strips have no pixels"));
        }
        let across = layout.width.div_ceil(layout.chunk_width) as usize;
        let down = layout.height.div_ceil(layout.chunk_height) as usize;
        let planes = if layout.planar { layout.samples } else { 1 };
        let expected = across.saturating_mul(down).saturating_mul(planes);
        if expected > MAX_CHUNKS {
            return Err(unsupported("too many strips"));
        }
        let offsets = self.values(offsets, MAX_CHUNKS)?.unwrap_or_default();
        let lengths = self.values(lengths, MAX_CHUNKS)?;
        // Uncompressed strips may lack lengths; Pillow ignores them.
        let lengths = match lengths {
            None if layout.compression == Compression::None => vec![0; offsets.len()],
            lengths => lengths.unwrap_or_default(),
        };
        if offsets.len() != expected || lengths.len() != expected {
            return Err(undecodable("the number of its strips is wrong"));
        }
        // Each compressed byte may be read only once: strips that share bytes could each cost the whole file's length.
        let total: u64 = lengths.iter().map(|&length| u64::from(length)).sum();
        if layout.compression != Compression::None && total > self.tiff.len() as u64 {
            return Err(undecodable("its strips overlap or lie outside the file"));
        }
        let places = offsets.iter().zip(&lengths);
        layout.chunks = places.map(|(&o, &l)| (o as usize, l as usize)).collect();
        Ok(())
    }
}
