//! The portable kernels; every other kernel is compared with these.

use super::windows::{HALF, Window, round};

/// One output pixel per window, from one row of RGB.
pub(super) fn weigh_pixels(rgb: &[u8], windows: &[Window], out: &mut [u8]) {
    for (window, out) in windows.iter().zip(out.chunks_exact_mut(3)) {
        let samples = rgb.get(window.start as usize * 3..).unwrap_or_default();
        let mut sums = [HALF; 3];
        for (pixel, weight) in samples.chunks_exact(3).zip(&window.weights) {
            for (sum, &sample) in sums.iter_mut().zip(pixel) {
                *sum = sum.wrapping_add(i32::from(sample).wrapping_mul(*weight));
            }
        }
        for (byte, sum) in out.iter_mut().zip(sums) {
            *byte = round(sum);
        }
    }
}

/// Adds `weight * row` to `sums`.
pub(super) fn add_weighted(row: &[u8], weight: i32, sums: &mut [i32]) {
    for (sum, &sample) in sums.iter_mut().zip(row) {
        *sum = sum.wrapping_add(i32::from(sample).wrapping_mul(weight));
    }
}
