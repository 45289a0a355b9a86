//! Where a file keeps what it says of itself: the blocks of metadata, found without decoding a pixel.

use std::borrow::Cow;

use super::{
    Format,
    boxes::{self, Block},
    gif,
    ifd::{self, Tiff},
    jpeg::{self, SOS, Segment, Segments},
    png, webp,
};

/// A block of metadata, as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Metadata<'a> {
    /// EXIF: a TIFF structure.
    Exif(&'a [u8]),
    /// A packet of XMP.
    Xmp(Cow<'a, [u8]>),
    /// Photoshop's image resources, one of which is IPTC's.
    Photoshop(&'a [u8]),
    /// IPTC's datasets (IIM).
    Iptc(&'a [u8]),
    /// A text of a PNG: its keyword and the rest of its chunk.
    Text {
        /// `tEXt`, `zTXt` or `iTXt`.
        chunk: &'a [u8; 4],
        /// What it is called.
        keyword: &'a [u8],
        /// What follows the keyword.
        rest: &'a [u8],
    },
    /// A C2PA manifest store.
    C2pa(Cow<'a, [u8]>),
}

/// Blocks that are looked at: no honest file has so many.
const MOST_BLOCKS: usize = 1024;

/// The blocks of a file, in its order; what is split over several segments is joined.
pub fn metadata(bytes: &[u8], format: Format) -> Vec<Metadata<'_>> {
    match format {
        Format::Jpeg => of_jpeg(bytes),
        Format::Png => png::chunks(bytes).filter_map(|(kind, data)| of_png(kind, data)).take(MOST_BLOCKS).collect(),
        Format::WebP => {
            webp::file_chunks(bytes).filter_map(|(kind, data)| of_webp(kind, data)).take(MOST_BLOCKS).collect()
        }
        Format::Gif => {
            let blocks = gif::application_blocks(bytes).filter_map(|(name, data)| of_gif(name, data));
            blocks.take(MOST_BLOCKS).collect()
        }
        Format::Tiff => of_tiff(bytes).unwrap_or_default(),
        Format::Avif | Format::Heic => {
            boxes::blocks(bytes).into_iter().filter_map(of_block).take(MOST_BLOCKS).collect()
        }
        Format::Bmp => Vec::new(),
    }
}

/// The tags of an EXIF block's first and EXIF directories whose values are bytes, each with its value.
pub fn exif_fields(exif: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    const EXIF_DIRECTORY: u16 = 0x8769;
    let tiff = Tiff::new(exif);
    let first = move || tiff?.first_directory();
    let place = move || tiff?.unsigned(&first()?.find(|entry| entry.tag == EXIF_DIRECTORY)?, 0);
    let second = place().and_then(|start| tiff?.directory(start as usize));
    let entries = first().into_iter().flatten().chain(second.into_iter().flatten());
    entries.filter_map(move |entry| Some((entry.tag, tiff?.value(&entry)?)))
}

/// Width and height of an EXIF block's thumbnail, if it has one as JPEG (EXIF 3.0 section 4.5.8).
pub fn exif_thumbnail(exif: &[u8]) -> Option<[u32; 2]> {
    const START: u16 = 0x0201;
    const LENGTH: u16 = 0x0202;
    let tiff = Tiff::new(exif)?;
    let second = tiff.directories().nth(1)?;
    let number = |tag| tiff.unsigned(&tiff.directory(second)?.find(|entry| entry.tag == tag)?, 0);
    let header = jpeg::inspect(tiff.bytes(number(START)?, number(LENGTH)?)?).ok()?;
    Some([header.width, header.height])
}

fn of_jpeg(bytes: &[u8]) -> Vec<Metadata<'_>> {
    let mut found = Vec::new();
    let mut extended = Vec::new();
    let mut store: Option<Store<'_>> = None;
    let segments = Segments::new(bytes).take_while(|segment| segment.marker != SOS);
    for Segment { marker, body } in segments.take(MOST_BLOCKS.max(Store::MOST_PARTS)) {
        match marker {
            0xe1 => {
                if let Some(exif) = body.strip_prefix(b"Exif\0\0") {
                    found.push(Metadata::Exif(exif));
                } else if let Some(xmp) = body.strip_prefix(b"http://ns.adobe.com/xap/1.0/\0") {
                    found.push(Metadata::Xmp(xmp.into()));
                } else if let Some(part) = body.strip_prefix(b"http://ns.adobe.com/xmp/extension/\0") {
                    extended.extend(Extended::parse(part));
                }
            }
            0xed => found.extend(body.strip_prefix(b"Photoshop 3.0\0").map(Metadata::Photoshop)),
            0xeb => match &mut store {
                Some(store) => store.go_on(body),
                None => store = Store::start(body),
            },
            _ => {}
        }
        if found.len() >= MOST_BLOCKS {
            break;
        }
    }
    found.extend(joined(extended).map(|packet| Metadata::Xmp(packet.into())));
    found.extend(store.map(|store| Metadata::C2pa(store.joined())));
    found
}

/// One part of an XMP packet that does not fit a segment (XMP part 3, section 1.1.3.1).
struct Extended<'a> {
    id: &'a [u8; 32],
    offset: u32,
    data: &'a [u8],
}

impl<'a> Extended<'a> {
    fn parse(body: &'a [u8]) -> Option<Self> {
        let (id, rest) = body.split_first_chunk()?;
        // The length of the whole.
        let (offset, data) = rest.get(4..)?.split_first_chunk()?;
        Some(Self { id, offset: u32::from_be_bytes(*offset), data })
    }
}

/// The parts that belong to the first one's packet, up to where one is missing.
fn joined(mut parts: Vec<Extended<'_>>) -> Option<Vec<u8>> {
    let id = parts.first()?.id;
    parts.retain(|part| part.id == id);
    parts.sort_by_key(|part| part.offset);
    let mut packet = Vec::new();
    for part in parts {
        if part.offset as usize != packet.len() {
            break;
        }
        packet.extend_from_slice(part.data);
    }
    Some(packet)
}

/// A C2PA store in the APP11 segments of a JPEG (ISO 19566-5 annex D): all parts of one box have its number and
/// repeat its header.
struct Store<'a> {
    number: &'a [u8],
    parts: Vec<&'a [u8]>,
}

