//! The AVX2 kernels.
//!
//! A weight has up to 23 bits and `pmaddwd` takes 16-bit factors, so a weight is split into its low 15 bits and the
//! remaining 8 or fewer with its sign. The whole sum is exact in 32 bits, which Pillow's 22 fractional bits leave room
//! for; the partial sums may wrap (those of negative weights do), which cancels when they are added.
#![allow(unsafe_code, reason = "SIMD intrinsics")]

use std::arch::x86_64::{
    __m128i, __m256i, _mm_cvtsi128_si32, _mm_extract_epi32, _mm_loadl_epi64, _mm_loadu_si128, _mm256_add_epi32,
    _mm256_broadcastsi128_si256, _mm256_castsi256_si128, _mm256_cvtepu8_epi32, _mm256_extracti128_si256,
    _mm256_hadd_epi32, _mm256_loadu_si256, _mm256_madd_epi16, _mm256_mullo_epi32, _mm256_set1_epi32,
    _mm256_set1_epi64x, _mm256_setr_epi8, _mm256_setzero_si256, _mm256_shuffle_epi8, _mm256_slli_epi32,
    _mm256_srai_epi32, _mm256_storeu_si256,
};

use super::scalar;
use super::windows::{HALF, PRECISION_BITS, Window};

/// Pixels per step, loaded as [`LOAD_BYTES`] with some excess.
const CHUNK_PIXELS: usize = 4;
const CHUNK_BYTES: usize = CHUNK_PIXELS * 3;
const LOAD_BYTES: usize = 16;
/// Bytes loaded besides the chunk's own.
const SLACK_BYTES: usize = LOAD_BYTES - CHUNK_BYTES;

/// Bits of a weight's low part.
const LOW_BITS: u32 = 15;

/// Token: the processor has AVX2.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Avx2(());

impl Avx2 {
    pub(super) fn detect() -> Option<Self> {
        is_x86_feature_detected!("avx2").then_some(Self(()))
    }

    /// One output pixel per window of `taps`, from one row of RGB.
    pub(super) fn weigh_pixels(self, rgb: &[u8], taps: &Taps, out: &mut [u8]) {
        if rgb.len() < taps.row_bytes {
            return;
        }
        // SAFETY: `self` proves AVX2; the row has the length that the taps were built for.
        unsafe { weigh_pixels(rgb, taps, out) }
    }

    /// Adds `weight * row` to `sums`.
    pub(super) fn add_weighted(self, row: &[u8], weight: i32, sums: &mut [i32]) {
        // SAFETY: `self` proves AVX2.
        unsafe { add_weighted(row, weight, sums) }
    }
}

/// The windows of all output pixels, cut into chunks of four input pixels.
pub(super) struct Taps {
    /// Length of the rows that these taps are for.
    row_bytes: usize,
    spans: Vec<Span>,
    chunks: Vec<Chunk>,
}

/// One window.
struct Span {
    /// Offset of its first load in the row; each further load is [`CHUNK_BYTES`] later. All end within `row_bytes`.
    first_load: usize,
    /// Number of its chunks in [`Taps::chunks`].
    chunks: usize,
    /// The slack of each load lies before the chunk, not after: for windows at the row's end.
    slack_first: bool,
}

/// The weights of four pixels: low parts, then high parts.
struct Chunk {
    low: [i16; CHUNK_PIXELS],
    high: [i16; CHUNK_PIXELS],
}

impl Taps {
    /// `None` if a row is too short to be loaded in whole chunks.
    pub(super) fn new(width: u32, windows: &[Window]) -> Option<Self> {
        let width = width as usize;
        let row_bytes = width * 3;
        let mut taps = Self { row_bytes, spans: Vec::with_capacity(windows.len()), chunks: Vec::new() };
        for window in windows {
            let chunks = window.weights.len().div_ceil(CHUNK_PIXELS);
            let start = window.start as usize;
            let pixels = chunks * CHUNK_PIXELS;
            let slack_first = (start + pixels) * 3 + SLACK_BYTES > row_bytes;
            // Near the end the chunks start earlier, with zero weights, and end with the row.
            let first_pixel = if slack_first { width.checked_sub(pixels)?.min(start) } else { start };
            let first_load = if slack_first { (first_pixel * 3).checked_sub(SLACK_BYTES)? } else { first_pixel * 3 };
            let mut weights = vec![0; start - first_pixel];
            weights.extend_from_slice(&window.weights);
            weights.resize(pixels, 0);
            let (groups, _) = weights.as_chunks::<CHUNK_PIXELS>();
            taps.chunks.extend(groups.iter().map(|group| Chunk {
                low: group.map(|weight| (weight & ((1 << LOW_BITS) - 1)) as i16),
                high: group.map(|weight| (weight >> LOW_BITS) as i16),
            }));
            taps.spans.push(Span { first_load, chunks, slack_first });
        }
        Some(taps)
    }
}

