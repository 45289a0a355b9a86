//! The fast path for AVX2: eight values at a time; branches depend on the number of values, not on the data.

// SIMD: loads and stores through pointers, and a call that needs the CPU's features.
#![allow(unsafe_code)]

use std::arch::x86_64::{
    __m256, __m256i, _CMP_NLE_UQ, _mm_loadl_epi64, _mm256_add_epi32, _mm256_cmp_ps, _mm256_cmpgt_epi64,
    _mm256_cvtepu8_epi32, _mm256_loadu_ps, _mm256_loadu_si256, _mm256_max_ps, _mm256_movemask_ps, _mm256_set1_epi32,
    _mm256_set1_epi64x, _mm256_set1_ps, _mm256_setzero_si256, _mm256_storeu_ps, _mm256_storeu_si256, _mm256_sub_epi64,
};

use super::{
    key,
    lanes::LANES,
    portable,
    portable::{MAX_CANDIDATES, MAX_K, Maxima},
    prune,
};

/// Values in a vector.
const WIDTH: usize = 8;

/// Room for the candidates and for [`LANES`] more, which are added before the number is checked.
const BUFFER: usize = MAX_CANDIDATES + LANES;

/// Token: this CPU has the features that the kernel is compiled for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Avx2(());

impl Avx2 {
    /// The token, if this CPU has the features.
    pub(super) fn detect() -> Option<Self> {
        let detected = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("popcnt");
        detected.then_some(Self(()))
    }

    /// Top `values.len()` of `row`; the caller has checked `1 <= k <= row.len() <= i32::MAX`.
    pub(super) fn select(self, row: &[f32], values: &mut [f32], indices: &mut [i64]) {
        // SAFETY: only `detect` creates an `Avx2`, after it has checked this CPU's features.
        unsafe { select(row, values, indices) }
    }
}

#[target_feature(enable = "avx2,popcnt")]
fn select(row: &[f32], values: &mut [f32], indices: &mut [i64]) {
    if values.len() > MAX_K {
        return prune::select(row, None, values, indices);
    }
    let bound = portable::lower_bound(&lane_maxima(row));
    let mut buffer = [0; BUFFER];
    match collect_above(row, bound, &mut buffer) {
        Some(above) => {
            let ranked = rank(row, above);
            let ranked = ranked.iter().take(above.len()).copied();
            portable::write(row, bound, ranked, values, indices);
        }
        None => prune::select(row, Some(bound), values, indices),
    }
}

/// The maximum of each column of `row` written in lines of [`LANES`], ignoring NaN.
#[target_feature(enable = "avx2,popcnt")]
fn lane_maxima(row: &[f32]) -> Maxima {
    let mut maxima = [_mm256_set1_ps(f32::NEG_INFINITY); LANES / WIDTH];
    let (vectors, rest) = row.as_chunks::<WIDTH>();
    let (lines, last) = vectors.as_chunks::<{ LANES / WIDTH }>();
    // `max_ps` returns its second argument if the first is NaN.
    for line in lines {
        for (maximum, values) in maxima.iter_mut().zip(line) {
            *maximum = _mm256_max_ps(load(values), *maximum);
        }
    }
    let rest = padded(rest);
    for (maximum, values) in maxima.iter_mut().zip(last.iter().chain([&rest])) {
        *maximum = _mm256_max_ps(load(values), *maximum);
    }
    maxima.map(|maximum| {
        let mut values = [0.0; WIDTH];
        // SAFETY: `values` has room for the vector; the store needs no alignment.
        unsafe { _mm256_storeu_ps(values.as_mut_ptr(), maximum) };
        values
    })
}

/// Indices of the values above `bound` and of NaN, ascending, or `None` if more than [`MAX_CANDIDATES`].
#[target_feature(enable = "avx2,popcnt")]
fn collect_above<'b>(row: &[f32], bound: f32, buffer: &'b mut [u32; BUFFER]) -> Option<&'b [u32]> {
    let bound = _mm256_set1_ps(bound);
    let mut start = _mm256_setzero_si256();
    let mut count = 0;
    let (vectors, rest) = row.as_chunks::<WIDTH>();
    let (lines, last) = vectors.as_chunks::<{ LANES / WIDTH }>();
    for line in lines {
        for values in line {
            // SAFETY: the check below leaves room for each of the line's four vectors.
            count = unsafe { push_above(values, bound, start, buffer, count) };
            start = _mm256_add_epi32(start, _mm256_set1_epi32(WIDTH as i32));
        }
        if count > MAX_CANDIDATES {
            return None;
        }
    }
    for values in last.iter().chain([&padded(rest)]) {
        // SAFETY: at most four vectors after the check above, as in a line.
        count = unsafe { push_above(values, bound, start, buffer, count) };
        start = _mm256_add_epi32(start, _mm256_set1_epi32(WIDTH as i32));
    }
    let found = buffer.get(..count)?;
    (count <= MAX_CANDIDATES).then_some(found)
}

