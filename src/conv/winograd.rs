//! A 2x2 convolution by F(6x6, 2x2), with bias, ReLU and max-pool.
//!
//! A first transform turns every tile of 7x7 inputs into 49 numbers a channel; at each of the 49 positions the tiles
//! are multiplied by that position's weights (a matrix product); a second one turns the 49 products into 6x6 outputs.
//! A band is some rows of tiles, few enough that its working set stays in the L2 cache.

use pulp::{Simd, WithSimd};

use super::{
    Arena, Bands, ConvError, Floats, Kernel, LINE, Size, check_finite, floats,
    gemm::{PANEL, Rows, multiply},
    kernel::{load, prefetch, store},
    transform::{self, SPAN, TILE},
};

/// Products of a tile, in column order; also the number of matrix products of a band.
const POSITIONS: usize = SPAN * SPAN;

/// Tiles of a band: enough to reuse each loaded weight often, few enough for the cache. The last layer has as many.
const BAND_TILES: usize = 25;

/// The same where several threads take bands: two can then share the last layer.
const SHARED_BAND_TILES: usize = 15;

/// Seven times the same expression, for `$at` from 0 to 6: what [`transform::inputs`] says of closures.
macro_rules! seven {
    ($at:ident => $value:expr) => { seven!($at => $value; 0 1 2 3 4 5 6) };
    ($at:ident => $value:expr; $($number:literal)*) => { [$({ let $at = $number; $value }),*] };
}

/// A layer: float32 (N, H, W, C) to (N, H-1, W-1, M), or half of that (rounded down) with the pool.
pub struct WinogradConv {
    kernel: Kernel,
    channels: usize,
    maps: usize,
    pool: bool,
    band_tiles: usize,
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
        Ok(Self { kernel, channels, maps, pool, band_tiles: BAND_TILES, depth, columns, weights, bias: padded_bias })
    }

    /// The same layer with bands for so many threads.
    #[must_use]
    pub fn for_threads(self, threads: usize) -> Self {
        Self { band_tiles: if threads > 1 { SHARED_BAND_TILES } else { BAND_TILES }, ..self }
    }

    /// Multiply-adds of the products of an image of this size; the transforms are additions besides. And the weights
    /// that they read.
    #[must_use]
    pub fn products([height, width]: Size, channels: usize, maps: usize) -> [usize; 2] {
        let weights = POSITIONS * channels * maps;
        [tiles_wide(height) * tiles_wide(width) * weights, weights]
    }

    /// From a tile's transformed inputs to the next one's, in floats: a cache line more than they are. Otherwise the rows
    /// of a product, which are as far apart, would share a few sets of the L1 cache.
    fn apart(&self) -> usize {
        POSITIONS * self.depth + LINE
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
        (self.band_tiles / tiles_wide(width)).max(1) * TILE / self.stride()
    }

    fn run_band(&self, image: &[f32], input: Size, first: usize, band: &mut [f32], arena: &Arena) {
        let [_, width] = input;
        let output_width = (width - 1) / self.stride();
        let rows = band.len() / (output_width * self.maps);
        let tiles = (rows * self.stride()).div_ceil(TILE) * tiles_wide(width);
        let (patch, inputs) = (POSITIONS * self.depth, tiles * self.apart());
        arena.with(patch + inputs + tiles * POSITIONS * self.columns, |buffer| {
            let (patch, buffer) = buffer.split_at_mut(patch);
            let (inputs, products) = buffer.split_at_mut(inputs);
            let first_row = first * self.stride();
            let mut band =
                Band { conv: self, image, input, first_row, patch, inputs, products, output_width, output: band };
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
    /// (7, 7, depth): inputs of a tile that extends past the image, or has channels to be padded.
    patch: &'a mut [f32],
    /// (tiles, 49, depth), tiles [`WinogradConv::apart`]: transformed inputs.
    inputs: &'a mut [f32],
    /// (tiles, 49, a panel's columns): products of one panel.
    products: &'a mut [f32],
    output_width: usize,
    /// (rows, output width, M)
    output: &'a mut [f32],
}

/// Row and column of a tile's first output, within the band.
fn place(tile: usize, width: usize) -> Size {
    let wide = tiles_wide(width);
    [tile / wide * TILE, tile % wide * TILE]
}

/// Transforms the image into [`Band::inputs`].
struct TransformInputs<'band, 'a>(&'band mut Band<'a>);

impl WithSimd for TransformInputs<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self(&mut Band { conv, image, input: [height, width], first_row, ref mut patch, ref mut inputs, .. }) =
            self;
        let (channels, depth) = (conv.channels, conv.depth);
        for (tile, transformed) in inputs.chunks_exact_mut(conv.apart()).enumerate() {
            let [row, column] = place(tile, width);
            let row = first_row + row;
            let corner = &image[(row * width + column) * channels..];
            let (rows, columns) = (SPAN.min(height - row), SPAN.min(width - column));
            if rows == SPAN && columns == SPAN && channels == depth {
                transform_tile(simd, corner, width * channels, &mut transformed[..POSITIONS * depth]);
                continue;
            }
            // Zeros past the edge: the outputs there are discarded, but the tile's others depend on these in rounding.
            patch.fill(0.0);
            for (patch, line) in patch.chunks_exact_mut(SPAN * depth).zip(corner.chunks(width * channels)).take(rows) {
                let pixels = line.chunks_exact(channels).take(columns);
                for (patch, pixel) in patch.chunks_exact_mut(depth).zip(pixels) {
                    patch[..channels].copy_from_slice(pixel);
                }
            }
            transform_tile(simd, patch, SPAN * depth, &mut transformed[..POSITIONS * depth]);
        }
    }
}

