//! XMP: IPTC's digital source type and credit, the creating tool, and marks of generators.

use quick_xml::{
    Reader,
    escape::resolve_predefined_entity,
    events::{BytesStart, Event},
};

use super::{Claim, Found, Kind, MOST_TEXT, Source, source_type};

/// Fields that are read. XMP writes a field as an attribute, or as an element with its value in it.
const FIELDS: [&str; 7] =
    ["DigitalSourceType", "Credit", "CreatorTool", "AISystemUsed", "AIGC", "UserComment", "description"];

/// Bytes of one value that are read.
const MOST_VALUE: usize = 64 << 10;

/// Bytes of a program's name: what is longer is something else.
const MOST_NAME: usize = 100;

/// Values that are looked at.
const MOST_VALUES: usize = 64;

pub(super) fn read(packet: &[u8], found: &mut Found<'_>) {
    let packet = packet.get(..MOST_TEXT.min(found.text_left)).unwrap_or(packet);
    found.text_left -= packet.len();
    let mut values = Values { left: MOST_VALUES, found };
    let mut reader = Reader::from_reader(packet);
    reader.config_mut().check_end_names = false;
    // The field in whose element the reader is, how deep below it, and its value so far.
    let mut open: Option<(&'static str, u32, String)> = None;
    // An error, too, ends what is read; what comes before it counts.
    while let Ok(event) = reader.read_event() {
        match event {
            Event::Start(element) => {
                values.attributes(&element);
                match &mut open {
                    Some((_, depth, _)) => *depth += 1,
                    None => open = field(element.local_name().as_ref()).map(|name| (name, 0, String::new())),
                }
            }
            Event::Empty(element) => values.attributes(&element),
            Event::End(_) => match &mut open {
                Some((_, depth, _)) if *depth > 0 => *depth -= 1,
                _ => {
                    if let Some((name, _, value)) = open.take() {
                        values.take(name, &value);
                    }
                }
            },
            Event::Text(text) => append(&mut open, &String::from_utf8_lossy(&text)),
            Event::CData(text) => append(&mut open, &String::from_utf8_lossy(&text)),
            // The five of XML and characters by number; what a document defines itself is left out.
            Event::GeneralRef(entity) => match entity.resolve_char_ref() {
                Ok(Some(c)) => append(&mut open, c.encode_utf8(&mut [0; 4])),
                _ => {
                    let name = String::from_utf8_lossy(&entity);
                    append(&mut open, resolve_predefined_entity(&name).unwrap_or_default());
                }
            },
            Event::Eof => break,
            Event::Decl(_) | Event::PI(_) | Event::DocType(_) | Event::Comment(_) => {}
        }
        if values.left == 0 {
            break;
        }
    }
}

fn append(open: &mut Option<(&'static str, u32, String)>, text: &str) {
    if let Some((_, _, value)) = open
        && value.len() + text.len() <= MOST_VALUE
    {
        value.push_str(text);
    }
}

fn field(name: &[u8]) -> Option<&'static str> {
    FIELDS.into_iter().find(|field| field.as_bytes() == name)
}

struct Values<'a, 'b> {
    left: usize,
    found: &'a mut Found<'b>,
}

impl Values<'_, '_> {
    /// Fields written as attributes; and of a field's own element the resource that it points at.
    fn attributes(&mut self, element: &BytesStart<'_>) {
        let own = field(element.local_name().as_ref());
        let mut attributes = element.attributes();
        attributes.with_checks(false);
        for attribute in attributes.take(MOST_VALUES).flatten().filter(|attribute| attribute.value.len() <= MOST_VALUE)
        {
            let key = attribute.key.local_name();
            let name = if key.as_ref() == b"resource" { own } else { field(key.as_ref()) };
            if let Some(name) = name {
                let raw = String::from_utf8_lossy(&attribute.value);
                self.take(name, &quick_xml::escape::unescape(&raw).unwrap_or_default());
            }
        }
    }

    fn take(&mut self, name: &'static str, value: &str) {
        self.left = self.left.saturating_sub(1);
        let value = value.trim();
        let found = &mut *self.found;
        match name {
            "DigitalSourceType" => {
                if let Some((term, kind)) = source_type::find(value) {
                    let detail = format!("DigitalSourceType {term}");
                    found.add(Claim::unsigned(Source::Iptc, kind).with_detail(&detail));
                }
            }
            "Credit" => drop(found.add_mark(Source::Iptc, name, "XMP Credit", value)),
            _ => {
                let place = format!("XMP {name}");
                let is_mark = found.add_mark(Source::Xmp, name, &place, value);
                if name == "CreatorTool" && !is_mark && (1..=MOST_NAME).contains(&value.len()) {
                    found.add(Claim::unsigned(Source::Xmp, Kind::Other).with_tool(value).with_detail(&place));
                }
            }
        }
    }
}
