//! WebP: bitstreams built by hand, since there is no encoder here. The symbols are arbitrary; a decoder's cost does not
//! depend on their meaning.

use super::{Sample, noise};

pub(super) fn all(width: usize, height: usize) -> Vec<Sample> {
    let pixels = width * height;
    vec![
        still("webp_lossy", b"VP8 ", &lossy(width, height, &noise(pixels / 6))),
        still("webp_lossless", b"VP8L", &lossless(width, height, &Transforms::ALL, Some(&noise(pixels * 3)))),
        still("webp_lossless_plain", b"VP8L", &lossless(width, height, &[], Some(&noise(pixels * 3)))),
    ]
}

/// Of one colour, or of all-zero symbols.
pub(super) fn bombs(side: usize) -> Vec<Sample> {
    // No side may be longer than 16383.
    vec![
        still("webp_bomb_lossless", b"VP8L", &lossless(side, side, &Transforms::ALL, None)),
        still("webp_bomb_lossy", b"VP8 ", &lossy(side, side, &[])),
    ]
}

fn still(name: &str, kind: &[u8; 4], data: &[u8]) -> Sample {
    let mut bytes = b"RIFF\0\0\0\0WEBP".to_vec();
    bytes.extend(kind);
    bytes.extend((data.len() as u32).to_le_bytes());
    bytes.extend(data);
    bytes.resize(bytes.len().next_multiple_of(2), 0);
    let size = (bytes.len() as u32 - 8).to_le_bytes();
    bytes[4..8].copy_from_slice(&size);
    Sample { name: name.to_owned(), bytes }
}

/// A key frame of RFC 6386: a header with a strong loop filter, then all-zero modes, then `tokens`.
fn lossy(width: usize, height: usize, tokens: &[u8]) -> Vec<u8> {
    // Enough zeros for the modes of all blocks.
    let modes = width * height / 256 + 4096;
    let mut first = BoolEncoder::default();
    // Colour space, clamping, no segments, normal filter, level 63 and sharpness 0, no adjustments, one partition.
    for bit in [0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0] {
        first.put(bit != 0);
    }
    let mut first = first.finish();
    first.resize(modes, 0);
    let tag = (first.len() as u32) << 5 | 1 << 4;
    let mut data = tag.to_le_bytes()[..3].to_vec();
    data.extend([0x9d, 0x01, 0x2a]);
    data.extend([width as u16, height as u16].map(u16::to_le_bytes).concat());
    data.extend(first);
    data.extend(tokens);
    // After the noise, zeros encode empty blocks.
    data.resize(data.len() + width * height / 64 + 4096, 0);
    data
}

/// RFC 6386 section 7, bits of even odds.
struct BoolEncoder {
    out: Vec<u8>,
    range: u32,
    bottom: u32,
    bits: i32,
}

impl Default for BoolEncoder {
    fn default() -> Self {
        Self { out: Vec::new(), range: 255, bottom: 0, bits: 24 }
    }
}

impl BoolEncoder {
    fn put(&mut self, bit: bool) {
        let split = 1 + (((self.range - 1) * 128) >> 8);
        if bit {
            self.bottom = self.bottom.wrapping_add(split);
            self.range -= split;
        } else {
            self.range = split;
        }
        while self.range < 128 {
            self.range <<= 1;
            if self.bottom & 1 << 31 != 0 {
                for byte in self.out.iter_mut().rev() {
                    *byte = byte.wrapping_add(1);
                    if *byte != 0 {
                        break;
                    }
                }
            }
            self.bottom <<= 1;
            self.bits -= 1;
            if self.bits == 0 {
                self.out.push((self.bottom >> 24) as u8);
                self.bottom &= (1 << 24) - 1;
                self.bits = 8;
            }
        }
    }

    fn finish(mut self) -> Vec<u8> {
        for _ in 0..32 {
            self.put(false);
        }
        self.out
    }
}

#[derive(Clone, Copy)]
enum Transforms {
    Predictor = 0,
    Colour = 1,
    Green = 2,
}

impl Transforms {
    const ALL: [Self; 3] = [Self::Predictor, Self::Colour, Self::Green];
}

/// A VP8L stream: each pixel is 24 bits of `noise`, or all are one symbol.
fn lossless(width: usize, height: usize, transforms: &[Transforms], noise: Option<&[u8]>) -> Vec<u8> {
    let mut bits = Bits::default();
    bits.put(0x2f, 8);
    bits.put(width as u64 - 1, 14);
    bits.put(height as u64 - 1, 14);
    bits.put(0, 4);
    for &transform in transforms {
        bits.put(1, 1);
        bits.put(transform as u64, 2);
        if !matches!(transform, Transforms::Green) {
            // Blocks of 512 pixels; predictor 11, the slowest, or red to green 11.
            bits.put(7, 3);
            bits.put(0, 1);
            for symbol in [11, 0, 0, 255, 0] {
                bits.single(symbol);
            }
        }
    }
    // No more transforms, no cache, no groups of codes.
    bits.put(0, 3);
    // Green has 24 symbols more, for lengths.
    for (symbol, more) in [(120, 24), (30, 0), (200, 0)] {
        if noise.is_some() { bits.uniform(more) } else { bits.single(symbol) }
    }
    bits.single(255);
    bits.single(0);
    let mut data = bits.finish_with(noise.unwrap_or_default());
    data.resize(data.len() + 8, 0);
    data
}

/// Least significant bit first.
#[derive(Default)]
struct Bits {
    out: Vec<u8>,
    open: u64,
    count: u32,
}

impl Bits {
    fn put(&mut self, value: u64, count: u32) {
        self.open |= value << self.count;
        self.count += count;
        while self.count >= 8 {
            self.out.push(self.open as u8);
            self.open >>= 8;
            self.count -= 8;
        }
    }

    /// A code of one symbol, which takes no bits.
    fn single(&mut self, symbol: u64) {
        self.put(1, 1);
        self.put(0, 1);
        self.put(1, 1);
        self.put(symbol, 8);
    }

    /// A code of eight bits for each of 256 symbols; the `more` symbols after those have none.
    fn uniform(&mut self, more: u64) {
        self.put(0, 1);
        // Lengths of the codes of lengths, in the order 17, 18, 0, 1, 2, 3, 4, 5, 16, 6, 7, 8: one bit for 18 and 8.
        self.put(12 - 4, 4);
        for length in [0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1] {
            self.put(length, 3);
        }
        self.put(0, 1);
        for _ in 0..256 {
            self.put(0, 1);
        }
        if more > 0 {
            // 18: a run of zeros, at least 11.
            self.put(1, 1);
            self.put(more - 11, 7);
        }
    }

    fn finish_with(mut self, noise: &[u8]) -> Vec<u8> {
        for &byte in noise {
            self.put(byte.into(), 8);
        }
        self.put(0, 7);
        self.out
    }
}
