//! One integer per element, ordered like the results.

/// A value's rank key in the upper half, the complement of its index in the lower half: no two keys of a row are equal,
/// and the largest is the first result.
pub(super) type Key = i64;

/// Below the key of any element.
pub(super) const LOWEST: Key = Key::MIN;

/// The key of the `index`-th value of a row.
#[inline(always)]
pub(super) fn pack(value: f32, index: u32) -> Key {
    // IEEE 754 numbers are sign and magnitude: flipping the magnitude of negative ones gives them two's complement
    // order. Adding +0.0 changes only -0.0, to +0.0.
    let bits = (value + 0.0).to_bits().cast_signed();
    let ordered = bits ^ ((bits >> 31) & i32::MAX);
    let ordered = if value.is_nan() { i32::MAX } else { ordered };
    (i64::from(ordered) << 32) | i64::from(!index)
}

/// The index inside a key.
#[inline(always)]
pub(super) fn index(key: Key) -> u32 {
    !(key as u32)
}
