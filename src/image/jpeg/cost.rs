//! Decode cost of a JPEG: it depends on the coding and the scans, not only on the pixels.

use super::{
    Frame,
    markers::{SOS, Segment, Segments},
    reader,
};

/// Nanoseconds to convert a pixel, to transform and upsample a sample, and per byte of stored coefficients.
const PIXEL: f64 = 0.5;
const SAMPLE: f64 = 0.6;
const COEFFICIENT_BYTE: f64 = 0.15;

/// Nanoseconds per byte of the file, and per block of each scan, even if the scan encodes nothing for it.
struct Coding {
    byte: f64,
    block: f64,
}

const HUFFMAN: Coding = Coding { byte: 5.0, block: 10.0 };
const PROGRESSIVE: Coding = Coding { byte: 12.0, block: 6.0 };
/// A block takes 20 ns where the data is whole. Where it ends early, libjpeg-turbo goes on with zeros, 400 ns a block.
const ARITHMETIC: Coding = Coding { byte: 80.0, block: 100.0 };
const PROGRESSIVE_ARITHMETIC: Coding = Coding { byte: 48.0, block: 60.0 };
const LOSSLESS: Coding = Coding { byte: 5.0, block: 0.0 };

/// Counts and the time of each, for [`cost`](crate::image::cost::cost).
pub(super) fn terms(bytes: &[u8], frame: &Frame, many_scans: bool) -> [(u64, f64); 5] {
    let coding = match frame {
        Frame { lossless: true, .. } => LOSSLESS,
        Frame { progressive: true, arithmetic: true, .. } => PROGRESSIVE_ARITHMETIC,
        Frame { progressive: true, .. } => PROGRESSIVE,
        Frame { arithmetic: true, .. } => ARITHMETIC,
        _ => HUFFMAN,
    };
    let blocks: u64 = frame.blocks.iter().map(|&(_, blocks)| blocks).sum();
    let (visited, kept) = if many_scans { (visited(bytes, frame), frame.coefficient_bytes) } else { (blocks, 0) };
    [
        (u64::from(frame.width) * u64::from(frame.height), PIXEL),
        (blocks * 64, SAMPLE),
        (bytes.len() as u64, coding.byte),
        (visited, coding.block),
        (kept, COEFFICIENT_BYTE),
    ]
}

/// Total blocks of all scans, up to the limit of scans.
fn visited(bytes: &[u8], frame: &Frame) -> u64 {
    let most = reader::max_scans(u64::from(frame.width) * u64::from(frame.height)) as usize;
    let scans = Segments::new(bytes).filter(|segment| segment.marker == SOS).take(most);
    let blocks_of = |scan: Segment<'_>| -> u64 {
        let components = usize::from(scan.body.first().copied().unwrap_or(0));
        let ids = scan.body.get(1..).unwrap_or_default().chunks_exact(2).take(components).map(|c| c[0]);
        let blocks = |id| frame.blocks.iter().find(|&&(of, _)| of == id).map_or(0, |&(_, blocks)| blocks);
        ids.map(blocks).sum()
    };
    scans.map(blocks_of).sum()
}
