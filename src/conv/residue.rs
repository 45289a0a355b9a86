//! The first layer: NPR residue of the pixels, 2x2 convolution, bias, ReLU and max-pool, in one pass.
//!
//! The residue is the absolute difference of each pixel to the top-left one of its 2x2 block (Tan et al., "Rethinking
//! the Up-Sampling Operations", CVPR 2024), so every fourth value is zero. A window of the pool covers 3x3 values whose
//! four corners are these zeros: each of its four sums has three terms a channel.

use pulp::{Simd, WithSimd};

use super::{
    Arena, Bands, ConvError, Floats, Kernel, Size, check_finite, floats,
    kernel::{load, mul_add, store},
};

/// Red, green and blue.
const COLOURS: usize = 3;

/// Output rows of a band.
const BAND_ROWS: usize = 8;

/// The layer: uint8 (N, H, W, 3), H and W even, to float32 (N, H/2-1, W/2-1, M).
pub struct ResidueConv {
    kernel: Kernel,
    maps: usize,
    /// (3, 2x2, M in whole vectors)
    weights: Floats,
    /// (M in whole vectors)
    bias: Floats,
}

impl ResidueConv {
    /// Builds the layer from the weight (M, 3, 2, 2), for residues in grey levels; M is the length of `bias`.
    ///
    /// # Errors
    /// If the weight has another size, or a value is not finite.
    pub fn new(kernel: Kernel, weight: &[f32], bias: &[f32]) -> Result<Self, ConvError> {
        let maps = bias.len();
        if maps == 0 || weight.len() != maps * COLOURS * 4 {
            return Err(ConvError::Weights { weight: weight.len(), bias: maps, maps, channels: COLOURS });
        }
        check_finite(weight, bias)?;
        let padded = maps.next_multiple_of(kernel.lanes());
        let mut weights = floats(COLOURS * 4 * padded);
        for (map, taps) in weight.chunks_exact(COLOURS * 4).enumerate() {
            for (place, &tap) in taps.iter().enumerate() {
                weights[place * padded + map] = tap;
            }
        }
        let mut padded_bias = floats(padded);
        padded_bias[..maps].copy_from_slice(bias);
        Ok(Self { kernel, maps, weights, bias: padded_bias })
    }

    /// Multiply-adds of an output of this size: the four sums of a window of the pool have three terms a colour.
    #[must_use]
    pub fn multiply_adds([height, width]: Size, maps: usize) -> usize {
        height * width * maps * 4 * 3 * COLOURS
    }
}

impl Bands for ResidueConv {
    type Input = u8;

    fn output(&self, [height, width]: Size) -> Result<[usize; 3], ConvError> {
        if height % 2 != 0 || width % 2 != 0 {
            return Err(ConvError::Odd { height, width });
        }
        if height.min(width) < 4 {
            return Err(ConvError::TooSmall { height, width, least: 4 });
        }
        Ok([height / 2 - 1, width / 2 - 1, self.maps])
    }

    fn channels(&self) -> usize {
        COLOURS
    }

    fn band_rows(&self, _: Size) -> usize {
        BAND_ROWS
    }

    fn run_band(&self, image: &[u8], [_, width]: Size, first: usize, band: &mut [f32], arena: &Arena) {
        let line = width * COLOURS;
        let mut corners = vec![0; line];
        arena.with(3 * line, |residue| {
            for (row, output) in band.chunks_exact_mut((width / 2 - 1) * self.maps).enumerate() {
                // The last line of the row above is the first of this one.
                let known = usize::from(row > 0);
                residue.copy_within((3 - known) * line.., 0);
                for (y, residue) in residue.chunks_exact_mut(line).enumerate().skip(known) {
                    let pixels = &image[(2 * (first + row) + y) * line..][..line];
                    if y % 2 == 0 {
                        spread_corners(pixels, &mut corners);
                    }
                    self.kernel.run(Line { pixels, corners: &corners, residue });
                }
                self.kernel.run(Row { conv: self, residue, output });
            }
        });
    }
}

/// Writes the left pixel of each block of an even line over both of its pixels.
fn spread_corners(pixels: &[u8], corners: &mut [u8]) {
    for (&[red, green, blue, ..], corners) in pixels.as_chunks::<6>().0.iter().zip(corners.as_chunks_mut::<6>().0) {
        *corners = [red, green, blue, red, green, blue];
    }
}

/// A line of the residue: absolute differences to the corners of the blocks.
struct Line<'a> {
    pixels: &'a [u8],
    corners: &'a [u8],
    residue: &'a mut [f32],
}

impl WithSimd for Line<'_> {
    type Output = ();

    /// A plain loop, which the compiler vectorises for each instruction set.
    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        for ((residue, &pixel), &corner) in self.residue.iter_mut().zip(self.pixels).zip(self.corners) {
            *residue = f32::from(pixel.abs_diff(corner));
        }
    }
}

/// A row of the output.
struct Row<'a> {
    conv: &'a ResidueConv,
    /// Three rows of (W, 3).
    residue: &'a [f32],
    /// (W/2-1, M)
    output: &'a mut [f32],
}

impl WithSimd for Row<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { conv, residue, output } = self;
        let (upper, rest) = residue.split_at(residue.len() / 3);
        let (middle, lower) = rest.split_at(upper.len());
        let padded = conv.bias.len();
        for map in (0..conv.maps).step_by(S::F32_LANES) {
            let bias = load(simd, &conv.bias, map);
            let taps: [[S::f32s; 4]; COLOURS] = std::array::from_fn(|colour| {
                std::array::from_fn(|tap| load(simd, &conv.weights, (colour * 4 + tap) * padded + map))
            });
            for (window, pixel) in output.chunks_exact_mut(conv.maps).enumerate() {
                let at = window * 2 * COLOURS;
                let mut sums = [simd.splat_f32s(0.0); 4];
                for (colour, [w00, w01, w10, w11]) in taps.into_iter().enumerate() {
                    let value = |line: &[f32], column: usize| simd.splat_f32s(line[at + column * COLOURS + colour]);
                    let (top, left, centre) = (value(upper, 1), value(middle, 0), value(middle, 1));
                    let (right, bottom) = (value(middle, 2), value(lower, 1));
                    let sum = |sum, terms: [(S::f32s, S::f32s); 3]| {
                        terms.into_iter().fold(sum, |sum, (weight, value)| mul_add(simd, weight, value, sum))
                    };
                    sums = [
                        sum(sums[0], [(w01, top), (w10, left), (w11, centre)]),
                        sum(sums[1], [(w00, top), (w10, centre), (w11, right)]),
                        sum(sums[2], [(w00, left), (w01, centre), (w11, bottom)]),
                        sum(sums[3], [(w00, centre), (w01, right), (w10, bottom)]),
                    ];
                }
                let [a, b, c, d] = sums;
                let most = simd.max_f32s(simd.max_f32s(a, b), simd.max_f32s(c, d));
                let rectified = simd.max_f32s(simd.add_f32s(most, bias), simd.splat_f32s(0.0));
                store(simd, pixel, map, rectified);
            }
        }
    }
}
