//! HEIC. The container is read here (`picture`); the pixels are decoded in a process of its own ([`child`](super::child)) by
//! libde265, which that process opens (`hevc`). As in pillow-heif 1.8, the reference: cropped, turned and mirrored as the
//! container says, whatever EXIF says; transparency is dropped; colour profiles are ignored.

#[cfg(feature = "server")]
pub(crate) mod child;
#[cfg(feature = "server")]
mod hevc;
mod picture;
mod rgb;
mod turn;

use std::{path::Path, time::Duration};

use serde::{Deserialize, Serialize};

use self::{
    picture::{Coded, Picture},
    rgb::Method,
    turn::View,
};
use super::{
    Cancel, Encoding, Format, Header, ImageError,
    child::{Job, UNKNOWN_MATRIX, Work, process},
    cost,
    properties::Cicp,
    rows::RowSink,
};

/// What the process is asked to do.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Task {
    samples: Samples,
    /// Width and height of each tile; a picture of one is its own tile.
    tile: [u32; 2],
    /// Columns and rows of tiles.
    grid: [u32; 2],
    /// Width and height of the tiles put together, which may reach further.
    size: [u32; 2],
    /// The part that is shown, and how; `None` only to see whether the picture can be decoded.
    view: Option<View>,
    /// What the container says of the colours; otherwise the stream does.
    cicp: Option<Cicp>,
}

/// How a picture is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Samples {
    /// Bits of a sample, 8 to 16.
    depth: u8,
    /// Logarithms of the chroma planes' subsampling across and down; without chroma planes `None`.
    subsampling: Option<[u8; 2]>,
}

impl Samples {
    fn bytes(self) -> usize {
        if self.depth == 8 { 1 } else { 2 }
    }

    /// Width and height of each plane of a picture.
    fn planes(self, [width, height]: [u32; 2]) -> impl Iterator<Item = [u32; 2]> {
        let chroma = self.subsampling.map(|[x, y]| [width.div_ceil(1 << x), height.div_ceil(1 << y)]);
        std::iter::once([width, height]).chain(chroma.into_iter().flat_map(|size| [size; 2]))
    }

    /// Bytes of a picture's planes.
    fn memory(self, size: [u32; 2]) -> u64 {
        let samples = self.planes(size).map(|[width, height]| u64::from(width) * u64::from(height));
        samples.fold(0, u64::saturating_add).saturating_mul(self.bytes() as u64)
    }
}

/// The subcommand of `lfm-serve`.
pub(crate) const COMMAND: &str = "decode-hevc";

impl Work for Task {
    const FORMAT: Format = Format::Heic;
    const COMMAND: &str = COMMAND;

    fn output(&self) -> Option<(u32, u32)> {
        self.view.map(View::shown)
    }
}

/// The version of libde265 on this machine, found by the program that would decode with it.
///
/// # Errors
/// One line for the operator: it is missing, and what to do.
pub fn heif_library(program: Option<&Path>) -> Result<String, String> {
    const MISSING: &str = "HEIC needs libde265, an HEVC decoder, which is not installed: it is the package libde265-0 of Debian \
                           and Ubuntu, libde265 of others";
    process::ask(program, COMMAND).ok_or_else(|| MISSING.to_owned())
}

/// Nanoseconds per pixel and per byte of the samples as they are coded, and per byte of the stream; of starting a process and
/// opening the library.
const PIXEL: f64 = 20.0;
const SAMPLE_BYTE: f64 = 8.0;
const BYTE: f64 = 85.0;
const PROCESS: f64 = 5e6;

fn terms(tiles: &[Coded<'_>]) -> impl Iterator<Item = (u64, f64)> {
    let sum = |count: fn(&Coded<'_>) -> u64| tiles.iter().map(count).fold(0, u64::saturating_add);
    let pixels = sum(|tile| u64::from(tile.size[0]) * u64::from(tile.size[1]));
    let samples = sum(|tile| tile.samples.memory(tile.size));
    let bytes = sum(|tile| tile.data.len() as u64);
    [(1, PROCESS), (pixels, PIXEL), (samples, SAMPLE_BYTE), (bytes, BYTE)].into_iter()
}

/// Memory of the decoder's process.
fn memory(task: &Task, data: u64) -> u64 {
    const PROCESS: u64 = 4 << 20;
    // A tile's planes and what the decoder keeps for each of its blocks.
    let tile = task.samples.memory(task.tile).saturating_mul(3);
    // As it is read, in a buffer that grows twofold, and as the decoder holds it.
    (PROCESS + 3 * data).saturating_add(task.samples.memory(task.size)).saturating_add(tile)
}

pub(super) fn inspect(bytes: &[u8]) -> Result<Header, ImageError> {
    let picture = Picture::parse(bytes)?;
    let task = &picture.task;
    if let Some(cicp) = task.cicp {
        Method::new(task.samples, cicp).ok_or_else(|| Format::Heic.unsupported(UNKNOWN_MATRIX))?;
    }
    let (width, height) = picture.view.shown();
    let terms = terms(&picture.tiles).chain(picture.alpha.iter().flat_map(|alpha| terms(std::slice::from_ref(alpha))));
    let terms: Vec<_> = terms.chain([(u64::from(width) * u64::from(height), cost::ROW_PIXEL)]).collect();
    Ok(Header {
        format: Format::Heic,
        width,
        height,
        // It is applied.
        exif_orientation: 1,
        frames: picture.frames,
        encoding: Encoding::Lossy { quality: None },
        peak_bytes: memory(task, picture.stream_bytes()),
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
    let picture = Picture::parse(bytes)?;
    let stream = |tiles: &[Coded<'_>]| {
        let mut stream = Vec::new();
        tiles.iter().for_each(|tile| tile.write(&mut stream));
        stream
    };
    // Damaged transparency is a damaged file to the reference, though it is dropped.
    if let Some(alpha) = &picture.alpha {
        let task =
            Task { samples: alpha.samples, tile: alpha.size, grid: [1, 1], size: alpha.size, view: None, cicp: None };
        let memory = memory(&task, alpha.bytes());
        let job = Job::new(task, memory, header.cost);
        process::decode(program, &job, &stream(std::slice::from_ref(alpha)), cancel, |_| ())?;
    }
    let memory = memory(&picture.task, picture.stream_bytes());
    let job = Job::new(picture.task, memory, header.cost);
    process::decode(program, &job, &stream(&picture.tiles), cancel, |row| sink.row(row))
}