impl<'a> Store<'a> {
    const MOST_PARTS: usize = 4096;
    /// `JP`, the box's number, the part's number; then length and type of the box.
    const HEADER: usize = 8;
    const BOX_HEADER: usize = 8;

    fn start(body: &'a [u8]) -> Option<Self> {
        let is_store = body.starts_with(b"JP") && body.get(24..28) == Some(b"c2pa");
        Some(Self { number: body.get(2..4)?, parts: vec![body.get(Self::HEADER..)?] }).filter(|_| is_store)
    }

    fn go_on(&mut self, body: &'a [u8]) {
        if body.starts_with(b"JP") && body.get(2..4) == Some(self.number) {
            self.parts.extend(body.get(Self::HEADER + Self::BOX_HEADER..));
        }
    }

    fn joined(self) -> Cow<'a, [u8]> {
        match self.parts.as_slice() {
            [one] => (*one).into(),
            parts => parts.concat().into(),
        }
    }
}

fn of_png<'a>(kind: &'a [u8; 4], data: &'a [u8]) -> Option<Metadata<'a>> {
    match kind {
        b"eXIf" => Some(Metadata::Exif(data)),
        b"caBX" => Some(Metadata::C2pa(data.into())),
        b"tEXt" | b"zTXt" | b"iTXt" => {
            // Keywords have at most 79 bytes.
            let end = memchr::memchr(0, data.get(..80).unwrap_or(data))?;
            Some(Metadata::Text { chunk: kind, keyword: data.get(..end)?, rest: data.get(end + 1..)? })
        }
        _ => None,
    }
}

fn of_webp<'a>(kind: &[u8; 4], data: &'a [u8]) -> Option<Metadata<'a>> {
    match kind {
        b"EXIF" => Some(Metadata::Exif(data.strip_prefix(b"Exif\0\0").unwrap_or(data))),
        b"XMP " => Some(Metadata::Xmp(data.into())),
        b"C2PA" => Some(Metadata::C2pa(data.into())),
        _ => None,
    }
}

fn of_gif<'a>(name: &[u8; 11], data: gif::Blocks<'a>) -> Option<Metadata<'a>> {
    match name {
        // The packet stands there as it is: its bytes pass for lengths of blocks, down to the ramp that ends them.
        b"XMP DataXMP" => {
            // With the empty block behind it.
            const RAMP_BYTES: usize = 258;
            let raw = data.raw();
            Some(Metadata::Xmp(raw.get(..raw.len().saturating_sub(RAMP_BYTES))?.into()))
        }
        b"C2PA_GIF\x01\0\0" => Some(Metadata::C2pa(data.flatten().copied().collect::<Vec<_>>().into())),
        _ => None,
    }
}