/// Rearranges the chunk at byte `at` of a load into 16-bit pairs of neighbouring pixels:
/// R0 R1, R2 R3, G0 G1, G2 G3, B0 B1, B2 B3, and two empty pairs.
#[target_feature(enable = "avx2")]
fn spread(at: i8) -> __m256i {
    const NONE: i8 = -128;
    let [r, g, b] = [at, at + 1, at + 2];
    #[rustfmt::skip]
    let indices = _mm256_setr_epi8(
        r, NONE, r + 3, NONE, r + 6, NONE, r + 9, NONE, g, NONE, g + 3, NONE, g + 6, NONE, g + 9, NONE,
        b, NONE, b + 3, NONE, b + 6, NONE, b + 9, NONE, NONE, NONE, NONE, NONE, NONE, NONE, NONE, NONE,
    );
    indices
}

/// # Safety
/// `rgb` must have at least `taps.row_bytes` bytes.
#[target_feature(enable = "avx2")]
unsafe fn weigh_pixels(rgb: &[u8], taps: &Taps, out: &mut [u8]) {
    let slack_last = spread(0);
    let slack_first = spread(SLACK_BYTES as i8);
    let mut chunks = taps.chunks.as_slice();
    for (span, out) in taps.spans.iter().zip(out.as_chunks_mut::<3>().0) {
        let (own, rest) = chunks.split_at(span.chunks);
        chunks = rest;
        let order = if span.slack_first { slack_first } else { slack_last };
        let mut low = _mm256_setzero_si256();
        let mut high = _mm256_setzero_si256();
        // SAFETY: within the row, see `Span::first_load`.
        let mut load = unsafe { rgb.as_ptr().add(span.first_load) };
        for chunk in own {
            // SAFETY: the 16 bytes end within the row, see `Span::first_load`.
            let bytes = unsafe { _mm_loadu_si128(load.cast::<__m128i>()) };
            let pairs = _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(bytes), order);
            low = _mm256_add_epi32(low, _mm256_madd_epi16(pairs, repeat(chunk.low)));
            high = _mm256_add_epi32(high, _mm256_madd_epi16(pairs, repeat(chunk.high)));
            load = load.wrapping_add(CHUNK_BYTES);
        }
        let sums = _mm256_add_epi32(low, _mm256_slli_epi32::<{ LOW_BITS as i32 }>(high));
        // R, G | B, 0 of each half.
        let sums = _mm256_hadd_epi32(sums, sums);
        let sums = _mm256_add_epi32(sums, _mm256_set1_epi32(HALF));
        let bytes = _mm256_srai_epi32::<{ PRECISION_BITS as i32 }>(sums);
        let red_green = _mm256_castsi256_si128(bytes);
        let blue = _mm256_extracti128_si256::<1>(bytes);
        // Weights may sum to slightly more than one, and those of the cubic filter may be negative.
        let byte = |value: i32| value.clamp(0, 255) as u8;
        *out = [
            byte(_mm_cvtsi128_si32(red_green)),
            byte(_mm_extract_epi32::<1>(red_green)),
            byte(_mm_cvtsi128_si32(blue)),
        ];
    }
}

/// The same four 16-bit weights in each 64 bits: two pairs of pixels.
#[target_feature(enable = "avx2")]
fn repeat(weights: [i16; CHUNK_PIXELS]) -> __m256i {
    let [a, b, c, d] = weights.map(|w| w as u16 as u64);
    _mm256_set1_epi64x((a | b << 16 | c << 32 | d << 48) as i64)
}

#[target_feature(enable = "avx2")]
fn add_weighted(row: &[u8], weight: i32, sums: &mut [i32]) {
    let factor = _mm256_set1_epi32(weight);
    let (row_groups, row_rest) = row.as_chunks::<8>();
    let (sum_groups, sum_rest) = sums.as_chunks_mut::<8>();
    for (samples, sums) in row_groups.iter().zip(sum_groups) {
        // SAFETY: both arrays are as long as what is read and written.
        unsafe {
            let samples = _mm256_cvtepu8_epi32(_mm_loadl_epi64(samples.as_ptr().cast()));
            let place = sums.as_mut_ptr().cast::<__m256i>();
            let product = _mm256_mullo_epi32(samples, factor);
            _mm256_storeu_si256(place, _mm256_add_epi32(_mm256_loadu_si256(place), product));
        }
    }
    scalar::add_weighted(row_rest, weight, sum_rest);
}
