//! The input samples of each output sample, and their weights: Pillow's `precompute_coeffs` and
//! `normalize_coeffs_8bpc` for the triangle and the cubic filter (libImaging Resample.c).

use super::{AxisFit, Filter};

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

impl Filter {
    /// Pillow's `support` at scale 1.
    fn support(self) -> f64 {
        match self {
            Self::Bilinear => 1.0,
            Self::Bicubic => 2.0,
        }
    }

    /// Pillow's `bilinear_filter` and `bicubic_filter`.
    fn weight(self, x: f64) -> f64 {
        const A: f64 = -0.5;
        let x = x.abs();
        match self {
            Self::Bilinear => (1.0 - x).max(0.0),
            Self::Bicubic if x < 1.0 => ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0,
            Self::Bicubic if x < 2.0 => (((x - 5.0) * x + 8.0) * x - 4.0) * A,
            Self::Bicubic => 0.0,
        }
    }
}

/// The windows of one axis.
#[derive(Debug)]
pub(super) struct Axis {
    fit: AxisFit,
    filter: Filter,
    /// Unrounded weights of one window.
    exact: Vec<f64>,
}

impl Axis {
    pub(super) fn new(fit: AxisFit, filter: Filter) -> Self {
        Self { fit, filter, exact: Vec::new() }
    }

    /// Number of output samples.
    pub(super) fn len(&self) -> u32 {
        self.fit.len
    }

    /// Computes the window of output sample `index`. The order of the floating-point operations is
    /// Pillow's: another order rounds differently.
    pub(super) fn fill(&mut self, index: u32, window: &mut Window) {
        let AxisFit { size, total, offset, .. } = self.fit;
        // Pillow passes the size as a C float.
        let scale = f64::from(size as f32) / f64::from(total);
        let filter_scale = scale.max(1.0);
        let support = self.filter.support() * filter_scale;
        let center = (f64::from(offset + index) + 0.5) * scale;
        // `as` truncates and saturates at 0 as Pillow's cast and clamp do.
        let start = (center - support + 0.5) as u32;
        let end = ((center + support + 0.5) as u32).min(size);
        let inverse = 1.0 / filter_scale;
        self.exact.clear();
        self.exact.extend((0..end.saturating_sub(start)).map(|x| {
            let distance = (f64::from(x) + f64::from(start) - center + 0.5) * inverse;
            self.filter.weight(distance)
        }));
        let sum = self.exact.iter().fold(0.0, |sum, w| sum + w);
        let one = f64::from(1_i32 << PRECISION_BITS);
        window.start = start;
        window.weights.clear();
        window.weights.extend(self.exact.iter().map(|w| {
            let normalised = if sum == 0.0 { *w } else { w / sum };
            (0.5_f64.copysign(normalised) + normalised * one) as i32
        }));
    }
}

/// The span of the input samples that have a weight in the output samples `from..to`, end exclusive.
pub(in crate::image) fn source_span(fit: AxisFit, filter: Filter, from: u32, to: u32) -> (u32, u32) {
    // Pillow skips a pass whose size already fits.
    if fit.size == fit.total {
        return (fit.offset + from, fit.offset + to);
    }
    let (mut axis, mut window) = (Axis::new(fit, filter), Window::default());
    // The window's outermost samples may have zero weight.
    let idle = |&&weight: &&i32| weight == 0;
    axis.fill(from, &mut window);
    let start = window.start + window.weights.iter().take_while(idle).count() as u32;
    axis.fill(to.saturating_sub(1).max(from), &mut window);
    (start, window.end() - window.weights.iter().rev().take_while(idle).count() as u32)
}
