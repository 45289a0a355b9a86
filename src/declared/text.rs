//! Texts of PNG (PNG specification section 11.3.3).

use std::{borrow::Cow, io::Read};

use flate2::bufread::ZlibDecoder;

use super::{Found, MOST_TEXT, Source, xmp};

/// The keyword under which XMP stands.
const XMP: &str = "XML:com.adobe.xmp";

pub(super) fn read(chunk: &[u8; 4], keyword: &[u8], rest: &[u8], found: &mut Found<'_>) {
    let Ok(keyword) = str::from_utf8(keyword) else { return };
    if keyword != XMP && !found.marks.wants(Source::PngText, keyword) {
        return;
    }
    let Some(text) = unpacked(chunk, rest, found.text_left.min(MOST_TEXT)) else { return };
    if keyword == XMP {
        xmp::read(&text, found);
    } else {
        found.text_left -= text.len();
        // Latin-1 by the specification, UTF-8 in practice.
        let text = String::from_utf8_lossy(&text);
        found.add_mark(Source::PngText, keyword, &format!("text `{keyword}`"), &text);
    }
}

/// The text itself, of at most `most` bytes; nothing of one that is longer.
fn unpacked<'a>(chunk: &[u8; 4], rest: &'a [u8], most: usize) -> Option<Cow<'a, [u8]>> {
    let (packed, data) = match chunk {
        b"zTXt" => (true, rest.get(1..)?),
        b"iTXt" => {
            let &[packed, _method, ref rest @ ..] = rest else { return None };
            // Language, and the keyword in it.
            let after_zero = |bytes: &'a [u8]| bytes.get(memchr::memchr(0, bytes)? + 1..);
            (packed != 0, after_zero(after_zero(rest)?)?)
        }
        _ => (false, rest),
    };
    if !packed {
        return (data.len() <= most).then_some(data.into());
    }
    let mut text = Vec::new();
    ZlibDecoder::new(data).take(most as u64 + 1).read_to_end(&mut text).ok()?;
    (text.len() <= most).then_some(text.into())
}
