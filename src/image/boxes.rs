//! The structure of AVIF and HEIC files: boxes (ISO 14496-12), and the items that its `meta` box lists (ISO 23008-12). Everything is
//! a view of the file; what is missing, cut off or out of bounds is `None`.

use std::borrow::Cow;

/// Items, parts of items, references and properties of a file that are read: no honest file has so many.
pub(super) const MOST: usize = 1024;

/// A box: its type and its payload.
pub(super) type IsoBox<'a> = ([u8; 4], &'a [u8]);

/// The boxes that follow each other in `bytes`. Ends early at one that does not fit.
pub(super) fn boxes(bytes: &[u8]) -> impl Iterator<Item = IsoBox<'_>> {
    let mut rest = Reader(bytes);
    std::iter::from_fn(move || {
        let all = rest.0;
        let size = rest.unsigned(4)?;
        let kind = *rest.take(4)?.first_chunk()?;
        let size = match size {
            0 => all.len() as u64,
            1 => rest.unsigned(8)?,
            size => size,
        };
        let header = all.len() - rest.0.len();
        let (whole, after) = all.split_at_checked(usize::try_from(size).ok()?)?;
        rest = Reader(after);
        Some((kind, whole.get(header..)?))
    })
}

/// The payload of the first box of a type.
pub(super) fn first<'a>(bytes: &'a [u8], kind: &[u8; 4]) -> Option<&'a [u8]> {
    boxes(bytes).find(|(found, _)| found == kind).map(|(_, payload)| payload)
}

/// Reads numbers from the front.
#[derive(Clone, Copy)]
pub(super) struct Reader<'a>(pub(super) &'a [u8]);

impl<'a> Reader<'a> {
    pub(super) fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    /// A number of at most 8 bytes, most significant first.
    pub(super) fn unsigned(&mut self, bytes: usize) -> Option<u64> {
        (bytes <= 8).then_some(())?;
        Some(self.take(bytes)?.iter().fold(0, |value, &byte| value << 8 | u64::from(byte)))
    }

    fn id(&mut self, wide: bool) -> Option<u32> {
        u32::try_from(self.unsigned(if wide { 4 } else { 2 })?).ok()
    }

    /// Version and flags of a full box.
    pub(super) fn version(&mut self) -> Option<(u8, u32)> {
        let word = self.unsigned(4)? as u32;
        Some(((word >> 24) as u8, word & 0x00ff_ffff))
    }

    /// Up to the next zero, which is skipped.
    fn text(&mut self) -> Option<&'a [u8]> {
        let text = self.take(memchr::memchr(0, self.0)?)?;
        self.take(1)?;
        Some(text)
    }
}

/// The `meta` box of a file.
pub(super) struct Meta<'a> {
    file: &'a [u8],
    /// Data that items may point into instead of the file.
    idat: &'a [u8],
    pub(super) primary: u32,
    items: Vec<Item<'a>>,
    references: Vec<Reference>,
    properties: Vec<IsoBox<'a>>,
}

/// An item: an image, or metadata of one.
pub(super) struct Item<'a> {
    pub(super) id: u32,
    pub(super) kind: [u8; 4],
    /// MIME type, of items that have one.
    pub(super) content_type: &'a [u8],
    /// Not to be shown by itself.
    pub(super) hidden: bool,
    in_idat: bool,
    extents: Vec<(u64, u64)>,
    /// Places in the list of properties, and whether a reader must understand each.
    properties: Vec<(usize, bool)>,
}

/// One item that refers to another.
struct Reference {
    kind: [u8; 4],
    from: u32,
    to: u32,
}

