//! The boxes of a C2PA store (JUMBF, ISO 19566-5), counted before anything is made of them: what the library that
//! checks a store takes, in time and memory, grows with them.

/// Bytes of a store. Those of real files have tens to hundreds of kilobytes, most of them thumbnails.
const MOST_BYTES: usize = 8 << 20;

/// Manifests of a store: the picture's own, and those of what it was made of.
const MOST_MANIFESTS: usize = 64;

/// Boxes of a store, at all depths. The library's time grows with their square; those of real files are below 50.
const MOST_BOXES: u64 = 1024;

/// Boxes around a box.
const MOST_DEPTH: usize = 12;

const SUPERBOX: &[u8; 4] = b"jumb";

/// How the labels of ingredients begin.
const INGREDIENT: &[u8] = b"c2pa.ingredient";

/// A manifest under Brotli (C2PA 2.2 section 11.1.4.2): few bytes can be megabytes, whose boxes are not seen here.
const COMPRESSED: &[u8; 4] = b"brob";

/// What a store consists of.
#[derive(Debug, Default)]
pub(super) struct Parts {
    pub(super) boxes: u64,
    pub(super) ingredients: u64,
}

/// The parts of a store that is worth checking; else why it is not.
pub(super) fn parts(store: &[u8]) -> Result<Parts, &'static str> {
    if store.len() > MOST_BYTES {
        return Err("a manifest store of more than 8 MiB, which is not checked");
    }
    let mut parts = Parts::default();
    let mut manifests = 0;
    // The rest of each level.
    let mut levels = vec![store];
    while let Some(rest) = levels.last_mut() {
        let Some((kind, body)) = next(rest) else {
            levels.pop();
            continue;
        };
        parts.boxes += 1;
        if kind == COMPRESSED {
            return Err("a compressed manifest, which is not checked");
        }
        if kind == SUPERBOX {
            manifests += usize::from(levels.len() == 2);
            parts.ingredients += u64::from(label(body).is_some_and(|label| label.starts_with(INGREDIENT)));
            levels.push(body);
        }
        if parts.boxes > MOST_BOXES || manifests > MOST_MANIFESTS || levels.len() > MOST_DEPTH {
            return Err("a manifest store of too many parts, which is not checked");
        }
    }
    Ok(parts)
}

/// What a superbox is called (ISO 19566-5 section A.3): its description has a UUID and flags in front of it.
fn label(mut superbox: &[u8]) -> Option<&[u8]> {
    const UUID_AND_FLAGS: usize = 17;
    let (_, description) = next(&mut superbox).filter(|(kind, _)| *kind == b"jumd")?;
    description.get(UUID_AND_FLAGS..)
}

/// The next box of a level, as far as the bytes go: type and content.
fn next<'a>(rest: &mut &'a [u8]) -> Option<(&'a [u8; 4], &'a [u8])> {
    let (length, after) = rest.split_first_chunk()?;
    let (kind, after) = after.split_first_chunk::<4>()?;
    let (header, length) = match u32::from_be_bytes(*length) {
        // To the end.
        0 => (8, rest.len()),
        1 => (16, usize::try_from(u64::from_be_bytes(*after.first_chunk()?)).ok()?),
        length => (8, length as usize),
    };
    let end = length.clamp(header, rest.len().max(header));
    let body = rest.get(header..end)?;
    *rest = rest.get(end..)?;
    Some((kind, body))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn superbox(content: &[u8]) -> Vec<u8> {
        [&(content.len() as u32 + 8).to_be_bytes(), SUPERBOX.as_slice(), content].concat()
    }

    #[test]
    fn only_stores_of_reasonable_size_are_checked() {
        let manifests = |count: usize| superbox(&superbox(b"").repeat(count));
        assert!(parts(&manifests(MOST_MANIFESTS)).is_ok());
        assert!(parts(&manifests(MOST_MANIFESTS + 1)).is_err());
        let nested = |depth: usize| (0..depth).fold(Vec::new(), |inner, _| superbox(&inner));
        assert!(parts(&nested(MOST_DEPTH - 1)).is_ok());
        assert!(parts(&nested(MOST_DEPTH)).is_err());
        assert!(parts(&nested(10_000)).is_err());
        assert!(parts(&superbox(&superbox(&b"\0\0\0\x08cbor".repeat(MOST_BOXES as usize)))).is_err());
        assert!(parts(&vec![0; MOST_BYTES + 1]).is_err());
        assert!(parts(&superbox(&superbox(b"\0\0\0\x08brob"))).is_err());
        // Lengths that say too much, too little or nothing.
        for bytes in [&b"\xff\xff\xff\xffjumb\0\0\0\x02jumb"[..], b"\0\0\0\0jumb\0\0\0\0jumb", b"\0\0\0\x01jumb\0", b""]
        {
            assert!(parts(bytes).is_ok());
        }
    }
}
