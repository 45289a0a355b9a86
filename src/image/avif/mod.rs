//! AVIF. The container and the stream's headers are read here; the pixels are decoded in a process of its own
//! ([`child`](super::child)). As in Pillow, rotation and mirroring are told and not applied, and colour profiles are ignored.

#[cfg(feature = "server")]
mod av1;
#[cfg(feature = "server")]
pub(crate) mod child;
mod colour;
#[cfg(feature = "server")]
mod rgb;
mod stream;

use std::{borrow::Cow, path::Path, time::Duration};

use serde::{Deserialize, Serialize};

use self::{
    colour::Method,
    stream::{Shape, Summary},
};
use super::{
    Cancel, Encoding, Format, Header, ImageError,
    boxes::{Item, Meta},
    child::{Job, UNKNOWN_MATRIX, Work, process},
    cost,
    properties::{Cicp, extent, is_alpha, nclx},
    rows::RowSink,
};

/// What the process is asked to do.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Task {
    shape: Shape,
    /// How to convert it; `None` only to see whether it can be decoded.
    colours: Option<Colours>,
}

/// What the samples mean.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct Colours {
    cicp: Cicp,
    alpha: bool,
}

/// The subcommand of `lfm-serve`.
pub(crate) const COMMAND: &str = "decode-av1";

impl Work for Task {
    const FORMAT: Format = Format::Avif;
    const COMMAND: &str = COMMAND;

    fn output(&self) -> Option<(u32, u32)> {
        self.colours.map(|_| (self.shape.width, self.shape.height))
    }
}

const DAMAGED: &str = "its container is damaged or truncated";

fn damaged() -> ImageError {
    Format::Avif.undecodable(DAMAGED)
}

/// The picture and its transparency.
struct Container<'a> {
    colour: Stream<'a>,
    alpha: Option<Stream<'a>>,
    cicp: Cicp,
    exif_orientation: u8,
}

struct Stream<'a> {
    data: Cow<'a, [u8]>,
    shape: Shape,
    cicp: Cicp,
    film_grain: bool,
}

impl<'a> Container<'a> {
    fn parse(bytes: &'a [u8]) -> Result<Self, ImageError> {
        let unsupported = |reason| Format::Avif.unsupported(reason);
        if bytes.get(8..12) == Some(b"avis") {
            return Err(unsupported("it is an animation; send one frame of it as JPEG or PNG"));
        }
        let meta = Meta::read(bytes).ok_or_else(damaged)?;
        let primary = meta.item(meta.primary).ok_or_else(damaged)?;
        match &primary.kind {
            b"av01" => {}
            b"grid" => return Err(unsupported("it is put together from several pictures; convert it to JPEG or PNG")),
            _ => return Err(unsupported("its picture is in another code than AV1; convert it to JPEG or PNG")),
        }
        let colour = Stream::read(&meta, primary)?;
        let alpha = meta
            .items()
            .iter()
            .find(|item| item.kind == *b"av01" && meta.refers(b"auxl", item.id, primary.id) && is_alpha(&meta, item));
        if alpha.is_some_and(|alpha| meta.refers(b"prem", primary.id, alpha.id)) {
            return Err(unsupported("its colours are multiplied with its transparency; convert it to JPEG or PNG"));
        }
        let alpha = alpha.map(|alpha| Stream::read(&meta, alpha)).transpose()?;
        if alpha
            .as_ref()
            .is_some_and(|alpha| (alpha.shape.width, alpha.shape.height) != (colour.shape.width, colour.shape.height))
        {
            return Err(unsupported("its transparency has another size; convert it to JPEG or PNG"));
        }
        let cicp = nclx(&meta, primary).map_err(unsupported)?.unwrap_or(colour.cicp);
        let exif_orientation = orientation(&meta, primary);
        Ok(Self { colour, alpha, cicp, exif_orientation })
    }

    fn method(&self) -> Option<Method> {
        Method::new(self.colour.shape, self.cicp, self.alpha.is_some())
    }
}