impl<'a> Meta<'a> {
    /// The `meta` box of a file.
    pub(super) fn read(file: &'a [u8]) -> Option<Self> {
        let mut meta = Reader(first(file, b"meta")?);
        meta.version()?;
        let meta = meta.0;
        let mut primary = Reader(first(meta, b"pitm")?);
        let (version, _) = primary.version()?;
        let mut items = items(first(meta, b"iinf")?)?;
        locate(first(meta, b"iloc")?, &mut items)?;
        let properties = first(meta, b"iprp")?;
        for (kind, payload) in boxes(properties) {
            if kind == *b"ipma" {
                associate(payload, &mut items)?;
            }
        }
        Some(Self {
            file,
            idat: first(meta, b"idat").unwrap_or_default(),
            primary: primary.id(version > 0)?,
            items,
            references: first(meta, b"iref").map_or(Some(Vec::new()), references)?,
            properties: boxes(first(properties, b"ipco")?).take(MOST).collect(),
        })
    }

    pub(super) fn items(&self) -> &[Item<'a>] {
        &self.items
    }

    pub(super) fn item(&self, id: u32) -> Option<&Item<'a>> {
        self.items.iter().find(|item| item.id == id)
    }

    /// Whether one item refers to another in this way.
    pub(super) fn refers(&self, kind: &[u8; 4], from: u32, to: u32) -> bool {
        self.references.iter().any(|found| found.kind == *kind && (found.from, found.to) == (from, to))
    }

    /// Which item refers to which in this way, in their order.
    pub(super) fn pairs(&self, kind: &[u8; 4]) -> impl Iterator<Item = (u32, u32)> {
        self.references.iter().filter(move |found| found.kind == *kind).map(|found| (found.from, found.to))
    }

    /// Whether an item refers to any other in this way.
    pub(super) fn serves(&self, kind: &[u8; 4], from: u32) -> bool {
        self.pairs(kind).any(|(found, _)| found == from)
    }

    /// An item's properties, and whether a reader must understand each.
    pub(super) fn properties(&self, item: &Item<'a>) -> impl Iterator<Item = (IsoBox<'a>, bool)> {
        item.properties.iter().filter_map(|&(at, essential)| Some((*self.properties.get(at)?, essential)))
    }

    /// The first of an item's properties of a type.
    pub(super) fn property(&self, item: &Item<'a>, kind: &[u8; 4]) -> Option<&'a [u8]> {
        self.properties(item).find(|((found, _), _)| found == kind).map(|((_, payload), _)| payload)
    }

    /// An item's data, of which no byte of the file may be a part twice.
    pub(super) fn data(&self, item: &Item<'a>) -> Option<Cow<'a, [u8]>> {
        let source = if item.in_idat { self.idat } else { self.file };
        let part = |&(offset, length): &(u64, u64)| {
            let start = usize::try_from(offset).ok()?;
            source.get(start..)?.get(..usize::try_from(length).ok()?)
        };
        if let [extent] = item.extents.as_slice() {
            return part(extent).map(Cow::Borrowed);
        }
        let parts = item.extents.iter().map(part).collect::<Option<Vec<_>>>()?;
        let length: usize = parts.iter().map(|part| part.len()).sum();
        (length <= source.len()).then(|| parts.concat().into())
    }
}

/// A block of a file beside its pictures: an item, or a box of the user's own type.
pub(super) struct Block<'a> {
    /// Type of the item; `uuid` for a box.
    pub(super) kind: [u8; 4],
    /// MIME type of an item of the type `mime`.
    pub(super) content_type: &'a [u8],
    pub(super) data: Cow<'a, [u8]>,
}

/// The blocks that may be metadata.
pub(super) fn blocks(bytes: &[u8]) -> Vec<Block<'_>> {
    let mut found = Vec::new();
    if let Some(meta) = Meta::read(bytes) {
        for item in meta.items().iter().filter(|item| matches!(&item.kind, b"Exif" | b"mime")) {
            let Item { kind, content_type, .. } = *item;
            found.extend(meta.data(item).map(|data| Block { kind, content_type, data }));
        }
    }
    let user = boxes(bytes).filter(|(kind, _)| kind == b"uuid").take(MOST);
    found.extend(user.map(|(kind, data)| Block { kind, content_type: b"", data: data.into() }));
    found
}

