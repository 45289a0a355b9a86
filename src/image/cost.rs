//! What decoding an image costs, from its header: CPU time, as measured by `lfm-serve bench --only cost`.
//!
//! The figures are nanoseconds on one core of 2024 (AMD Zen 4); another machine differs by a factor that is the
//! same for all. The test of the benchmark holds every variant to within a factor of three of them.

use std::time::Duration;

/// Nanoseconds, from counts of what has to be done and the time that each takes.
pub(super) fn cost(terms: &[(u64, f64)]) -> Duration {
    /// Setting up a decode and the network's input.
    const FIXED: f64 = 60_000.0;
    let nanoseconds: f64 = terms.iter().map(|&(count, each)| count as f64 * each).sum();
    Duration::from_nanos((FIXED + nanoseconds) as u64)
}

/// Taking a row of RGB: resizing it, or keeping a part.
pub(super) const ROW_PIXEL: f64 = 0.7;