/// Writes the indices of the `values` above `bound` to `buffer[count..]`, `start` being the index of the first value;
/// returns the new count.
///
/// # Safety
/// `count + WIDTH <= BUFFER`: a whole vector is always written.
#[inline]
#[target_feature(enable = "avx2,popcnt")]
unsafe fn push_above(
    values: &[f32; WIDTH],
    bound: __m256,
    start: __m256i,
    buffer: &mut [u32; BUFFER],
    count: usize,
) -> usize {
    debug_assert!(count + WIDTH <= BUFFER);
    // Not (value <= bound): true for NaN too.
    let above = _mm256_cmp_ps::<_CMP_NLE_UQ>(load(values), bound);
    let mask = _mm256_movemask_ps(above) as usize & 0xff;
    // SAFETY: an entry of the table is the eight bytes that are loaded.
    let positions = unsafe { _mm_loadl_epi64(POSITIONS[mask].as_ptr().cast()) };
    let indices = _mm256_add_epi32(_mm256_cvtepu8_epi32(positions), start);
    // SAFETY: the caller guarantees room for eight indices; the store needs no alignment.
    unsafe { _mm256_storeu_si256(buffer.as_mut_ptr().add(count).cast(), indices) };
    count + mask.count_ones() as usize
}

/// The indices `above` in result order: the rank of each is the number of larger keys.
#[target_feature(enable = "avx2,popcnt")]
fn rank(row: &[f32], above: &[u32]) -> [u32; MAX_CANDIDATES] {
    let mut keys = [key::LOWEST; MAX_CANDIDATES];
    for (key, &index) in keys.iter_mut().zip(above) {
        *key = key::pack(row[index as usize], index);
    }
    let mut ranked = [0; MAX_CANDIDATES];
    for (block, indices) in keys.as_chunks::<8>().0.iter().zip(above.chunks(8)) {
        // SAFETY: `block` is eight keys, in two vectors of four; the loads need no alignment.
        let (low, high) = unsafe {
            let block = block.as_ptr().cast::<__m256i>();
            (_mm256_loadu_si256(block), _mm256_loadu_si256(block.add(1)))
        };
        let mut low_ranks = _mm256_setzero_si256();
        let mut high_ranks = _mm256_setzero_si256();
        for &key in keys.iter().take(above.len()) {
            // A true comparison is -1.
            let key = _mm256_set1_epi64x(key);
            low_ranks = _mm256_sub_epi64(low_ranks, _mm256_cmpgt_epi64(key, low));
            high_ranks = _mm256_sub_epi64(high_ranks, _mm256_cmpgt_epi64(key, high));
        }
        let mut ranks = [0_u64; 8];
        // SAFETY: `ranks` has room for two vectors of four; the stores need no alignment.
        unsafe {
            let ranks = ranks.as_mut_ptr().cast::<__m256i>();
            _mm256_storeu_si256(ranks, low_ranks);
            _mm256_storeu_si256(ranks.add(1), high_ranks);
        }
        for (&rank, &index) in ranks.iter().zip(indices) {
            // No two keys are equal, so a rank is below the number of keys; the remainder only avoids the bounds
            // check.
            ranked[rank as usize % MAX_CANDIDATES] = index;
        }
    }
    ranked
}

#[inline]
#[target_feature(enable = "avx2,popcnt")]
fn load(values: &[f32; WIDTH]) -> __m256 {
    // SAFETY: the eight values that the load reads; it needs no alignment.
    unsafe { _mm256_loadu_ps(values.as_ptr()) }
}

/// The values after the last whole vector, padded with negative infinity, which is above no bound.
#[inline]
fn padded(rest: &[f32]) -> [f32; WIDTH] {
    let mut values = [f32::NEG_INFINITY; WIDTH];
    for (value, &given) in values.iter_mut().zip(rest) {
        *value = given;
    }
    values
}

/// Entry `mask` holds the positions of the bits set in `mask`, ascending, then zeros.
static POSITIONS: [[u8; 8]; 256] = {
    let mut table = [[0; 8]; 256];
    let mut mask = 0;
    while mask < table.len() {
        let (mut bit, mut count) = (0, 0);
        while bit < 8 {
            if mask & (1 << bit) != 0 {
                table[mask][count] = bit;
                count += 1;
            }
            bit += 1;
        }
        mask += 1;
    }
    table
};
