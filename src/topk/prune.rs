//! Top-K of any row for any `k`: the path for a large `k` and for rows with too many values above the bound.

use super::{
    key::{self, Key},
    lanes::{LANES, is_above},
};

/// Keys buffered between two prunings, as a multiple of `k`, and the minimum. Small, so that the floor rises early.
const BUFFER_PER_K: usize = 4;
const MIN_BUFFER: usize = 64;

/// Top `values.len()` of `row`. If there is a `bound`, at least as many values of the row must be above it.
///
/// Buffers the keys above a floor. When the buffer is full, keeps the `k` largest and raises the floor to the least of
/// them. Linear in the row: each selection among `4k` keys is amortised over the `3k` values read since the last.
#[cold]
pub(super) fn select(row: &[f32], bound: Option<f32>, values: &mut [f32], indices: &mut [i64]) {
    let k = values.len();
    let capacity = k.saturating_mul(BUFFER_PER_K).max(MIN_BUFFER).min(row.len());
    let mut keys: Vec<Key> = Vec::with_capacity(capacity);
    // Index 0: a value equal to the bound never counts as above it, at any index.
    let mut floor = bound.map_or(key::LOWEST, |bound| key::pack(bound, 0));
    // The floor's value. Later values that equal it rank below it, so only those above count. NaN means no
    // floor: in `is_above` every value is above it.
    let mut floor_value = bound.unwrap_or(f32::NAN);
    for (chunk, start) in row.chunks(LANES).zip((0_u32..).step_by(LANES)) {
        if !chunk.iter().fold(false, |any, &value| any | is_above(value, floor_value)) {
            continue;
        }
        for (&value, index) in chunk.iter().zip(start..) {
            let key = key::pack(value, index);
            if key <= floor {
                continue;
            }
            keys.push(key);
            if keys.len() == capacity {
                floor = keep_largest(&mut keys, k);
                floor_value = row[key::index(floor) as usize];
            }
        }
    }
    keep_largest(&mut keys, k);
    keys.sort_unstable_by(|a, b| b.cmp(a));
    for ((value, index), &key) in values.iter_mut().zip(indices).zip(&keys) {
        let position = key::index(key);
        *value = row[position as usize];
        *index = i64::from(position);
    }
}

/// Cuts `keys`, at least `k`, down to the `k` largest in any order; returns the least of them.
fn keep_largest(keys: &mut Vec<Key>, k: usize) -> Key {
    let (_, &mut floor, _) = keys.select_nth_unstable_by(k - 1, |a, b| b.cmp(a));
    keys.truncate(k);
    floor
}
