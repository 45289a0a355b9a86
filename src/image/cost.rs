//! Estimated CPU time of decoding an image, from its header; calibrated by `lfm-serve bench --only cost`.
//!
//! The figures are nanoseconds on one core of 2024 (AMD Zen 4); another machine differs by a factor common to all. A
//! test of the benchmark checks every variant to within a factor of three.

use std::time::Duration;

/// Total time, from counts of operations and the nanoseconds of each.
pub(super) fn cost(terms: &[(u64, f64)]) -> Duration {
    /// Setting up a decode and the network's input.
    const FIXED: Duration = Duration::from_micros(60);
    FIXED + time(terms)
}

/// The same without what every image takes.
pub(super) fn time(terms: &[(u64, f64)]) -> Duration {
    let nanoseconds: f64 = terms.iter().map(|&(count, each)| count as f64 * each).sum();
    Duration::from_nanos(nanoseconds as u64)
}

/// Per pixel of an RGB row: resizing it, or keeping a part.
pub(super) const ROW_PIXEL: f64 = 0.7;
