//! The fast path in plain Rust: loops over fixed-size arrays, which compilers vectorise.

use super::{
    key::{self, Key},
    lanes::{LANES, is_above},
    prune,
};

/// Largest `k` of the fast path: the number of values that [`lower_bound`] guarantees.
pub(super) const MAX_K: usize = 16;

/// Most candidates that are ranked. More are rare, and slower to rank than to prune.
pub(super) const MAX_CANDIDATES: usize = 64;

/// [`LANES`] column maxima, as four vectors of eight.
pub(super) type Maxima = [[f32; 8]; 4];

/// Values compared per loop: enough for the compiler to vectorise it as a loop.
const BLOCK: usize = 128;

/// Top `values.len()` of `row`; the caller has checked `1 <= k <= row.len() <= i32::MAX`.
pub(super) fn select(row: &[f32], values: &mut [f32], indices: &mut [i64]) {
    if values.len() > MAX_K {
        return prune::select(row, None, values, indices);
    }
    let bound = lower_bound(&lane_maxima(row));
    let mut keys = [key::LOWEST; MAX_CANDIDATES];
    match collect_above(row, bound, &mut keys) {
        Some(above) => {
            above.sort_unstable_by(|a, b| b.cmp(a));
            let ranked = above.iter().map(|&key| key::index(key));
            write(row, bound, ranked, values, indices);
        }
        None => prune::select(row, Some(bound), values, indices),
    }
}

/// The maximum of each column of `row` written in lines of [`LANES`], ignoring NaN.
fn lane_maxima(row: &[f32]) -> Maxima {
    let mut maxima = [[f32::NEG_INFINITY; 8]; 4];
    let (lines, rest) = row.as_chunks::<LANES>();
    for line in lines {
        for (maximum, &value) in maxima.as_flattened_mut().iter_mut().zip(line) {
            *maximum = larger(value, *maximum);
        }
    }
    for (maximum, &value) in maxima.as_flattened_mut().iter_mut().zip(rest) {
        *maximum = larger(value, *maximum);
    }
    maxima
}

/// A value that at least [`MAX_K`] of the maxima reach: the least of 16 of them. The choice of the 16 affects only how
/// tight the bound is; it is about the 18th largest, at a fraction of the cost of finding the 16th.
#[inline(never)]
pub(super) fn lower_bound(maxima: &Maxima) -> f32 {
    // Sort the eight columns of four (a sorting network; the largest in the first row).
    let mut four = *maxima;
    for (a, b) in [(0, 1), (2, 3), (0, 2), (1, 3), (1, 2)] {
        exchange(&mut four, a, b);
    }
    // Merge them in pairs (a bitonic merger): four columns of eight.
    let mut eight = [[0.0; 4]; 8];
    for i in 0..4 {
        for column in 0..4 {
            let (a, b) = (four[i][column], four[3 - i][column + 4]);
            eight[i][column] = larger(a, b);
            eight[i + 4][column] = smaller(a, b);
        }
    }
    for (a, b) in [(0, 2), (1, 3), (0, 1), (2, 3), (4, 6), (5, 7), (4, 5), (6, 7)] {
        exchange(&mut eight, a, b);
    }
    // The first step of a merger gives the larger half of two columns; the least of both larger halves is the bound.
    let mut least = [f32::INFINITY; 2];
    for i in 0..8 {
        for column in 0..2 {
            let better = larger(eight[i][column], eight[7 - i][column + 2]);
            least[column] = smaller(better, least[column]);
        }
    }
    smaller(least[0], least[1])
}

/// Orders two rows in every column, the larger value into row `a`.
#[inline(always)]
fn exchange<const W: usize, const H: usize>(rows: &mut [[f32; W]; H], a: usize, b: usize) {
    let (x, y) = (rows[a], rows[b]);
    for column in 0..W {
        rows[a][column] = larger(x[column], y[column]);
        rows[b][column] = smaller(x[column], y[column]);
    }
}

/// Not `f32::max`, which is several instructions on x86: this is one, and returns `b` if `a` is NaN.
#[inline(always)]
fn larger(a: f32, b: f32) -> f32 {
    if a > b { a } else { b }
}

#[inline(always)]
fn smaller(a: f32, b: f32) -> f32 {
    if a < b { a } else { b }
}

/// Keys of the values above `bound`, or `None` if they exceed the array.
fn collect_above<'k>(row: &[f32], bound: f32, keys: &'k mut [Key; MAX_CANDIDATES]) -> Option<&'k mut [Key]> {
    let mut count = 0;
    let mut flags = [0_u8; BLOCK];
    for (block, block_start) in row.chunks(BLOCK).zip((0_u32..).step_by(BLOCK)) {
        // The last block is short: the other flags would be those of the previous block.
        flags[block.len()..].fill(0);
        for (flag, &value) in flags.iter_mut().zip(block) {
            *flag = u8::from(is_above(value, bound));
        }
        // Eight flags a word, most of them zero.
        for (word, start) in flags.as_chunks().0.iter().zip((block_start..).step_by(8)) {
            let mut word = u64::from_le_bytes(*word);
            while word != 0 {
                let index = start + word.trailing_zeros() / 8;
                *keys.get_mut(count)? = key::pack(row[index as usize], index);
                count += 1;
                word &= word - 1;
            }
        }
    }
    keys.get_mut(..count)
}

/// Writes the best of the `ranked` positions, then fills up with the first values that equal the bound.
#[inline(always)]
pub(super) fn write(
    row: &[f32],
    bound: f32,
    ranked: impl Iterator<Item = u32>,
    values: &mut [f32],
    indices: &mut [i64],
) {
    let mut filled = 0;
    for ((position, value), index) in ranked.zip(values.iter_mut()).zip(indices.iter_mut()) {
        *value = row[position as usize];
        *index = i64::from(position);
        filled += 1;
    }
    if filled < values.len() {
        write_equal(row, bound, &mut values[filled..], &mut indices[filled..]);
    }
}

/// Writes the first values that equal the bound; the outputs are not empty.
fn write_equal(row: &[f32], bound: f32, values: &mut [f32], indices: &mut [i64]) {
    let mut count = 0;
    for (chunk, start) in row.chunks(LANES).zip((0_i64..).step_by(LANES)) {
        if !chunk.iter().fold(false, |any, &value| any | (value == bound)) {
            continue;
        }
        for (&candidate, position) in chunk.iter().zip(start..) {
            let (Some(value), Some(index)) = (values.get_mut(count), indices.get_mut(count)) else {
                return;
            };
            // Always written, kept if the count advances: no branch to mispredict.
            *value = candidate;
            *index = position;
            count += usize::from(candidate == bound);
        }
    }
}
