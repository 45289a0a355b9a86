//! What an AV1 stream says before it is decoded (AV1 specification, sections 5.3 to 5.5): the shape and the colours of its
//! picture, and how many frames it has.

use serde::{Deserialize, Serialize};

use crate::image::properties::Cicp;

/// How the chroma planes are subsampled; the numbers are dav1d's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Layout {
    I400 = 0,
    I420 = 1,
    I422 = 2,
    I444 = 3,
}

/// The planes of a picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Shape {
    pub(super) width: u32,
    pub(super) height: u32,
    /// Bits of a sample: 8, 10 or 12.
    pub(super) depth: u8,
    pub(super) layout: Layout,
}

impl Shape {
    /// Width and height of the chroma planes, if there are any.
    #[cfg(feature = "server")]
    pub(super) fn chroma(self) -> Option<(u32, u32)> {
        let half = |side: u32| side.div_ceil(2);
        match self.layout {
            Layout::I400 => None,
            Layout::I420 => Some((half(self.width), half(self.height))),
            Layout::I422 => Some((half(self.width), self.height)),
            Layout::I444 => Some((self.width, self.height)),
        }
    }

    /// Samples of all planes as the decoder holds them: in whole blocks of 128 x 128.
    pub(super) fn samples(self) -> u64 {
        const BLOCK: u32 = 128;
        let whole = |side: u32| u64::from(side.next_multiple_of(BLOCK));
        let luma = whole(self.width) * whole(self.height);
        match self.layout {
            Layout::I400 => luma,
            Layout::I420 => luma * 3 / 2,
            Layout::I422 => luma * 2,
            Layout::I444 => luma * 3,
        }
    }
}

/// A stream's first sequence header, and its frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Summary {
    pub(super) shape: Shape,
    pub(super) cicp: Cicp,
    /// Grain is laid over a second copy of the picture.
    pub(super) film_grain: bool,
    pub(super) frames: usize,
}

impl Summary {
    /// Nothing if the stream has no sequence header or is cut off.
    pub(super) fn read(mut stream: &[u8]) -> Option<Self> {
        const SEQUENCE_HEADER: u8 = 1;
        const FRAME_HEADER: u8 = 3;
        const FRAME: u8 = 6;
        let (mut sequence, mut frames) = (None, 0);
        while let Some((&head, rest)) = stream.split_first() {
            // Type, and whether there is an extension and a size.
            let (kind, extended, sized) = (head >> 3 & 15, head & 4 != 0, head & 2 != 0);
            let rest = rest.get(usize::from(extended)..)?;
            let (size, rest) = if sized { leb128(rest)? } else { (rest.len(), rest) };
            let (payload, rest) = rest.split_at_checked(size)?;
            match kind {
                SEQUENCE_HEADER if sequence.is_none() => sequence = Some(sequence_header(&mut Bits::new(payload))?),
                FRAME_HEADER | FRAME => frames += 1,
                _ => {}
            }
            stream = rest;
        }
        let (shape, cicp, film_grain) = sequence?;
        Some(Self { shape, cicp, film_grain, frames })
    }
}

/// A size in groups of seven bits, and what follows it.
fn leb128(bytes: &[u8]) -> Option<(usize, &[u8])> {
    let mut value = 0_u64;
    for (at, &byte) in bytes.iter().take(8).enumerate() {
        value |= u64::from(byte & 0x7f) << (7 * at);
        if byte & 0x80 == 0 {
            return Some((usize::try_from(value).ok()?, bytes.get(at + 1..)?));
        }
    }
    None
}

struct Bits<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Bits<'a> {
    fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// A number of at most 32 bits.
    fn take(&mut self, bits: u32) -> Option<u32> {
        let mut value = 0;
        for _ in 0..bits {
            let byte = self.bytes.get(self.at / 8)?;
            value = value << 1 | u32::from(byte >> (7 - self.at % 8) & 1);
            self.at += 1;
        }
        Some(value)
    }

    fn flag(&mut self) -> Option<bool> {
        Some(self.take(1)? == 1)
    }

    /// A number in the specification's `uvlc`, left out.
    fn skip_uvlc(&mut self) -> Option<()> {
        let mut zeros = 0;
        while !self.flag()? {
            zeros += 1;
        }
        self.take(if zeros < 32 { zeros } else { 0 }).map(drop)
    }
}

