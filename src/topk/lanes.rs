//! Shared by all scans of a row: the number of columns, and the comparison.

/// Columns whose maxima give the bound. Twice the largest `k` of the fast path: about 24 of 900 random values then
/// reach the bound; with 16 columns it would be 54.
pub(super) const LANES: usize = 32;

/// True if `value` is above `bound`, or either is NaN.
#[inline(always)]
#[expect(clippy::neg_cmp_op_on_partial_ord, reason = "one comparison that is true for NaN")]
pub(super) fn is_above(value: f32, bound: f32) -> bool {
    !(value <= bound)
}
