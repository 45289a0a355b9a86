//! The container: the picture as one HEVC stream, or as a grid of them, and how it is shown.

use std::{borrow::Cow, collections::BTreeSet};

use super::{Samples, Task, turn::View};
use crate::image::{
    Format, ImageError,
    boxes::{Item, Meta, Reader},
    properties::{extent, is_alpha, nclx},
};

fn unsupported(reason: &'static str) -> ImageError {
    Format::Heic.unsupported(reason)
}

fn damaged() -> ImageError {
    Format::Heic.undecodable("its container is damaged or truncated")
}

pub(super) struct Picture<'a> {
    /// To decode it.
    pub(super) task: Task,
    pub(super) view: View,
    /// From left to right, from top to bottom.
    pub(super) tiles: Vec<Coded<'a>>,
    pub(super) alpha: Option<Coded<'a>>,
    /// Pictures in the file.
    pub(super) frames: u32,
}

impl<'a> Picture<'a> {
    pub(super) fn parse(bytes: &'a [u8]) -> Result<Self, ImageError> {
        if matches!(bytes.get(8..12), Some(b"hevc" | b"hevx" | b"msf1")) {
            return Err(unsupported("it is an animation; send one frame of it as JPEG or PNG"));
        }
        let meta = Meta::read(bytes).ok_or_else(damaged)?;
        let primary = meta.item(meta.primary).ok_or_else(damaged)?;
        let alpha = meta.items().iter().find(|item| meta.refers(b"auxl", item.id, primary.id) && is_alpha(&meta, item));
        if !is_shown(&meta, primary) && matches!(&primary.kind, b"hvc1" | b"grid") {
            return Err(unsupported("its main picture is one that is not to be shown; convert it to JPEG or PNG"));
        }
        let (tiles, grid) = match &primary.kind {
            b"hvc1" => (vec![Coded::read(&meta, primary)?], [1, 1]),
            b"grid" if alpha.is_some() => {
                return Err(unsupported("it is put together from parts with transparency; convert it to JPEG or PNG"));
            }
            b"grid" => grid(&meta, primary)?,
            _ => return Err(unsupported("its picture is in another code than HEVC; convert it to JPEG or PNG")),
        };
        let [first, ..] = tiles.as_slice() else { return Err(damaged()) };
        if tiles.iter().any(|tile| (tile.size, tile.samples) != (first.size, first.samples)) {
            return Err(unsupported("its parts differ in size or depth; convert it to JPEG or PNG"));
        }
        // Each byte is a part of one stream.
        if tiles.iter().map(|tile| tile.data.len()).sum::<usize>() > bytes.len() {
            return Err(damaged());
        }
        let size = extent(&meta, primary).map(<[u32; 2]>::from).ok_or_else(damaged)?;
        let (samples, tile) = (first.samples, first.size);
        if samples.subsampling.is_none() && samples.depth > 8 {
            return Err(unsupported("it is grey of more than 8 bits; convert it to JPEG or PNG"));
        }
        let covered = |axis: usize| u64::from(tile[axis]) * u64::from(grid[axis]) >= u64::from(size[axis]);
        if !covered(0) || !covered(1) {
            return Err(damaged());
        }
        if alpha.is_some_and(|alpha| meta.refers(b"prem", primary.id, alpha.id)) {
            return Err(unsupported("its colours are multiplied with its transparency; convert it to JPEG or PNG"));
        }
        let alpha = alpha.map(|alpha| Coded::read(&meta, alpha)).transpose()?;
        if alpha.as_ref().is_some_and(|alpha| (alpha.size, alpha.samples.depth) != (size, samples.depth)) {
            return Err(unsupported("its transparency has another size or depth; convert it to JPEG or PNG"));
        }
        let view = view(&meta, primary, size, samples)?;
        let cicp = nclx(&meta, primary).map_err(unsupported)?;
        let frames = meta.items().iter().filter(|item| is_shown(&meta, item)).count() as u32;
        let task = Task { samples, tile, grid, size, view: Some(view), cicp };
        Ok(Self { task, view, tiles, alpha, frames })
    }

    /// Bytes that the process is sent.
    pub(super) fn stream_bytes(&self) -> u64 {
        self.tiles.iter().map(Coded::bytes).sum()
    }
}

/// An HEVC picture.
pub(super) struct Coded<'a> {
    /// Its parameter sets, each behind its length in 4 bytes.
    sets: Vec<u8>,
    /// Its slices in the same form.
    pub(super) data: Cow<'a, [u8]>,
    pub(super) size: [u32; 2],
    pub(super) samples: Samples,
}