/// A count, unless no honest file has so many.
fn few(count: u64) -> Option<u64> {
    (count <= MOST as u64).then_some(count)
}

/// `iinf`.
fn items(payload: &[u8]) -> Option<Vec<Item<'_>>> {
    let mut reader = Reader(payload);
    let (version, _) = reader.version()?;
    reader.id(version > 0)?;
    let mut items = Vec::new();
    for (_, payload) in boxes(reader.0).filter(|(kind, _)| kind == b"infe").take(MOST) {
        let mut entry = Reader(payload);
        let (version @ 2..=3, flags) = entry.version()? else { continue };
        let id = entry.id(version == 3)?;
        // Index of its protection.
        entry.take(2)?;
        let kind = *entry.take(4)?.first_chunk()?;
        entry.text();
        let content_type = if kind == *b"mime" { entry.text().unwrap_or_default() } else { b"" };
        let hidden = flags & 1 == 1;
        items.push(Item {
            id,
            kind,
            content_type,
            hidden,
            in_idat: false,
            extents: Vec::new(),
            properties: Vec::new(),
        });
    }
    Some(items)
}

/// `iloc`: where each item's data lies.
fn locate(payload: &[u8], items: &mut [Item<'_>]) -> Option<()> {
    let mut reader = Reader(payload);
    let (version @ 0..=2, _) = reader.version()? else { return None };
    let sizes = reader.unsigned(2)? as usize;
    let [offset, length, base, index] = [12, 8, 4, 0].map(|shift| sizes >> shift & 15);
    let index = if version == 0 { 0 } else { index };
    for _ in 0..few(reader.id(version == 2)?.into())? {
        let id = reader.id(version == 2)?;
        let construction = if version == 0 { 0 } else { reader.unsigned(2)? & 15 };
        // Index of the file: only this one.
        reader.take(2)?;
        let base = reader.unsigned(base)?;
        let mut extents = Vec::new();
        for _ in 0..few(reader.unsigned(2)?)? {
            reader.take(index)?;
            let (offset, length) = (reader.unsigned(offset)?, reader.unsigned(length)?);
            extents.push((base.checked_add(offset)?, length));
        }
        let item = items.iter_mut().find(|item| item.id == id);
        if let Some(item) = item.filter(|item| construction < 2 && item.extents.is_empty()) {
            (item.in_idat, item.extents) = (construction == 1, extents);
        }
    }
    Some(())
}

/// `ipma`: which properties each item has.
fn associate(payload: &[u8], items: &mut [Item<'_>]) -> Option<()> {
    let mut reader = Reader(payload);
    let (version, flags) = reader.version()?;
    let bytes = 1 + (flags & 1) as usize;
    for _ in 0..few(reader.unsigned(4)?)? {
        let id = reader.id(version > 0)?;
        let mut properties = Vec::new();
        for _ in 0..reader.unsigned(1)? {
            let entry = reader.unsigned(bytes)?;
            let essential = 1 << (8 * bytes - 1);
            // Counted from 1; 0 is none.
            if let Some(at) = (entry & (essential - 1)).checked_sub(1) {
                properties.push((at as usize, entry & essential != 0));
            }
        }
        if let Some(item) = items.iter_mut().find(|item| item.id == id) {
            item.properties.extend(properties);
        }
    }
    Some(())
}

/// `iref`.
fn references(payload: &[u8]) -> Option<Vec<Reference>> {
    let mut reader = Reader(payload);
    let (version, _) = reader.version()?;
    let mut references = Vec::new();
    for (kind, payload) in boxes(reader.0) {
        let mut reader = Reader(payload);
        let from = reader.id(version > 0)?;
        for _ in 0..reader.unsigned(2)? {
            few(references.len() as u64)?;
            references.push(Reference { kind, from, to: reader.id(version > 0)? });
        }
    }
    Some(references)
}
