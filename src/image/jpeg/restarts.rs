//! Restart markers (ITU-T T.81 E.1.4): at each of them decoding starts anew, so that a decoder can begin there and pass
//! over what is before it unread.

use std::ops::Range;

use super::{
    Cancel, Frame, ImageError, NOT_SOF, SOF,
    markers::{EOI, SOS, Segment, Segments},
};

const DQT: u8 = 0xdb;
const DHT: u8 = 0xc4;
const DRI: u8 = 0xdd;
const JFIF: u8 = 0xe0;
const ADOBE: u8 = 0xee;
const FIRST: u8 = 0xd0;
/// The markers are numbered modulo this. A decoder expects number 0 first.
const NUMBERS: usize = 8;
/// Tables of more bytes are no encoder's, and would be read again at every start.
const MOST_HEAD_BYTES: usize = 1 << 16;

/// Where the only scan of an image can be entered.
pub(super) struct Restarts<'a> {
    bytes: &'a [u8],
    head: Head,
    /// Rows of pixels, of the image and of one that are coded together.
    rows: u32,
    unit: u32,
    /// A row that the scan can be entered at, and where its data begins in `bytes`.
    starts: Vec<(u32, usize)>,
}

/// The segments that a decoder needs, up to the scan's data.
struct Head {
    bytes: Vec<u8>,
    /// Of the image's height in `bytes`.
    height: Range<usize>,
    /// MCUs from one restart marker to the next.
    interval: usize,
    /// Where the scan's data begins in the file.
    end: usize,
}

impl Head {
    /// `None` if there are no restart markers, or far too many tables.
    fn read(file: &[u8]) -> Option<Self> {
        let mut bytes = vec![0xff, 0xd8];
        let (mut interval, mut height) = (0, None);
        let mut segments = Segments::new(file);
        loop {
            let Segment { marker, body } = segments.next()?;
            match marker {
                DRI => interval = u16::from_be_bytes(*body.first_chunk()?).into(),
                DQT | DHT | JFIF | ADOBE | SOS => {}
                // After the marker, the length and the precision.
                _ if SOF.contains(&marker) && !NOT_SOF.contains(&marker) => {
                    height = Some(bytes.len() + 5..bytes.len() + 7)
                }
                _ => continue,
            }
            let length = u16::try_from(body.len() + 2).ok()?;
            bytes.extend([0xff, marker]);
            bytes.extend(length.to_be_bytes());
            bytes.extend(body);
            if bytes.len() > MOST_HEAD_BYTES {
                return None;
            }
            if marker == SOS {
                let end = file.len() - segments.rest().len();
                return (interval > 0).then_some(Self { bytes, height: height?, interval, end });
            }
        }
    }

    /// For the rows from a later one on.
    fn for_rows(&self, rows: u32) -> Option<Vec<u8>> {
        let mut bytes = self.bytes.clone();
        bytes.get_mut(self.height.clone())?.copy_from_slice(&u16::try_from(rows).ok()?.to_be_bytes());
        Some(bytes)
    }
}

/// An image from `row` down, as an image of its own: a header, and data that follows it.
pub(super) struct Part<'a> {
    pub(super) row: u32,
    pub(super) head: Vec<u8>,
    pub(super) data: &'a [u8],
}

impl<'a> Restarts<'a> {
    /// `None` if the image has none at the beginning of a row, or if anything about them is unusual: a decoder then has to read
    /// all of it, to find what is damaged.
    ///
    /// # Errors
    /// Once cancelled.
    pub(super) fn find(bytes: &'a [u8], frame: &Frame, cancel: &Cancel) -> Result<Option<Self>, ImageError> {
        let Some(head) = Head::read(bytes) else { return Ok(None) };
        let ([across, down], unit) = (frame.units(), frame.unit[1]);
        let intervals = (across * down).div_ceil(head.interval);
        let mut starts = Vec::new();
        let mut markers = Markers { bytes, at: head.end, look: head.end, cancel };
        for interval in 0..intervals {
            let units_before = interval * head.interval;
            if interval.is_multiple_of(NUMBERS) && units_before.is_multiple_of(across) {
                starts.push(((units_before / across) as u32 * unit, markers.at));
            }
            let last = interval + 1 == intervals;
            if markers.next()? != Some(if last { EOI } else { FIRST + (interval % NUMBERS) as u8 }) {
                return Ok(None);
            }
        }
        Ok((starts.len() > 1).then_some(Self { bytes, head, rows: frame.height, unit, starts }))
    }

    /// The last part that has the pixels of row `needed` and below, if it begins after `row`. Smooth upsampling looks at the row
    /// above, which the first one of a part does not have: so it begins a row of MCUs before `needed` or earlier.
    pub(super) fn part(&self, row: u32, needed: u32) -> Option<Part<'a>> {
        let early_enough = self.starts.partition_point(|&(start, _)| start + self.unit <= needed);
        let &(start, at) = self.starts.get(early_enough.checked_sub(1)?)?;
        if start <= row {
            return None;
        }
        let head = self.head.for_rows(self.rows.checked_sub(start)?)?;
        Some(Part { row: start, head, data: self.bytes.get(at..)? })
    }
}

/// The markers in a scan's data.
struct Markers<'a> {
    bytes: &'a [u8],
    /// After the last one.
    at: usize,
    /// Where the cancellation is checked next.
    look: usize,
    cancel: &'a Cancel,
}

impl Markers<'_> {
    /// `None` at the end of the data.
    fn next(&mut self) -> Result<Option<u8>, ImageError> {
        /// Bytes between two checks: data that consists of stuffed zeros takes 5 ns for two of them.
        const STEP: usize = 1 << 16;
        let from = self.at;
        for found in memchr::memchr_iter(0xff, self.bytes.get(from..).unwrap_or_default()) {
            let at = from + found;
            if at >= self.look {
                self.cancel.check()?;
                self.look = at + STEP;
            }
            match self.bytes.get(at + 1) {
                Some(0) => {}
                marker => {
                    self.at = at + 2;
                    return Ok(marker.copied());
                }
            }
        }
        Ok(None)
    }
}