fn of_block(block: Block<'_>) -> Option<Metadata<'_>> {
    match (&block.kind, block.content_type) {
        (b"Exif", _) => {
            // No writer splits so small a block.
            let Cow::Borrowed(data) = block.data else { return None };
            // ISO 23008-12 annex A.2.1: how far the TIFF structure lies from here.
            let (offset, rest) = data.split_first_chunk()?;
            Some(Metadata::Exif(rest.get(u32::from_be_bytes(*offset) as usize..)?))
        }
        (b"mime", b"application/rdf+xml") => Some(Metadata::Xmp(block.data)),
        (b"uuid", _) => {
            // C2PA specification, section A.5: type, version, purpose, an offset to further boxes, then the store.
            const C2PA: &[u8] = b"\xd8\xfe\xc3\xd6\x1b\x0e\x48\x3c\x92\x97\x58\x28\x87\x7e\xc4\x81\0\0\0\0manifest\0";
            let Cow::Borrowed(data) = block.data else { return None };
            Some(Metadata::C2pa(data.strip_prefix(C2PA)?.get(8..)?.into()))
        }
        _ => None,
    }
}

fn of_tiff(bytes: &[u8]) -> Option<Vec<Metadata<'_>>> {
    const XMP: u16 = 700;
    const IPTC: u16 = 33723;
    const PHOTOSHOP: u16 = 34377;
    let tiff = Tiff::new(bytes)?;
    let blocks = tiff.first_directory()?.filter_map(|entry| {
        let value = tiff.value(&entry)?;
        match entry.tag {
            XMP => Some(Metadata::Xmp(value.into())),
            IPTC => Some(Metadata::Iptc(value)),
            PHOTOSHOP => Some(Metadata::Photoshop(value)),
            _ => None,
        }
    });
    let store_in = |start| tiff.value(&tiff.directory(start)?.find(|entry| entry.tag == ifd::C2PA)?);
    let store = tiff.directories().last().and_then(store_in).or_else(|| store_in(tiff.directories().next()?));
    let store = store.map(|store| Metadata::C2pa(store.into()));
    Some(std::iter::once(Metadata::Exif(bytes)).chain(blocks).chain(store).take(MOST_BLOCKS).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segment(marker: u8, parts: &[&[u8]]) -> Vec<u8> {
        let body = parts.concat();
        let length = (body.len() as u16 + 2).to_be_bytes();
        [&[0xff, marker], length.as_slice(), &body].concat()
    }

    #[test]
    fn what_is_split_over_segments_is_joined() {
        let part = |offset: u32, data: &[u8]| {
            let whole = 6_u32.to_be_bytes();
            let id = [b'a'; 32];
            segment(0xe1, &[b"http://ns.adobe.com/xmp/extension/\0", &id, &whole, &offset.to_be_bytes(), data])
        };
        let header = b"\0\0\0\x20jumb";
        let store =
            |number: u8, index: u8, data: &[u8]| segment(0xeb, &[b"JP", &[0, number, 0, 0, 0, index], header, data]);
        let first = b"\0\0\0\x08jumdc2pa";
        let jpeg = [
            b"\xff\xd8".to_vec(),
            part(3, b"def"),
            part(0, b"abc"),
            store(2, 1, b"\0\0\0\x08jumdelse"),
            store(1, 1, first),
            store(1, 2, b"rest"),
            store(3, 1, b"of another box"),
        ];
        let jpeg = jpeg.concat();
        let found = metadata_of(&jpeg, Format::Jpeg);
        let whole = [header, first.as_slice(), b"rest"].concat();
        assert_eq!(found, [Metadata::Xmp(b"abcdef".into()), Metadata::C2pa(whole.into())]);
    }

    #[test]
    fn a_gif_keeps_xmp_as_it_is() {
        let ramp: Vec<u8> = [1].into_iter().chain((0..=255).rev()).collect();
        let gif = [b"GIF89a\x01\0\x01\0\0\0\0!\xff\x0bXMP DataXMP".as_slice(), b"<x/>", &ramp, b"\0;"].concat();
        assert_eq!(metadata_of(&gif, Format::Gif), [Metadata::Xmp(b"<x/>".as_slice().into())]);
        let gif = b"GIF89a\x01\0\x01\0\0\0\0!\xff\x0bC2PA_GIF\x01\0\0\x02ab\x01c\0;";
        assert_eq!(metadata_of(gif, Format::Gif), [Metadata::C2pa(b"abc".as_slice().into())]);
    }

    #[test]
    fn exif_that_points_into_itself_ends() {
        // Its EXIF directory is its first one.
        let exif = b"II*\0\x08\0\0\0\x02\0\x0f\x01\x02\0\x04\0\0\0abc\0\x69\x87\x04\0\x01\0\0\0\x08\0\0\0\0\0\0\0";
        let fields: Vec<_> = exif_fields(exif).filter(|(tag, _)| *tag == 0x10f).collect();
        assert_eq!(fields, [(0x10f, b"abc\0".as_slice()), (0x10f, b"abc\0")]);
        assert_eq!(exif_fields(b"II*\0\xff\xff\xff\xff").count(), 0);
    }

    fn metadata_of(bytes: &[u8], format: Format) -> Vec<Metadata<'_>> {
        let found = metadata(bytes, format);
        // Whatever is cut off, nothing panics.
        (0..bytes.len()).for_each(|end| drop(metadata(bytes.get(..end).unwrap_or_default(), format)));
        found
    }
}