/// Transforms a tile (7, 7, depth), whose lines begin `apart` floats from each other, into (49, depth).
#[inline(always)]
fn transform_tile<S: Simd>(simd: S, tile: &[f32], apart: usize, transformed: &mut [f32]) {
    let depth = transformed.len() / POSITIONS;
    let vectors = depth / S::F32_LANES;
    let (transformed, _) = S::as_mut_simd_f32s(transformed);
    for vector in 0..vectors {
        let channel = vector * S::F32_LANES;
        if channel % LINE == 0 {
            // Of the channels two lines ahead, in this tile or in the next one of its row.
            let ahead = channel + 2 * LINE;
            let ahead = if ahead < depth { ahead } else { ahead - depth + TILE * depth };
            for y in 0..SPAN {
                for x in 0..SPAN {
                    prefetch(tile, y * apart + x * depth + ahead);
                }
            }
        }
        let line = |y: usize| S::as_simd_f32s(&tile[y * apart..][..SPAN * depth]).0;
        macro_rules! row {
            ($y:expr) => {{
                let line = line($y);
                transform::inputs(simd, seven!(x => line[x * vectors + vector]))
            }};
        }
        let rows = seven!(y => row!(y));
        for x in 0..SPAN {
            let column = transform::inputs(simd, seven!(y => rows[y][x]));
            for y in 0..SPAN {
                transformed[(x * SPAN + y) * vectors + vector] = column[y];
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
        let Self(Band { conv, inputs, products, .. }, panel) = self;
        let panel_len = conv.depth * conv.columns;
        let (products, _) = S::as_mut_simd_f32s(products).0.as_chunks_mut();
        for position in 0..POSITIONS {
            let rows = Rows { values: &inputs[position * conv.depth..], apart: conv.apart() };
            let weights = &conv.weights[(panel * POSITIONS + position) * panel_len..];
            let (weights, ahead) = weights.split_at(panel_len);
            let (weights, _) = S::as_simd_f32s(weights).0.as_chunks();
            multiply::<S>(simd, rows, weights, ahead, &mut products[position..], POSITIONS);
        }
    }
}

/// Transforms a panel's products into its part of the output.
struct TransformOutputs<'band, 'a>(&'band mut Band<'a>, usize);

impl WithSimd for TransformOutputs<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self(&mut Band { conv, input, ref products, output_width, ref mut output, .. }, panel) = self;
        let (maps, side) = (conv.maps, TILE / conv.stride());
        let line = output_width * maps;
        for (tile, products) in products.chunks_exact(POSITIONS * conv.columns).enumerate() {
            let [row, column] = place(tile, input[1]).map(|at| at / conv.stride());
            let corner = row * line + column * maps + panel * conv.columns;
            // Of the next tile: stores that wait for memory hold up those to the stack behind them.
            for (y, x) in (0..side).flat_map(|y| (side..2 * side).map(move |x| (y, x))) {
                for part in (0..conv.columns).step_by(LINE) {
                    prefetch(output, corner + y * line + x * maps + part);
                }
            }
            for vector in 0..PANEL {
                let map = panel * conv.columns + vector * S::F32_LANES;
                if map >= maps {
                    break;
                }
                let place = Place {
                    first: corner + vector * S::F32_LANES,
                    line,
                    maps,
                    channels: maps - map,
                    columns: output_width - column,
                };
                let (products, _) = S::as_simd_f32s(products);
                let bias = load(simd, &conv.bias, map);
                transform_products(simd, &products[vector..], bias, conv.pool, place, output);
            }
        }
    }
}