/// Section 5.5.1. Names are the specification's where a field is used.
fn sequence_header(bits: &mut Bits<'_>) -> Option<(Shape, Cicp, bool)> {
    let profile = bits.take(3)?;
    let _still_picture = bits.flag()?;
    let reduced = bits.flag()?;
    if reduced {
        bits.take(5)?;
    } else {
        operating_points(bits)?;
    }
    let (width_bits, height_bits) = (bits.take(4)? + 1, bits.take(4)? + 1);
    let (width, height) = (bits.take(width_bits)? + 1, bits.take(height_bits)? + 1);
    let frame_ids = !reduced && bits.flag()?;
    if frame_ids {
        bits.take(4 + 3)?;
    }
    // Superblocks of 128, filters of intra prediction.
    bits.take(3)?;
    if !reduced {
        inter_tools(bits)?;
    }
    // Super-resolution, CDEF, restoration.
    bits.take(3)?;
    let (depth, layout, cicp) = colour_config(bits, profile)?;
    if layout != Layout::I400 {
        let _separate_uv_delta_q = bits.flag()?;
    }
    let film_grain = bits.flag()?;
    Some((Shape { width, height, depth, layout }, cicp, film_grain))
}

fn operating_points(bits: &mut Bits<'_>) -> Option<()> {
    let mut delay_bits = None;
    let timing_info = bits.flag()?;
    if timing_info {
        bits.take(32)?;
        bits.take(32)?;
        let equal_picture_interval = bits.flag()?;
        if equal_picture_interval {
            bits.skip_uvlc()?;
        }
        let decoder_model_info = bits.flag()?;
        if decoder_model_info {
            delay_bits = Some(bits.take(5)? + 1);
            bits.take(32)?;
            bits.take(5 + 5)?;
        }
    }
    let initial_display_delay = bits.flag()?;
    for _ in 0..=bits.take(5)? {
        bits.take(12)?;
        let level = bits.take(5)?;
        if level > 7 {
            bits.flag()?;
        }
        if let Some(delay_bits) = delay_bits
            && bits.flag()?
        {
            bits.take(delay_bits)?;
            bits.take(delay_bits)?;
            bits.flag()?;
        }
        if initial_display_delay && bits.flag()? {
            bits.take(4)?;
        }
    }
    Some(())
}

fn inter_tools(bits: &mut Bits<'_>) -> Option<()> {
    bits.take(4)?;
    let order_hint = bits.flag()?;
    if order_hint {
        bits.take(2)?;
    }
    let choose_screen_content_tools = bits.flag()?;
    let screen_content_tools = choose_screen_content_tools || bits.flag()?;
    if screen_content_tools {
        let choose_integer_mv = bits.flag()?;
        if !choose_integer_mv {
            bits.flag()?;
        }
    }
    if order_hint {
        bits.take(3)?;
    }
    Some(())
}

/// Section 5.5.2.
fn colour_config(bits: &mut Bits<'_>, profile: u32) -> Option<(u8, Layout, Cicp)> {
    const UNSPECIFIED: u16 = 2;
    const BT709: u16 = 1;
    const SRGB: u16 = 13;
    const IDENTITY: u16 = 0;
    let high_bit_depth = bits.flag()?;
    let depth = match (high_bit_depth, profile) {
        (false, _) => 8,
        (true, 2) if bits.flag()? => 12,
        _ => 10,
    };
    let monochrome = profile != 1 && bits.flag()?;
    let described = bits.flag()?;
    let mut code_point = || if described { Some(bits.take(8)? as u16) } else { Some(UNSPECIFIED) };
    let (primaries, transfer, matrix) = (code_point()?, code_point()?, code_point()?);
    if !monochrome && (primaries, transfer, matrix) == (BT709, SRGB, IDENTITY) {
        return Some((depth, Layout::I444, Cicp { primaries, matrix, full_range: true }));
    }
    let full_range = bits.flag()?;
    let layout = match (monochrome, profile) {
        (true, _) => Layout::I400,
        (false, 0) => Layout::I420,
        (false, 1) => Layout::I444,
        // Only 12 bits have a choice.
        _ if depth < 12 => Layout::I422,
        _ => {
            let halved = bits.flag()?;
            match (halved, halved && bits.flag()?) {
                (false, _) => Layout::I444,
                (true, false) => Layout::I422,
                (true, true) => Layout::I420,
            }
        }
    };
    if layout == Layout::I420 {
        let _chroma_sample_position = bits.take(2)?;
    }
    Some((depth, layout, Cicp { primaries, matrix, full_range }))
}
