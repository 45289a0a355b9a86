//! Reference implementation: every kernel is compared with it, in tests and by `doctor`.

use std::cmp::Ordering;

/// Top `k` of one row by a stable sort: the bits of the values, and their indices.
#[must_use]
pub fn by_stable_sort(row: &[f32], k: usize) -> (Vec<u32>, Vec<i64>) {
    let mut order: Vec<(f32, i64)> = row.iter().copied().zip(0..).collect();
    // NaN before all numbers, and all NaN equal.
    let descending = |a: f32, b: f32| -> Ordering { b.partial_cmp(&a).unwrap_or_else(|| b.is_nan().cmp(&a.is_nan())) };
    order.sort_by(|&(a, _), &(b, _)| descending(a, b));
    order.into_iter().take(k).map(|(value, index)| (value.to_bits(), index)).unzip()
}