/// Where a tile's outputs go.
#[derive(Clone, Copy)]
struct Place {
    /// Index of the first one.
    first: usize,
    /// Length of a row of the output.
    line: usize,
    /// Values of a pixel, and those of the vector's.
    maps: usize,
    channels: usize,
    /// Pixels up to the end of a row.
    columns: usize,
}

/// Transforms a tile's products, every second vector, and writes what lies in the output.
#[inline(always)]
fn transform_products<S: Simd>(
    simd: S,
    products: &[S::f32s],
    bias: S::f32s,
    pool: bool,
    place: Place,
    output: &mut [f32],
) {
    macro_rules! column {
        ($x:literal) => {
            transform::outputs(simd, seven!(y => products[($x * SPAN + y) * PANEL]))
        };
    }
    let columns = [column!(0), column!(1), column!(2), column!(3), column!(4), column!(5), column!(6)];
    for pair in 0..TILE / 2 {
        let upper = transform::outputs(simd, seven!(x => columns[x][2 * pair]));
        let lower = transform::outputs(simd, seven!(x => columns[x][2 * pair + 1]));
        if pool {
            macro_rules! most {
                ($x:literal) => {{
                    let left = simd.max_f32s(upper[2 * $x], lower[2 * $x]);
                    simd.max_f32s(left, simd.max_f32s(upper[2 * $x + 1], lower[2 * $x + 1]))
                }};
            }
            write(simd, [most!(0), most!(1), most!(2)], bias, place, pair, output);
        } else {
            write(simd, upper, bias, place, 2 * pair, output);
            write(simd, lower, bias, place, 2 * pair + 1, output);
        }
    }
}

/// Adds the bias, rectifies and stores a row of a tile, up to the end of the output. Bias and ReLU follow the pool, on
/// fewer values: neither changes which value is the largest.
#[inline(always)]
fn write<S: Simd, const N: usize>(
    simd: S,
    values: [S::f32s; N],
    bias: S::f32s,
    place: Place,
    row: usize,
    output: &mut [f32],
) {
    let first = place.first + row * place.line;
    if first >= output.len() {
        return;
    }
    for (x, value) in values.into_iter().enumerate() {
        if x < place.columns {
            let rectified = simd.max_f32s(simd.add_f32s(value, bias), simd.splat_f32s(0.0));
            store(simd, &mut output[first + x * place.maps..][..place.channels], 0, rectified);
        }
    }
}