impl<'a> Coded<'a> {
    fn read(meta: &Meta<'a>, item: &Item<'a>) -> Result<Self, ImageError> {
        if item.kind != *b"hvc1" {
            return Err(unsupported("a part of it is in another code than HEVC; convert it to JPEG or PNG"));
        }
        check_properties(meta, item)?;
        let (samples, sets) = meta.property(item, b"hvcC").and_then(configuration).ok_or_else(damaged)?;
        let size = extent(meta, item).ok_or_else(damaged)?.into();
        Ok(Self { sets, data: meta.data(item).ok_or_else(damaged)?, size, samples: samples? })
    }

    pub(super) fn bytes(&self) -> u64 {
        4 + self.sets.len() as u64 + self.data.len() as u64
    }

    /// Appends it behind its length in 4 bytes.
    pub(super) fn write(&self, stream: &mut Vec<u8>) {
        let length = (self.sets.len() + self.data.len()) as u32;
        [&length.to_be_bytes(), self.sets.as_slice(), &self.data]
            .into_iter()
            .for_each(|part| stream.extend_from_slice(part));
    }
}

/// `hvcC` (ISO 14496-15, section 8.3.3.1): how the picture is stored, and its parameter sets.
fn configuration(payload: &[u8]) -> Option<(Result<Samples, ImageError>, Vec<u8>)> {
    /// Longer sets than any encoder writes; a grid has them for each of its parts.
    const MOST_BYTES: usize = 4096;
    let mut reader = Reader(payload);
    reader.take(16)?;
    let mut bits = |mask: u8| Some(reader.unsigned(1)? as u8 & mask);
    let (chroma, luma_depth, chroma_depth) = (bits(3)?, bits(7)? + 8, bits(7)? + 8);
    // The frame rate.
    reader.take(2)?;
    let length_bytes = (reader.unsigned(1)? & 3) + 1;
    let mut sets = Vec::new();
    for _ in 0..reader.unsigned(1)? {
        // Their type.
        reader.take(1)?;
        for _ in 0..reader.unsigned(2)? {
            let set = reader.unsigned(2)? as usize;
            let set = reader.take(set)?;
            sets.extend_from_slice(&(set.len() as u32).to_be_bytes());
            sets.extend_from_slice(set);
            (sets.len() <= MOST_BYTES).then_some(())?;
        }
    }
    let subsampling = [None, Some([1, 1]), Some([1, 0]), Some([0, 0])][usize::from(chroma)];
    let samples = if length_bytes != 4 {
        Err(unsupported("its stream is cut up in an unusual way; convert it to JPEG or PNG"))
    } else if luma_depth > 12 || subsampling.is_some() && luma_depth != chroma_depth {
        Err(unsupported("its samples have an unusual depth; convert it to JPEG or PNG"))
    } else {
        Ok(Samples { depth: luma_depth, subsampling })
    };
    Some((samples, sets))
}

/// The parts of a grid, its columns and rows.
fn grid<'a>(meta: &Meta<'a>, item: &Item<'a>) -> Result<(Vec<Coded<'a>>, [u32; 2]), ImageError> {
    check_properties(meta, item)?;
    let data = meta.data(item).ok_or_else(damaged)?;
    let mut reader = Reader(&data);
    let mut number = |bytes| reader.unsigned(bytes).and_then(|number| u32::try_from(number).ok()).ok_or_else(damaged);
    number(1)?;
    let wide = number(1)? & 1 == 1;
    let (rows, columns) = (number(1)? + 1, number(1)? + 1);
    let size = (number(if wide { 4 } else { 2 })?, number(if wide { 4 } else { 2 })?);
    if extent(meta, item) != Some(size) {
        return Err(unsupported("its picture would have to be enlarged or reduced; convert it to JPEG or PNG"));
    }
    let ids: Vec<_> = meta.pairs(b"dimg").filter(|&(from, _)| from == item.id).map(|(_, tile)| tile).collect();
    // Looking at each once bounds the time that a header takes.
    if ids.iter().collect::<BTreeSet<_>>().len() < ids.len() {
        return Err(unsupported("it repeats a part of it; convert it to JPEG or PNG"));
    }
    let alphas: BTreeSet<_> = meta.items().iter().filter(|item| is_alpha(meta, item)).map(|item| item.id).collect();
    let transparent: BTreeSet<_> =
        meta.pairs(b"auxl").filter(|(alpha, _)| alphas.contains(alpha)).map(|(_, tile)| tile).collect();
    let tile = |id| {
        let tile = meta.item(id).ok_or_else(damaged)?;
        let is_turned = [b"irot", b"imir", b"clap"].into_iter().any(|kind| meta.property(tile, kind).is_some());
        if is_turned || transparent.contains(&id) {
            return Err(unsupported("parts of it are turned, cut or transparent; convert it to JPEG or PNG"));
        }
        let tile = Coded::read(meta, tile)?;
        // No row of tiles is longer than a picture may be.
        if tile.size.iter().any(|&side| side > 1 << 16) { Err(damaged()) } else { Ok(tile) }
    };
    let tiles = ids.into_iter().map(tile).collect::<Result<Vec<_>, _>>()?;
    if tiles.len() as u64 != u64::from(rows) * u64::from(columns) {
        return Err(damaged());
    }
    Ok((tiles, [columns, rows]))
}

