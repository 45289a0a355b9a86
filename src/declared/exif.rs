//! EXIF: marks of generators, and which camera it names.

use std::borrow::Cow;

use super::{Claim, Found, Kind, MOST_TEXT, Source};
use crate::image::{exif_fields, exif_thumbnail};

const FIELDS: [(u16, &str); 6] = [
    (0x010e, "ImageDescription"),
    (MAKE, "Make"),
    (MODEL, "Model"),
    (0x0131, "Software"),
    (0x013b, "Artist"),
    (USER_COMMENT, "UserComment"),
];
const MAKE: u16 = 0x010f;
const MODEL: u16 = 0x0110;
const USER_COMMENT: u16 = 0x9286;
const MAKER_NOTE: u16 = 0x927c;

pub(super) fn read(exif: &[u8], found: &mut Found<'_>) {
    let mut seen = [false; FIELDS.len()];
    let (mut make, mut model, mut maker_note) = (None, None, false);
    for (tag, value) in exif_fields(exif) {
        maker_note |= tag == MAKER_NOTE && !value.is_empty();
        let Some(index) = FIELDS.iter().position(|(known, _)| *known == tag) else { continue };
        if std::mem::replace(&mut seen[index], true) || value.len() > found.text_left.min(MOST_TEXT) {
            continue;
        }
        found.text_left -= value.len();
        let text = if tag == USER_COMMENT { comment(value) } else { String::from_utf8_lossy(value) };
        let text = text.trim_matches(|c: char| c == '\0' || c.is_whitespace());
        let name = FIELDS[index].1;
        let is_mark = found.add_mark(Source::Exif, name, &format!("EXIF {name}"), text);
        match tag {
            MAKE if !is_mark && is_name(text) => make = Some(text.to_owned()),
            MODEL if !is_mark && is_name(text) => model = Some(text.to_owned()),
            _ => {}
        }
    }
    // A camera writes both.
    if let (Some(make), Some(model)) = (make, model) {
        let camera = if model.starts_with(&make) { model } else { format!("{make} {model}") };
        let note = if maker_note { "with" } else { "without" };
        let thumbnail = thumbnail(exif, found.size);
        let detail =
            format!("EXIF Make and Model, {note} a maker note, {thumbnail}; unverified: any program can write them");
        found.add(Claim::unsigned(Source::Exif, Kind::Captured).with_tool(&camera).with_detail(&detail));
    }
}

/// Whether the thumbnail has the picture's shape. Editors that crop often leave it; some cameras put bars into it.
fn thumbnail(exif: &[u8], size: [u32; 2]) -> &'static str {
    let Some([width, height]) = exif_thumbnail(exif).map(|size| size.map(u64::from)) else {
        return "without a thumbnail";
    };
    let [across, down] = size.map(u64::from);
    // A thumbnail's sides are rounded to whole pixels.
    match (width * down).abs_diff(height * across) <= 2 * across.max(down) {
        true => "with a thumbnail of the picture's shape",
        false => "with a thumbnail of another shape, as after a crop",
    }
}

/// Whether it can be a camera's name: some generators keep their prompts in these fields.
fn is_name(text: &str) -> bool {
    (1..=64).contains(&text.len()) && !text.contains(['{', '\n'])
}

/// A comment behind the name of its encoding.
fn comment(value: &[u8]) -> Cow<'_, str> {
    let Some((encoding, text)) = value.split_first_chunk::<8>() else { return String::from_utf8_lossy(value) };
    match encoding {
        b"UNICODE\0" => utf16(text).into(),
        b"ASCII\0\0\0" | b"\0\0\0\0\0\0\0\0" => String::from_utf8_lossy(text),
        _ => String::from_utf8_lossy(value),
    }
}

/// In whichever byte order it reads as Latin letters: programs write either, whatever the block's own is.
fn utf16(bytes: &[u8]) -> String {
    let units = bytes.as_chunks::<2>().0;
    let zeros = |at: usize| units.iter().filter(|unit| unit[at] == 0).count();
    let big = zeros(0) > zeros(1);
    let units = units.iter().map(|&unit| if big { u16::from_be_bytes(unit) } else { u16::from_le_bytes(unit) });
    char::decode_utf16(units).map(|c| c.unwrap_or(char::REPLACEMENT_CHARACTER)).collect()
}
