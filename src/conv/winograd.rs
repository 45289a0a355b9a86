//! A 2x2 convolution by F(6x6, 2x2), with bias, ReLU and max-pool.
//!
//! A first transform turns every tile of 7x7 inputs into 49 numbers a channel; at each of the 49 positions the tiles
//! are multiplied by that position's weights (a matrix product); a second one turns the 49 products into 6x6 outputs.
//! A band is some rows of tiles, few enough that its working set stays in the L2 cache.

use pulp::{Simd, WithSimd};

use super::{
    Arena, Bands, ConvError, Floats, Kernel, Size, check_finite, floats,
    gemm::{PANEL, multiply},
    kernel::{load, store},
    transform::{self, SPAN, TILE},
};

/// Products of a tile, in column order; also the number of matrix products of a band.
const POSITIONS: usize = SPAN * SPAN;

/// Tiles of a band: enough to reuse each loaded weight often, few enough for the cache. With 15, two threads can share
/// the last layer's 25 tiles; with shorter vectors its weights (26 MB) are then loaded too often: on AVX2 that layer
/// takes a third longer.
fn band_tiles(kernel: Kernel) -> usize {
    if kernel.lanes() == 16 { 15 } else { 25 }
}

/// Padding between the positions of a buffer, in floats: a cache line, so that a tile's 49 values do not all map to
/// the same L1 cache set.
const APART: usize = 16;

/// A layer: float32 (N, H, W, C) to (N, H-1, W-1, M), or half of that (rounded down) with the pool.
pub struct WinogradConv {
    kernel: Kernel,
    channels: usize,
    maps: usize,
    pool: bool,
    /// Input channels in whole vectors.
    depth: usize,
    /// Columns of a panel.
    columns: usize,
    /// (M in panels, 49, depth, columns)
    weights: Floats,
    /// (M in whole panels)
    bias: Floats,
}

impl WinogradConv {
    /// Transforms the weight (M, C, 2, 2); M is the length of `bias`.
    ///
    /// # Errors
    /// If the weight has another size, or a value is not finite.
    pub fn new(kernel: Kernel, weight: &[f32], bias: &[f32], pool: bool) -> Result<Self, ConvError> {
        let maps = bias.len();
        let channels = weight.len() / 4 / maps.max(1);
        if channels == 0 || weight.len() != maps * channels * 4 {
            return Err(ConvError::Weights { weight: weight.len(), bias: maps, maps, channels });
        }
        check_finite(weight, bias)?;
        let columns = PANEL * kernel.lanes();
        let depth = channels.next_multiple_of(kernel.lanes());
        let panels = maps.div_ceil(columns);
        let mut weights = floats(panels * POSITIONS * depth * columns);
        for (filter, taps) in weight.as_chunks::<4>().0.iter().enumerate() {
            let (map, channel) = (filter / channels, filter % channels);
            let [a, b, c, d] = taps.map(f64::from);
            let rows = [transform::weights([a, b]), transform::weights([c, d])];
            for x in 0..SPAN {
                for (y, &value) in transform::weights(rows.map(|row| row[x])).iter().enumerate() {
                    let row = (map / columns * POSITIONS + x * SPAN + y) * depth + channel;
                    weights[row * columns + map % columns] = value as f32;
                }
            }
        }
        let mut padded_bias = floats(panels * columns);
        padded_bias[..maps].copy_from_slice(bias);
        Ok(Self { kernel, channels, maps, pool, depth, columns, weights, bias: padded_bias })
    }

    /// Convolution values per output value, along a row.
    fn stride(&self) -> usize {
        if self.pool { 2 } else { 1 }
    }
}

/// Tiles in a row, for inputs of this width.
fn tiles_wide(width: usize) -> usize {
    (width - 1).div_ceil(TILE)
}

impl Bands for WinogradConv {
    type Input = f32;

    fn output(&self, [height, width]: Size) -> Result<[usize; 3], ConvError> {
        let stride = self.stride();
        if height.min(width) <= stride {
            return Err(ConvError::TooSmall { height, width, least: stride + 1 });
        }
        Ok([(height - 1) / stride, (width - 1) / stride, self.maps])
    }