impl<'a> Stream<'a> {
    fn read(meta: &Meta<'a>, item: &Item<'a>) -> Result<Self, ImageError> {
        let unsupported = |reason| Err(Format::Avif.unsupported(reason));
        for ((kind, _), essential) in meta.properties(item) {
            match &kind {
                b"a1op" | b"a1lx" | b"lsel" => return unsupported("it has layers; convert it to JPEG or PNG"),
                b"ispe" | b"av1C" | b"pixi" | b"colr" | b"irot" | b"imir" | b"clap" | b"pasp" | b"auxC" => {}
                _ if essential => {
                    return unsupported("it needs a reader with more than AVIF's basics; convert it to JPEG or PNG");
                }
                _ => {}
            }
        }
        meta.property(item, b"av1C").ok_or_else(damaged)?;
        let data = meta.data(item).ok_or_else(damaged)?;
        let Summary { shape, cicp, film_grain, frames } = Summary::read(&data).ok_or_else(damaged)?;
        if frames != 1 {
            return unsupported("its picture has several frames; convert it to JPEG or PNG");
        }
        if extent(meta, item) != Some((shape.width, shape.height)) {
            return unsupported("its picture would have to be enlarged or reduced; convert it to JPEG or PNG");
        }
        Ok(Self { data, shape, cicp, film_grain })
    }
}

/// Rotation and mirroring as an orientation of EXIF, whatever the EXIF block says, as Pillow has it: first turned
/// anti-clockwise, then mirrored.
fn orientation(meta: &Meta<'_>, item: &Item<'_>) -> u8 {
    let byte = |kind| meta.property(item, kind).and_then(|payload| payload.first().copied());
    let angle = byte(b"irot").map_or(0, |byte| byte & 3);
    let axis = byte(b"imir").map(|byte| byte & 1);
    match (angle, axis) {
        (0, None) => 1,
        (0, Some(1)) => 2,
        (0, Some(_)) => 4,
        (1, None) => 8,
        (1, Some(1)) => 7,
        (1, Some(_)) => 5,
        (2, None) => 3,
        (2, Some(1)) => 4,
        (2, Some(_)) => 2,
        (_, None) => 6,
        (_, Some(1)) => 5,
        (_, Some(_)) => 7,
    }
}

/// Nanoseconds per pixel of 8 bits and of more, and per byte of the stream; of starting a process.
const PIXEL: f64 = 16.0;
const DEEP_PIXEL: f64 = 34.0;
const BYTE: f64 = 85.0;
const PROCESS: f64 = 2.4e6;

fn terms(stream: &Stream<'_>) -> [(u64, f64); 3] {
    let Shape { width, height, depth, .. } = stream.shape;
    let pixel = if depth == 8 { PIXEL } else { DEEP_PIXEL };
    [(1, PROCESS), (u64::from(width) * u64::from(height), pixel), (stream.data.len() as u64, BYTE)]
}

/// Memory of a decoder's process.
fn memory(stream: &Stream<'_>) -> u64 {
    const PROCESS: u64 = 4 << 20;
    // As it is read, in a buffer that grows twofold, and as the decoder holds it.
    let data = 3 * stream.data.len() as u64;
    let picture = if stream.shape.depth == 8 { 1 } else { 2 } * if stream.film_grain { 2 } else { 1 };
    // A further byte for the data that is kept for each block.
    PROCESS + data + stream.shape.samples() * (picture + 1)
}

pub(super) fn inspect(bytes: &[u8]) -> Result<Header, ImageError> {
    let container = Container::parse(bytes)?;
    container.method().ok_or_else(|| Format::Avif.unsupported(UNKNOWN_MATRIX))?;
    let Container { colour, alpha, .. } = &container;
    let streams = || std::iter::once(colour).chain(alpha);
    let terms: Vec<_> = streams()
        .flat_map(terms)
        .chain([(u64::from(colour.shape.width) * u64::from(colour.shape.height), cost::ROW_PIXEL)])
        .collect();
    Ok(Header {
        format: Format::Avif,
        width: colour.shape.width,
        height: colour.shape.height,
        exif_orientation: container.exif_orientation,
        frames: 1,
        encoding: Encoding::Lossy { quality: None },
        peak_bytes: streams().map(memory).max().unwrap_or_default(),
        cost: cost::cost(&terms),
        row_cost: Duration::ZERO,
    })
}

pub(super) fn decode(
    bytes: &[u8],
    header: &Header,
    program: Option<&Path>,
    sink: &mut dyn RowSink,
    cancel: &Cancel,
) -> Result<(), ImageError> {
    let Container { colour, alpha, cicp, .. } = Container::parse(bytes)?;
    let job =
        |stream: &Stream<'_>, colours| Job::new(Task { shape: stream.shape, colours }, memory(stream), header.cost);
    // Damaged transparency is a damaged file to the reference, though it is dropped.
    if let Some(alpha) = &alpha {
        process::decode(program, &job(alpha, None), &alpha.data, cancel, |_| ())?;
    }
    let colours = Colours { cicp, alpha: alpha.is_some() };
    process::decode(program, &job(&colour, Some(colours)), &colour.data, cancel, |row| sink.row(row))
}
