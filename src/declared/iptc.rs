//! IPTC's own datasets (IIM 4.2), as JPEG has them in Photoshop's image resources.

use super::{Found, MOST_TEXT, Source};

/// Datasets and resources that are looked at.
const MOST: usize = 1024;

/// Photoshop's image resources: `8BIM`, number, name, length, data; name and data padded to even lengths.
pub(super) fn read_photoshop(resources: &[u8], found: &mut Found<'_>) {
    const IPTC: [u8; 2] = [0x04, 0x04];
    let mut rest = resources;
    let mut next = || {
        let (number, after) = rest.strip_prefix(b"8BIM")?.split_first_chunk::<2>()?;
        let name = usize::from(*after.first()?) + 1;
        let (length, after) = after.get(name.next_multiple_of(2)..)?.split_first_chunk()?;
        let length = u32::from_be_bytes(*length) as usize;
        let data = after.get(..length)?;
        rest = after.get(length.next_multiple_of(2)..).unwrap_or_default();
        Some((*number, data))
    };
    for _ in 0..MOST {
        match next() {
            Some((IPTC, datasets)) => read(datasets, found),
            Some(_) => {}
            None => break,
        }
    }
}

/// Datasets: 0x1c, record, number, length, value.
pub(super) fn read(datasets: &[u8], found: &mut Found<'_>) {
    const CREDIT: [u8; 2] = [2, 110];
    const PROGRAM: [u8; 2] = [2, 65];
    let mut rest = datasets;
    let mut next = || {
        let &[0x1c, record, number, high, low, ref after @ ..] = rest else { return None };
        let (value, after) = after.split_at_checked(u16::from_be_bytes([high, low]).into())?;
        rest = after;
        Some(([record, number], value))
    };
    for _ in 0..MOST {
        let Some((dataset, value)) = next() else { break };
        let value = String::from_utf8_lossy(value.get(..MOST_TEXT).unwrap_or(value));
        match dataset {
            CREDIT => found.add_mark(Source::Iptc, "Credit", "IPTC credit", &value),
            PROGRAM => found.add_mark(Source::Iptc, "Program", "IPTC program", &value),
            _ => false,
        };
    }
}
