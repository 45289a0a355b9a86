//! What a place of the 30 x 30 map sees of the network's input.
//!
//! It follows from the layers, none of which pads. Going back from one place, a layer with kernel `k` widens the
//! field by `(k - 1)` steps of its input, and a layer with stride `s` makes the steps beyond it `s` times as long:
//!
//! | layer | map | field | step |
//! |---|---|---|---|
//! | residue | 256 | 1 | 1 |
//! | conv1 2x2 | 255 | 2 | 1 |
//! | pool 2x2 | 127 | 3 | 2 |
//! | conv2 2x2 | 126 | 5 | 2 |
//! | pool 2x2 | 63 | 7 | 4 |
//! | conv3 2x2 | 62 | 11 | 4 |
//! | pool 2x2 | 31 | 15 | 8 |
//! | conv4 2x2 | 30 | 23 | 8 |
//! | conv 1x1 | 30 | 23 | 8 |
//!
//! So place `i` of an axis reads the residue at `8i .. 8i + 23`. A pixel of the residue is the difference to the
//! top left pixel of its 2x2 block; the first and the last of the 23 are even, hence top left themselves, and all
//! blocks between lie within: the place depends on exactly these 23 pixels. (With the rest of its last block,
//! which it does not read, that is 24.) The last place ends at 255: the input's last row and column are never read.

/// Places on a side of the map.
pub const PLACES: usize = 30;

/// Kernel and stride of each layer from the residue to the map.
const LAYERS: [(u32, u32); 8] = [(2, 1), (2, 2), (2, 1), (2, 2), (2, 1), (2, 2), (2, 1), (1, 1)];

const FIELD_AND_STEP: (u32, u32) = {
    let (mut field, mut step, mut i) = (1, 1, 0);
    while i < LAYERS.len() {
        let (kernel, stride) = LAYERS[i];
        field += (kernel - 1) * step;
        step *= stride;
        i += 1;
    }
    (field, step)
};

/// Pixels of the input that a place sees on an axis.
pub const FIELD: u32 = FIELD_AND_STEP.0;

/// Pixels of the input from one place to the next.
pub const STRIDE: u32 = FIELD_AND_STEP.1;

/// What the place at `row`, `col` sees of the input: `[x0, y0, x1, y1]` in pixels, the ends outside.
pub fn field(row: usize, col: usize) -> [u32; 4] {
    let start = |place: usize| place as u32 * STRIDE;
    let (x, y) = (start(col), start(row));
    [x, y, x + FIELD, y + FIELD]
}

/// The place in whose middle an input coordinate lies on an axis, in pixels: a square of [`STRIDE`] pixels at the
/// centre of each field tiles the input, but for a margin whose pixels are in no place's middle.
pub(super) fn middle(at: f64) -> Option<usize> {
    let margin = f64::from(FIELD - STRIDE) / 2.0;
    let place = ((at - margin) / f64::from(STRIDE)).floor();
    (0.0..PLACES as f64).contains(&place).then_some(place as usize)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::SIDE;

    /// The table above, worked out another way: forwards, by which residue pixels each output reads.
    #[test]
    fn fields_are_what_the_layers_read() {
        let mut axis: Vec<(u32, u32)> = (0..SIDE).map(|i| (i, i + 1)).collect();
        for (kernel, stride) in LAYERS {
            let (kernel, stride) = (kernel as usize, stride as usize);
            axis = axis.windows(kernel).step_by(stride).map(|read| (read[0].0, read[kernel - 1].1)).collect();
        }
        assert_eq!(axis.len(), PLACES);
        assert_eq!((FIELD, STRIDE), (23, 8));
        for (place, (start, end)) in axis.into_iter().enumerate() {
            let [x0, y0, x1, y1] = field(place, place);
            assert_eq!([x0, y0, x1, y1], [start, start, end, end]);
            // With the top left pixels of the blocks it is the same pixels.
            assert!((start..end).all(|at| (start..end).contains(&(at & !1))));
            assert!(x1 <= SIDE);
            let centre = f64::from(x0 + x1) / 2.0;
            assert_eq!(middle(centre), Some(place));
        }
        assert_eq!((middle(7.4), middle(7.6), middle(247.4), middle(247.6)), (None, Some(0), Some(29), None));
    }
}
