//! Properties of items that AVIF and HEIC share (ISO 23008-12).

use serde::{Deserialize, Serialize};

use super::boxes::{Item, Meta, Reader};

/// Code points of ITU-T H.273: what the samples mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Cicp {
    pub(super) primaries: u16,
    pub(super) matrix: u16,
    pub(super) full_range: bool,
}

/// Width and height as the container has them.
pub(super) fn extent(meta: &Meta<'_>, item: &Item<'_>) -> Option<(u32, u32)> {
    let mut extent = Reader(meta.property(item, b"ispe")?);
    extent.version()?;
    let mut side = || u32::try_from(extent.unsigned(4)?).ok();
    Some((side()?, side()?))
}

pub(super) fn is_alpha(meta: &Meta<'_>, item: &Item<'_>) -> bool {
    let urn = meta.property(item, b"auxC").and_then(|payload| payload.get(4..)).unwrap_or_default();
    [b"urn:mpeg:mpegB:cicp:systems:auxiliary:alpha\0".as_slice(), b"urn:mpeg:hevc:2015:auxid:1\0"]
        .iter()
        .any(|alpha| urn.starts_with(alpha))
}

/// The colours that the container tells, which go before the stream's own.
pub(super) fn nclx(meta: &Meta<'_>, item: &Item<'_>) -> Result<Option<Cicp>, &'static str> {
    let mut found =
        meta.properties(item).filter(|((kind, payload), _)| kind == b"colr" && payload.starts_with(b"nclx"));
    let Some(((_, payload), _)) = found.next() else { return Ok(None) };
    let mut reader = Reader(payload);
    let mut cicp = || {
        reader.take(4)?;
        let primaries = reader.unsigned(2)? as u16;
        // Transfer characteristics are not applied.
        reader.take(2)?;
        Some(Cicp { primaries, matrix: reader.unsigned(2)? as u16, full_range: reader.unsigned(1)? & 0x80 != 0 })
    };
    match (cicp(), found.next()) {
        (Some(cicp), None) => Ok(Some(cicp)),
        _ => Err("it tells its colours in two ways; convert it to JPEG or PNG"),
    }
}
