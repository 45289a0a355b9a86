//! How a picture's samples become RGB in Pillow 11.3: libavif 1.3 asks libyuv where it can, else computes itself. Kept are the
//! ways that are the same to the last bit here.

use super::stream::{Layout, Shape};
use crate::image::properties::Cicp;

/// The way to RGB.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Method {
    /// Green, blue and red are stored as they are.
    Stored,
    /// Grey in floats, by libavif itself: `0.5 + 255 * clamp((y - black) / range)`.
    Grey { black: f32, range: f32 },
    /// libyuv's integers.
    Matrix { matrix: &'static Matrix, precision: Precision },
}

impl Method {
    /// `alpha`: whether the file has transparency, for which libavif takes other functions. Nothing where the pixels would
    /// not be the reference's.
    pub(super) fn new(shape: Shape, cicp: Cicp, alpha: bool) -> Option<Self> {
        const IDENTITY: u16 = 0;
        if cicp.matrix == IDENTITY {
            let stored = shape.layout == Layout::I444 && shape.depth == 8 && cicp.full_range;
            return stored.then_some(Self::Stored);
        }
        let matrix = Matrix::of(cicp)?;
        if shape.layout == Layout::I400 && !alpha {
            let unit = f32::from(1_u16 << (shape.depth - 8));
            let (black, range) = if cicp.full_range { (0.0, 256.0 * unit - 1.0) } else { (16.0 * unit, 219.0 * unit) };
            return Some(Self::Grey { black, range });
        }
        Some(Self::Matrix { matrix, precision: Precision::of(shape, alpha) })
    }
}

/// libyuv's `YuvConstants`, in 1/64: luma's scale (in 1/2^16) and offset, then the weights of blue, green and red.
#[derive(Debug, PartialEq)]
pub(super) struct Matrix {
    pub(super) yg: i32,
    pub(super) yb: i32,
    pub(super) ub: i32,
    pub(super) ug: i32,
    pub(super) vg: i32,
    pub(super) vr: i32,
}

impl Matrix {
    const BT601_FULL: Self = Self { yg: 16320, yb: 32, ub: 113, ug: 22, vg: 46, vr: 90 };
    const BT601_LIMITED: Self = Self { yg: 18997, yb: -1160, ub: 128, ug: 25, vg: 52, vr: 102 };
    const BT709_FULL: Self = Self { yg: 16320, yb: 32, ub: 119, ug: 12, vg: 30, vr: 101 };
    const BT709_LIMITED: Self = Self { yg: 18997, yb: -1160, ub: 128, ug: 14, vg: 34, vr: 115 };
    const BT2020_FULL: Self = Self { yg: 16320, yb: 32, ub: 120, ug: 11, vg: 37, vr: 94 };
    const BT2020_LIMITED: Self = Self { yg: 19003, yb: -1160, ub: 128, ug: 12, vg: 42, vr: 107 };

    /// By the code points of ITU-T H.273; 12 takes its matrix from the primaries.
    fn of(cicp: Cicp) -> Option<&'static Self> {
        let [full, limited] = match (cicp.matrix, cicp.primaries) {
            (1, _) | (12, 1 | 2) => [&Self::BT709_FULL, &Self::BT709_LIMITED],
            (2 | 5 | 6, _) | (12, 5 | 6) => [&Self::BT601_FULL, &Self::BT601_LIMITED],
            (9, _) | (12, 9) => [&Self::BT2020_FULL, &Self::BT2020_LIMITED],
            _ => return None,
        };
        Some(if cicp.full_range { full } else { limited })
    }
}

/// In how many bits chroma is enlarged and luma is multiplied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Precision {
    /// Bits that are cut off first.
    pub(super) cut: u32,
    /// Bits that are left.
    pub(super) bits: u32,
    /// Chroma is repeated instead of interpolated.
    pub(super) nearest: bool,
}

impl Precision {
    fn of(shape: Shape, alpha: bool) -> Self {
        match (alpha, shape.depth, shape.layout) {
            // libyuv has functions for these alone, and one of them for want of a better does not interpolate.
            (true, 10, Layout::I420 | Layout::I422 | Layout::I444) => Self { cut: 0, bits: 10, nearest: false },
            (true, 12, Layout::I420) => Self { cut: 0, bits: 12, nearest: true },
            (_, depth, _) => Self { cut: u32::from(depth) - 8, bits: 8, nearest: false },
        }
    }
}