fn check_properties(meta: &Meta<'_>, item: &Item<'_>) -> Result<(), ImageError> {
    for ((kind, _), essential) in meta.properties(item) {
        match &kind {
            b"ispe" | b"hvcC" | b"pixi" | b"colr" | b"irot" | b"imir" | b"clap" | b"pasp" | b"auxC" => {}
            _ if essential => {
                return Err(unsupported("it needs a reader with more than HEIC's basics; convert it to JPEG or PNG"));
            }
            _ => {}
        }
    }
    Ok(())
}

/// What is shown of a picture, in the order of its properties.
fn view(meta: &Meta<'_>, item: &Item<'_>, size: [u32; 2], samples: Samples) -> Result<View, ImageError> {
    let mut view = View::whole(size);
    for ((kind, payload), _) in meta.properties(item) {
        match &kind {
            b"clap" if view == View::whole(size) => {
                view = aperture(payload, view)
                    .ok_or_else(|| unsupported("it is cut between its pixels; convert it to JPEG or PNG"))?;
            }
            b"clap" => return Err(unsupported("it is cut in an unusual way; convert it to JPEG or PNG")),
            b"irot" => {
                let turns = payload.first().ok_or_else(damaged)? & 3;
                view = (0..turns).fold(view, |view, _| view.rotated());
            }
            b"imir" => view = view.flipped(payload.first().ok_or_else(damaged)? & 1 == 1),
            _ => {}
        }
    }
    let [x, y] = samples.subsampling.unwrap_or_default();
    let divides = |shift: u8, at: u32| at.is_multiple_of(1 << shift);
    // The reference interpolates chroma samples there.
    if !divides(x, view.left) || !divides(y, view.top) {
        return Err(unsupported("it is cut between its chroma samples; convert it to JPEG or PNG"));
    }
    if view.is_turned() && (!divides(x, view.width) || !divides(y, view.height) || view.swapped && x != y) {
        return Err(unsupported("it is turned around half a chroma sample; convert it to JPEG or PNG"));
    }
    Ok(view)
}

/// `clap` (ISO 14496-12, section 12.1.4): width, height, and how far its centre lies from the picture's, as fractions.
fn aperture(payload: &[u8], whole: View) -> Option<View> {
    let mut reader = Reader(payload);
    let mut side = |side: u32| {
        let (over, under) = (reader.unsigned(4)?, reader.unsigned(4)?);
        let shown = u32::try_from(over.checked_div(under).filter(|shown| shown * under == over)?).ok()?;
        (1..=side).contains(&shown).then_some(shown)
    };
    let (width, height) = (side(whole.width)?, side(whole.height)?);
    let mut start = |side: u32, shown: u32| {
        let (offset, under) = (reader.unsigned(4)? as u32 as i32, reader.unsigned(4)?);
        // Twice the offset, twice the margin.
        let (twice, under) = (2 * i64::from(offset), i64::try_from(under).ok()?);
        let offset = twice.checked_div(under).filter(|offset| offset * under == twice)?;
        let margin = i64::from(side - shown);
        let start = u32::try_from(offset + margin).ok().filter(|start| start.is_multiple_of(2))? / 2;
        (start <= side - shown).then_some(start)
    };
    Some(View { left: start(whole.width, width)?, top: start(whole.height, height)?, width, height, ..whole })
}

/// Whether a viewer would show it as a picture: it is neither hidden nor made for another one.
fn is_shown(meta: &Meta<'_>, item: &Item<'_>) -> bool {
    let is_picture = matches!(&item.kind, b"hvc1" | b"grid" | b"iden" | b"iovl" | b"av01" | b"jpeg");
    is_picture && !item.hidden && !meta.serves(b"thmb", item.id) && !meta.serves(b"auxl", item.id)
}