    fn channels(&self) -> usize {
        self.channels
    }

    fn band_rows(&self, [_, width]: Size) -> usize {
        (band_tiles(self.kernel) / tiles_wide(width)).max(1) * TILE / self.stride()
    }

    fn run_band(&self, image: &[f32], input: Size, first: usize, band: &mut [f32], arena: &Arena) {
        let [_, width] = input;
        let output_width = (width - 1) / self.stride();
        let rows = band.len() / (output_width * self.maps);
        let tiles = (rows * self.stride()).div_ceil(TILE) * tiles_wide(width);
        let (inputs, products) = (tiles * self.depth + APART, tiles * self.columns + APART);
        let first_row = first * self.stride();
        arena.with(POSITIONS * (inputs + products), |buffer| {
            let (inputs, products) = buffer.split_at_mut(POSITIONS * inputs);
            let mut band =
                Band { conv: self, image, input, first_row, tiles, inputs, products, output_width, output: band };
            // Compiled as separate functions: in one, the constants of all would compete for registers.
            self.kernel.run(TransformInputs(&mut band));
            for panel in 0..self.maps.div_ceil(self.columns) {
                self.kernel.run(Multiply(&mut band, panel));
                self.kernel.run(TransformOutputs(&mut band, panel));
            }
        });
    }
}

/// A band being computed.
struct Band<'a> {
    conv: &'a WinogradConv,
    /// (H, W, C)
    image: &'a [f32],
    input: Size,
    /// First row in the convolution, and in the input.
    first_row: usize,
    tiles: usize,
    /// (49, tiles, depth), positions padded by [`APART`]: transformed inputs.
    inputs: &'a mut [f32],
    /// (49, tiles, a panel's columns), likewise: products of one panel.
    products: &'a mut [f32],
    output_width: usize,
    /// (rows, output width, M)
    output: &'a mut [f32],
}

impl Band<'_> {
    /// Row and column of a tile's first output, within the band.
    fn place(&self, tile: usize) -> Size {
        let wide = tiles_wide(self.input[1]);
        [tile / wide * TILE, tile % wide * TILE]
    }
}

/// Transforms the image into [`Band::inputs`].
struct TransformInputs<'band, 'a>(&'band mut Band<'a>);

impl WithSimd for TransformInputs<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self(band) = self;
        let ([height, width], channels) = (band.input, band.conv.channels);
        let apart = band.inputs.len() / POSITIONS / S::F32_LANES;
        let vectors = band.conv.depth / S::F32_LANES;
        for tile in 0..band.tiles {
            let [row, column] = band.place(tile);
            let row = band.first_row + row;
            // A tile may extend past the edge: its outputs there are discarded.
            let (rows, columns) = (SPAN.min(height - row), SPAN.min(width - column));
            let mut seen = [[simd.splat_f32s(0.0); SPAN]; SPAN];
            for vector in 0..vectors {
                for (y, seen) in seen.iter_mut().enumerate().take(rows) {
                    let line = &band.image[((row + y) * width + column) * channels..][..columns * channels];
                    let mut places = [simd.splat_f32s(0.0); SPAN];
                    for (place, pixel) in places.iter_mut().zip(line.chunks_exact(channels)) {
                        *place = load(simd, pixel, vector * S::F32_LANES);
                    }
                    *seen = transform::inputs(simd, places);
                }
                let (inputs, _) = S::as_mut_simd_f32s(band.inputs);
                let (at, mut positions) = (tile * vectors + vector, inputs.chunks_exact_mut(apart));
                for x in 0..SPAN {
                    let mut column = [simd.splat_f32s(0.0); SPAN];
                    for (place, row) in column.iter_mut().zip(&seen) {
                        *place = row[x];
                    }
                    for (value, position) in transform::inputs(simd, column).into_iter().zip(&mut positions) {
                        position[at] = value;
                    }
                }
            }
        }
    }
}

