//! The input samples of each output sample, and their weights: Pillow's `precompute_coeffs` and
//! `normalize_coeffs_8bpc` for the triangle filter (libImaging Resample.c).

use super::SIDE;

/// Pillow's PRECISION_BITS: 32 - 8 for the sample - 2 for the sum's headroom.
pub(super) const PRECISION_BITS: u32 = 32 - 8 - 2;

/// Added before the shift, for rounding.
pub(super) const HALF: i32 = 1 << (PRECISION_BITS - 1);

/// Pillow's `clip8`: fixed point to a byte.
pub(super) fn round(sum: i32) -> u8 {
    (sum >> PRECISION_BITS).clamp(0, 255) as u8
}

/// The input samples `start..start + weights.len()` of one output sample.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Window {
    pub(super) start: u32,
    pub(super) weights: Vec<i32>,
}

impl Window {
    /// First input sample after the window.
    pub(super) fn end(&self) -> u32 {
        self.start + self.weights.len() as u32
    }

    /// The weight of input sample `at`; `None` outside the window.
    pub(super) fn weight(&self, at: u32) -> Option<i32> {
        let index = at.checked_sub(self.start)?;
        self.weights.get(index as usize).copied()
    }
}

/// One axis: `size` input samples to [`SIDE`] output samples.
#[derive(Debug, Default)]
pub(super) struct Axis {
    size: u32,
    /// Unrounded weights of one window.
    exact: Vec<f64>,
}

impl Axis {
    pub(super) fn new(size: u32) -> Self {
        let exact = Vec::new();
        Self { size, exact }
    }

    /// Computes the window of output sample `index`. The order of the floating-point operations is
    /// Pillow's: another order rounds differently.
    pub(super) fn fill(&mut self, index: u32, window: &mut Window) {
        // Pillow passes the size as a C float.
        let scale = f64::from(self.size as f32) / f64::from(SIDE);
        let filter_scale = scale.max(1.0);
        let support = filter_scale;
        let center = (f64::from(index) + 0.5) * scale;
        // `as` truncates and saturates at 0 as Pillow's cast and clamp do.
        let start = (center - support + 0.5) as u32;
        let end = ((center + support + 0.5) as u32).min(self.size);
        let inverse = 1.0 / filter_scale;
        self.exact.clear();
        self.exact.extend((0..end.saturating_sub(start)).map(|x| {
            let distance = (f64::from(x) + f64::from(start) - center + 0.5) * inverse;
            (1.0 - distance.abs()).max(0.0)
        }));
        let sum = self.exact.iter().fold(0.0, |sum, w| sum + w);
        let one = f64::from(1_i32 << PRECISION_BITS);
        window.start = start;
        window.weights.clear();
        window.weights.extend(self.exact.iter().map(|w| {
            let normalised = if sum == 0.0 { *w } else { w / sum };
            (0.5 + normalised * one) as i32
        }));
    }
}

/// The span of the `size` input samples that have a weight in the output samples `from..to`, end exclusive.
pub(in crate::image) fn source_span(size: u32, from: u32, to: u32) -> (u32, u32) {
    // Pillow skips a pass whose size already fits.
    if size == SIDE {
        return (from, to);
    }
    let (mut axis, mut window) = (Axis::new(size), Window::default());
    // The window's outermost samples may have zero weight.
    let idle = |&&weight: &&i32| weight == 0;
    axis.fill(from, &mut window);
    let start = window.start + window.weights.iter().take_while(idle).count() as u32;
    axis.fill(to.saturating_sub(1).max(from), &mut window);
    (start, window.end() - window.weights.iter().rev().take_while(idle).count() as u32)
}
