//! TIFF's structure (TIFF 6.0 section 2), also used by EXIF blocks: byte order, directories, values.

/// Orientation, TIFF 6.0 page 36.
pub(super) const ORIENTATION: u16 = 274;

/// A C2PA manifest store: alone in the chain's last directory, or among the first's.
pub(super) const C2PA: u16 = 52545;

const BYTE: u16 = 1;
const ASCII: u16 = 2;
const SHORT: u16 = 3;
const LONG: u16 = 4;
const UNDEFINED: u16 = 7;

/// Byte order of a TIFF structure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ByteOrder {
    Little,
    Big,
}

/// A classic (32-bit) TIFF structure: a TIFF file or the body of an EXIF block.
#[derive(Clone, Copy)]
pub(super) struct Tiff<'a> {
    bytes: &'a [u8],
    order: ByteOrder,
}

/// One directory entry; `value_at` is the offset of the value, inline or not.
#[derive(Debug, Clone, Copy)]
pub(super) struct Entry {
    pub(super) tag: u16,
    kind: u16,
    pub(super) count: u32,
    value_at: usize,
}

impl Entry {
    /// Location of a BYTE or UNDEFINED value: (start, length).
    pub(super) fn bytes(&self) -> (usize, usize) {
        (self.value_at, self.count as usize)
    }
}

impl<'a> Tiff<'a> {
    /// A file of more pages is said to have so many.
    const MOST_DIRECTORIES: usize = 10_000;

    /// `None` unless the bytes start like a classic TIFF.
    pub(super) fn new(bytes: &'a [u8]) -> Option<Self> {
        let order = match bytes.get(..4)? {
            b"II*\0" => ByteOrder::Little,
            b"MM\0*" => ByteOrder::Big,
            _ => return None,
        };
        Some(Self { bytes, order })
    }

    fn u16(&self, at: usize) -> Option<u16> {
        let raw = self.bytes.get(at..)?.first_chunk()?;
        Some(match self.order {
            ByteOrder::Little => u16::from_le_bytes(*raw),
            ByteOrder::Big => u16::from_be_bytes(*raw),
        })
    }

    fn u32(&self, at: usize) -> Option<u32> {
        let raw = self.bytes.get(at..)?.first_chunk()?;
        Some(match self.order {
            ByteOrder::Little => u32::from_le_bytes(*raw),
            ByteOrder::Big => u32::from_be_bytes(*raw),
        })
    }

    /// The entries of the first directory, as far as the bytes go.
    pub(super) fn first_directory(&self) -> Option<impl Iterator<Item = Entry> + use<'a>> {
        self.directory(self.u32(4)? as usize)
    }

    /// The entries of the directory at `start`, as many as the bytes hold.
    pub(super) fn directory(&self, start: usize) -> Option<impl Iterator<Item = Entry> + use<'a>> {
        let count = usize::from(self.u16(start)?);
        let tiff = *self;
        Some((0..count).map_while(move |index| tiff.entry(start.checked_add(2 + index * 12)?)))
    }

    /// So many bytes from a place on.
    pub(super) fn bytes(&self, start: u32, length: u32) -> Option<&'a [u8]> {
        self.bytes.get(start as usize..)?.get(..length as usize)
    }

    /// Where the directories of the file's chain begin: at most [`MOST_DIRECTORIES`](Self::MOST_DIRECTORIES), which also ends
    /// a cycle.
    pub(super) fn directories(&self) -> impl Iterator<Item = usize> + use<'a> {
        let tiff = *self;
        let start = move |at: usize| tiff.u32(at).filter(|&start| start != 0).map(|start| start as usize);
        let next = move |&here: &usize| start(here.checked_add(2 + usize::from(tiff.u16(here)?) * 12)?);
        let all = std::iter::successors(start(4), next).take_while(move |&here| tiff.u16(here).is_some());
        all.take(Self::MOST_DIRECTORIES)
    }

    fn entry(&self, at: usize) -> Option<Entry> {
        let kind = self.u16(at + 2)?;
        let count = self.u32(at + 4)?;
        // SBYTE; SSHORT; SLONG, FLOAT; the rest 8 bytes.
        let size = match kind {
            BYTE | ASCII | 6 | UNDEFINED => 1,
            SHORT | 8 => 2,
            LONG | 9 | 11 => 4,
            _ => 8,
        };
        let inline = u64::from(count) * size <= 4;
        let value_at = if inline { at + 8 } else { self.u32(at + 8)? as usize };
        Some(Entry { tag: self.u16(at)?, kind, count, value_at })
    }

    /// The bytes of a value that is text or a block of something else, which some programs store as LONG.
    pub(super) fn value(&self, entry: &Entry) -> Option<&'a [u8]> {
        let (start, count) = entry.bytes();
        let length = match entry.kind {
            BYTE | ASCII | UNDEFINED => count,
            LONG => count.checked_mul(4)?,
            _ => return None,
        };
        self.bytes.get(start..)?.get(..length)
    }

    /// Length of the whole structure in bytes.
    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    pub(super) fn order(&self) -> ByteOrder {
        self.order
    }

    /// The `index`-th value of a SHORT or LONG entry.
    pub(super) fn unsigned(&self, entry: &Entry, index: u32) -> Option<u32> {
        if index >= entry.count {
            return None;
        }
        let index = index as usize;
        match entry.kind {
            SHORT => self.u16(entry.value_at.checked_add(index * 2)?).map(u32::from),
            LONG => self.u32(entry.value_at.checked_add(index * 4)?),
            _ => None,
        }
    }
}

/// Orientation 1 to 8 of an EXIF block (after `Exif\0\0`), 1 where absent or invalid.
pub(super) fn exif_orientation(exif: &[u8]) -> u8 {
    let find = || {
        let tiff = Tiff::new(exif)?;
        let entry = tiff.first_directory()?.find(|e| e.tag == ORIENTATION)?;
        let value = u8::try_from(tiff.unsigned(&entry, 0)?).ok()?;
        (1..=8).contains(&value).then_some(value)
    };
    find().unwrap_or(1)
}

/// Number of pictures in the index of a multi-picture file (CIPA DC-007, after `MPF\0`): views and shots, not previews
/// or auxiliary images such as a gain map.
pub(super) fn multi_picture_frames(index: &[u8]) -> u32 {
    const ENTRIES: u16 = 0xb002;
    const ENTRY_BYTES: usize = 16;
    // The attribute's low 24 bits: panorama, disparity, multi-angle, baseline primary.
    const PICTURES: [u32; 4] = [0x02_0001, 0x02_0002, 0x02_0003, 0x03_0000];
    let count = || {
        let tiff = Tiff::new(index)?;
        let (start, length) = tiff.first_directory()?.find(|entry| entry.tag == ENTRIES)?.bytes();
        let entries = (0..length / ENTRY_BYTES).map_while(|entry| tiff.u32(start + entry * ENTRY_BYTES));
        Some(entries.filter(|attribute| PICTURES.contains(&(attribute & 0xff_ffff))).count() as u32)
    };
    count().unwrap_or(0)
}