/// Computes a panel's products.
struct Multiply<'band, 'a>(&'band mut Band<'a>, usize);

impl WithSimd for Multiply<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self(band, panel) = self;
        let (depth, columns, tiles) = (band.conv.depth, band.conv.columns, band.tiles);
        let weights = band.conv.weights.chunks_exact(depth * columns).skip(panel * POSITIONS);
        let inputs = band.inputs.chunks_exact(band.inputs.len() / POSITIONS);
        let products = band.products.chunks_exact_mut(band.products.len() / POSITIONS);
        for ((weights, inputs), products) in weights.zip(inputs).zip(products) {
            let (weights, _) = S::as_simd_f32s(weights).0.as_chunks();
            let (products, _) = S::as_mut_simd_f32s(products).0.as_chunks_mut();
            multiply::<S>(simd, inputs, weights, &mut products[..tiles]);
        }
    }
}

/// Transforms a panel's products into its part of the output.
struct TransformOutputs<'band, 'a>(&'band mut Band<'a>, usize);

impl WithSimd for TransformOutputs<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self(band, panel) = self;
        let apart = band.products.len() / POSITIONS / S::F32_LANES;
        let (maps, stride) = (band.conv.maps, band.conv.stride());
        let zero = simd.splat_f32s(0.0);
        for tile in 0..band.tiles {
            let [row, column] = band.place(tile).map(|at| at / stride);
            for vector in 0..PANEL {
                let map = panel * band.conv.columns + vector * S::F32_LANES;
                if map >= maps {
                    break;
                }
                let (products, _) = S::as_simd_f32s(band.products);
                let (at, mut positions) = (tile * PANEL + vector, products.chunks_exact(apart));
                let mut half_done = [[zero; SPAN]; TILE];
                for x in 0..SPAN {
                    let mut column = [zero; SPAN];
                    for (place, position) in column.iter_mut().zip(&mut positions) {
                        *place = position[at];
                    }
                    for (half_done, value) in half_done.iter_mut().zip(transform::outputs(simd, column)) {
                        half_done[x] = value;
                    }
                }
                let bias = load(simd, &band.conv.bias, map);
                for (y, pair) in half_done.as_chunks::<2>().0.iter().enumerate() {
                    let mut upper = transform::outputs(simd, pair[0]);
                    let mut lower = transform::outputs(simd, pair[1]);
                    if band.conv.pool {
                        let mut pooled = [zero; TILE / 2];
                        for (x, place) in pooled.iter_mut().enumerate() {
                            let left = simd.max_f32s(upper[2 * x], lower[2 * x]);
                            *place = simd.max_f32s(left, simd.max_f32s(upper[2 * x + 1], lower[2 * x + 1]));
                        }
                        band.write(simd, [row + y, column], map, rectify(simd, &mut pooled, bias));
                    } else {
                        band.write(simd, [row + 2 * y, column], map, rectify(simd, &mut upper, bias));
                        band.write(simd, [row + 2 * y + 1, column], map, rectify(simd, &mut lower, bias));
                    }
                }
            }
        }
    }
}

impl Band<'_> {
    /// Stores values in the output from a position on, up to the end of its row.
    #[inline(always)]
    fn write<S: Simd>(&mut self, simd: S, [row, column]: Size, map: usize, values: &[S::f32s]) {
        let maps = self.conv.maps;
        let Some(line) = self.output.chunks_exact_mut(self.output_width * maps).nth(row) else { return };
        for (pixel, &value) in line.chunks_exact_mut(maps).skip(column).zip(values) {
            store(simd, pixel, map, value);
        }
    }
}

/// Bias and ReLU. They follow the pool, on fewer values: neither changes which value is the largest.
#[inline(always)]
fn rectify<S: Simd>(simd: S, values: &mut [S::f32s], bias: S::f32s) -> &[S::f32s] {
    for value in values.iter_mut() {
        *value = simd.max_f32s(simd.add_f32s(*value, bias), simd.splat_f32s(0.0));
    }
    values
}
