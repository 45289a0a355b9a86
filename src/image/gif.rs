//! GIF, the first frame, on Pillow's canvas. The container is parsed here and only the LZW codes by a library: the
//! `gif` crate requires a palette and an end code, Pillow neither.

use std::time::Duration;

use weezl::BitOrder;
use weezl::decode::Decoder;

use super::colour::Palette;
use super::rows::RowSink;
use super::{Cancel, Encoding, Format, Header, ImageError, cost, lzw};

fn undecodable(reason: &'static str) -> ImageError {
    Format::Gif.undecodable(reason)
}

fn truncated() -> ImageError {
    undecodable("its data is damaged or truncated")
}

/// A forward reader of the bytes.
#[derive(Clone)]
struct Cursor<'a> {
    rest: &'a [u8],
}

impl<'a> Cursor<'a> {
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(length)?;
        self.rest = rest;
        Some(taken)
    }

    fn byte(&mut self) -> Option<u8> {
        self.take(1)?.first().copied()
    }

    fn u16(&mut self) -> Option<u32> {
        let raw = self.take(2)?.first_chunk()?;
        Some(u16::from_le_bytes(*raw).into())
    }

    /// A data block; `None` at the empty block that ends a series.
    fn block(&mut self) -> Option<&'a [u8]> {
        match self.byte()? {
            0 => None,
            length => self.take(length.into()),
        }
    }

    /// A palette if the flags announce one. Pillow treats a grey ramp as no palette.
    fn palette(&mut self, flags: u8) -> Option<Option<&'a [u8]>> {
        if flags & 0x80 == 0 {
            return Some(None);
        }
        let rgb = self.take(3 << ((flags & 7) + 1))?;
        let mut colours = rgb.chunks_exact(3).zip(0..=255);
        let is_ramp = colours.all(|(colour, level)| colour == [level; 3]);
        Some((!is_ramp).then_some(rgb))
    }

    /// Passes a frame's descriptor, from its place to the size of its codes.
    fn pass_descriptor(&mut self) -> Option<()> {
        self.take(8)?;
        let flags = self.byte()?;
        self.palette(flags)?;
        self.byte()?;
        Some(())
    }
}

/// A series of data blocks.
#[derive(Clone)]
pub(super) struct Blocks<'a> {
    at: Cursor<'a>,
}

impl<'a> Blocks<'a> {
    /// The series as it is stored, its end included.
    pub(super) fn raw(&self) -> &'a [u8] {
        let mut blocks = self.clone();
        blocks.by_ref().for_each(drop);
        let all = self.at.rest;
        all.get(..all.len() - blocks.at.rest.len()).unwrap_or_default()
    }
}

impl<'a> Iterator for Blocks<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        self.at.block()
    }
}

/// The application extensions of a file: name and authentication code, and the blocks.
pub(super) fn application_blocks(bytes: &[u8]) -> impl Iterator<Item = (&[u8; 11], Blocks<'_>)> {
    const APPLICATION: u8 = 0xff;
    let mut at = Cursor { rest: bytes };
    let pass_header = |at: &mut Cursor<'_>| {
        let flags = at.take(11)?.get(10)?;
        // Background colour and aspect ratio.
        at.take(2)?;
        at.palette(*flags).map(drop)
    };
    if pass_header(&mut at).is_none() {
        at.rest = &[];
    }
    std::iter::from_fn(move || {
        loop {
            let label = match at.byte()? {
                b'!' => at.byte()?,
                b',' => {
                    at.pass_descriptor()?;
                    b','
                }
                _ => return None,
            };
            let mut series = Blocks { at: at.clone() };
            let first = series.next();
            let blocks = series.clone();
            if first.is_some() {
                series.by_ref().for_each(drop);
            }
            at = series.at;
            if let (APPLICATION, Some(name)) = (label, first.and_then(|name| name.first_chunk())) {
                return Some((name, blocks));
            }
        }
    })
}

/// The canvas and the first frame's position on it.
struct Frame<'a> {
    canvas_width: u32,
    canvas_height: u32,
    left: u32,
    top: u32,
    width: u32,
    height: u32,
    interlaced: bool,
    palette: Option<&'a [u8]>,
    transparent: Option<u8>,
    code_size: u8,
    /// The series of blocks with the LZW codes.
    data: Cursor<'a>,
}

impl<'a> Frame<'a> {
    fn parse(bytes: &'a [u8]) -> Result<Self, ImageError> {
        Self::find(bytes).ok_or_else(|| undecodable("it holds no image"))
    }

    fn find(bytes: &'a [u8]) -> Option<Self> {
        let mut at = Cursor { rest: bytes };
        at.take(6)?;
        let (screen_width, screen_height) = (at.u16()?, at.u16()?);
        let flags = at.byte()?;
        // Background colour and aspect ratio.
        at.take(2)?;
        let global = at.palette(flags)?;
        let mut transparent = None;
        loop {
            match at.byte()? {
                b'!' => {
                    const GRAPHIC_CONTROL: u8 = 0xf9;
                    let label = at.byte()?;
                    let mut block = at.block();
                    if let (GRAPHIC_CONTROL, Some(control)) = (label, block) {
                        let &[flags, _, _, index, ..] = control else { return None };
                        if flags & 1 != 0 {
                            transparent = Some(index);
                        }
                    }
                    while block.is_some() {
                        block = at.block();
                    }
                }
                b',' => {
                    let (left, top, width, height) = (at.u16()?, at.u16()?, at.u16()?, at.u16()?);
                    let flags = at.byte()?;
                    if width == 0 || height == 0 {
                        return None;
                    }
                    let local = at.palette(flags)?;
                    let code_size = at.byte()?;
                    return Some(Self {
                        // Pillow enlarges the canvas to hold the frame.
                        canvas_width: screen_width.max(left + width),
                        canvas_height: screen_height.max(top + height),
                        left,
                        top,
                        width,
                        height,
                        interlaced: flags & 0x40 != 0,
                        palette: local.or(global),
                        transparent,
                        code_size,
                        data: at,
                    });
                }
                b';' => return None,
                // Pillow skips unknown blocks.
                _ => {}
            }
        }
    }

