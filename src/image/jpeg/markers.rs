//! Walks JPEG's marker segments (ITU-T T.81 annex B) without decoding.

/// Start of scan.
pub(in crate::image) const SOS: u8 = 0xda;
/// End of image.
pub(super) const EOI: u8 = 0xd9;

/// A marker with its parameters.
pub(in crate::image) struct Segment<'a> {
    /// The second byte of the marker.
    pub(in crate::image) marker: u8,
    /// The bytes after the length field; empty for markers without parameters.
    pub(in crate::image) body: &'a [u8],
}

/// The segments from the start; ends where the bytes end or a length is invalid. After SOS the entropy-coded data is
/// skipped.
pub(in crate::image) struct Segments<'a> {
    rest: &'a [u8],
}

impl<'a> Segments<'a> {
    pub(in crate::image) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// The bytes after the segments so far.
    pub(super) fn rest(&self) -> &'a [u8] {
        self.rest
    }
}

impl<'a> Iterator for Segments<'a> {
    type Item = Segment<'a>;

    fn next(&mut self) -> Option<Segment<'a>> {
        // Like libjpeg's next_marker: skip to 0xff, then fill bytes; a stuffed zero is not a marker.
        let (marker, rest) = loop {
            let at = memchr::memchr(0xff, self.rest)?;
            let after = self.rest.get(at..)?;
            let fill = after.iter().position(|&b| b != 0xff)?;
            let marker = *after.get(fill)?;
            self.rest = after.get(fill + 1..)?;
            if marker != 0 {
                break (marker, self.rest);
            }
        };
        if matches!(marker, 0x01 | 0xd0..=EOI) {
            return Some(Segment { marker, body: &[] });
        }
        let length = usize::from(u16::from_be_bytes(*rest.first_chunk()?));
        let body = rest.get(2..length)?;
        self.rest = rest.get(length..)?;
        Some(Segment { marker, body })
    }
}