    /// Number of frames from this one on, up to a limit of blocks.
    fn count(&self) -> u32 {
        const MOST_BLOCKS: u32 = 1 << 17;
        let mut at = Cursor { rest: self.data.rest };
        let mut blocks = 0;
        // To the end of a series of blocks.
        let mut skip = |at: &mut Cursor<'_>| {
            while at.block().is_some() {
                blocks += 1;
            }
            blocks < MOST_BLOCKS
        };
        let mut frames = 1;
        let mut go_on = skip(&mut at);
        while go_on {
            go_on = match at.byte() {
                Some(b'!') => at.byte().is_some() && skip(&mut at),
                Some(b',') => {
                    frames += 1;
                    at.pass_descriptor().is_some() && skip(&mut at)
                }
                _ => false,
            };
        }
        frames
    }

    /// One index per pixel of the frame, in stored order.
    fn indices(&mut self, out: &mut Vec<u8>, cancel: &Cancel) -> Result<(), ImageError> {
        if !(1..=8).contains(&self.code_size) {
            return Err(undecodable("its code size is wrong"));
        }
        cancel.zeros(out, self.width as usize * self.height as usize)?;
        let mut codes = Vec::new();
        while let Some(block) = self.data.block() {
            codes.extend_from_slice(block);
        }
        let mut decoder = Decoder::new(BitOrder::Lsb, self.code_size);
        if lzw::fill(&mut decoder, &codes, out, cancel)? { Ok(()) } else { Err(truncated()) }
    }

    /// The stored row that is shown at row `y` of the frame.
    fn stored_row(&self, y: u32) -> u32 {
        if !self.interlaced {
            return y;
        }
        // Passes of every 8th row from 0, every 8th from 4, every 4th from 2, every 2nd from 1.
        let rows_in = |start: u32, step: u32| self.height.saturating_sub(start).div_ceil(step);
        match y % 8 {
            0 => y / 8,
            4 => rows_in(0, 8) + y / 8,
            2 | 6 => rows_in(0, 8) + rows_in(4, 8) + y / 4,
            _ => rows_in(0, 8) + rows_in(4, 8) + rows_in(2, 4) + y / 2,
        }
    }
}

/// Nanoseconds per pixel of the canvas and of the frame, and per byte of the file.
const PIXEL: f64 = 0.4;
const FRAME_PIXEL: f64 = 0.4;
const BYTE: f64 = 4.3;

pub(super) fn inspect(bytes: &[u8]) -> Result<Header, ImageError> {
    let frame = Frame::parse(bytes)?;
    let frame_pixels = u64::from(frame.width) * u64::from(frame.height);
    Ok(Header {
        format: Format::Gif,
        width: frame.canvas_width,
        height: frame.canvas_height,
        exif_orientation: 1,
        encoding: Encoding::Lossless,
        frames: frame.count(),
        // The codes are gathered from their blocks.
        peak_bytes: frame_pixels + bytes.len() as u64,
        cost: cost::cost(&[
            (u64::from(frame.canvas_width) * u64::from(frame.canvas_height), cost::ROW_PIXEL + PIXEL),
            (frame_pixels, FRAME_PIXEL),
            (bytes.len() as u64, BYTE),
        ]),
        row_cost: Duration::ZERO,
    })
}

pub(super) fn decode(
    bytes: &[u8],
    header: &Header,
    buffer: &mut Vec<u8>,
    sink: &mut dyn RowSink,
    cancel: &Cancel,
) -> Result<(), ImageError> {
    let mut frame = Frame::parse(bytes)?;
    frame.indices(buffer, cancel)?;
    let palette = frame.palette.map_or_else(Palette::grey, Palette::from_rgb);
    // Pixels outside the frame get the transparent index's colour, or else the first.
    let open = frame.transparent.unwrap_or(0);
    let (left, width) = (frame.left as usize, frame.width as usize);
    let mut indices = vec![open; header.width as usize];
    let mut rgb = vec![0; header.width as usize * 3];
    for y in 0..header.height {
        cancel.check()?;
        let row = y.checked_sub(frame.top).filter(|&y| y < frame.height);
        match (row, indices.get_mut(left..left + width)) {
            (Some(y), Some(place)) => {
                let start = frame.stored_row(y) as usize * width;
                let row = buffer.get(start..start + width);
                place.copy_from_slice(row.ok_or_else(truncated)?);
            }
            _ => indices.fill(open),
        }
        palette.row(&indices, &mut rgb);
        sink.row(&rgb);
    }
    Ok(())
}
