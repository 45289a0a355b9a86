//! Inverse mapping: from pixels of the network's input to the stored pixels that they were computed from.

use super::{
    Preprocessing, Regions, SIDE,
    fit::{AxisFit, Filter},
    places,
    resize::source_span,
};

/// The decoded pixels that a box of the first input was computed from, in an image of `width` x `height`:
/// [`region_box`] of the first of [`places`].
pub fn source_box(preprocessing: Preprocessing, width: u32, height: u32, input: [u32; 4]) -> [u32; 4] {
    let first = places(preprocessing, Regions::One, width, height).first().copied();
    region_box(first.unwrap_or([0, 0, width, height]), input)
}

/// The decoded pixels that a box of a region's input was computed from; `bounds` are the region's. Boxes are
/// `[x0, y0, x1, y1]` in pixels, ends exclusive; the input's box is clipped to [`SIDE`].
///
/// For a tile this is the box moved by the tile's offset. For a resized picture it is every pixel with a weight in
/// one of the box's pixels (Pillow's `precompute_coeffs`, triangle filter), so neighbouring boxes overlap. Regions are
/// LFM's: only its graphs tell places.
pub fn region_box(bounds: [u32; 4], input: [u32; 4]) -> [u32; 4] {
    let [left, top, right, bottom] = bounds;
    let [x0, y0, x1, y1] = input.map(|at| at.min(SIDE));
    let span = |start: u32, end: u32, from, to| {
        let (from, to) = source_span(AxisFit::whole(end - start, SIDE), Filter::Bilinear, from, to);
        (start + from, start + to)
    };
    let ((x0, x1), (y0, y1)) = (span(left, right, x0, x1), span(top, bottom, y0, y1));
    [x0, y0, x1, y1]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::image::{Pixels, WHOLE_INPUT, fit::Fit, resize::Resizer};

    fn resized(width: u32, height: u32, rgb: &[u8]) -> Pixels {
        let mut resizer = Resizer::default();
        resizer.start(&Fit::square(width, height));
        rgb.chunks_exact(width as usize * 3).for_each(|row| resizer.row(row));
        resizer.finish().expect("all rows")
    }

    /// The smallest box of all input pixels at which the images differ.
    fn touched(a: &Pixels, b: &Pixels) -> Option<[u32; 4]> {
        let pixels = a.as_bytes().chunks_exact(3).zip(b.as_bytes().chunks_exact(3)).enumerate();
        let places = pixels.filter(|(_, (a, b))| a != b).map(|(i, _)| (i as u32 % SIDE, i as u32 / SIDE));
        places.fold(None, |seen, (x, y)| {
            let [x0, y0, x1, y1] = seen.unwrap_or([x, y, x + 1, y + 1]);
            Some([x0.min(x), y0.min(y), x1.max(x + 1), y1.max(y + 1)])
        })
    }

    #[test]
    fn the_whole_input_is_the_tile_or_the_whole_image() {
        for (width, height) in [(256, 256), (451, 300), (4000, 256), (64, 64), (3000, 1), (1, 1), (65_535, 300)] {
            let whole = [0, 0, width, height];
            assert_eq!(source_box(Preprocessing::Resize, width, height, WHOLE_INPUT), whole);
            let crop = source_box(Preprocessing::Crop, width, height, WHOLE_INPUT);
            if width.min(height) < SIDE {
                assert_eq!(crop, whole);
            } else {
                assert_eq!([crop[2] - crop[0], crop[3] - crop[1]], [SIDE, SIDE]);
                assert!(
                    crop[0].is_multiple_of(2) && crop[1].is_multiple_of(2) && crop[2] <= width && crop[3] <= height
                );
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// Inverting every stored pixel outside the box leaves the input's box unchanged; inverting those inside
        /// changes it at each of its four edges.
        #[test]
        fn a_box_is_exactly_what_its_input_was_computed_from(
            width in 1..700u32, height in 1..700u32, x in 0..SIDE - 1, y in 0..SIDE - 1,
            w in 1..40u32, h in 1..40u32,
        ) {
            let input = [x, y, (x + w).min(SIDE), (y + h).min(SIDE)];
            let [x0, y0, x1, y1] = source_box(Preprocessing::Resize, width, height, input);
            prop_assert!(x0 < x1 && x1 <= width && y0 < y1 && y1 <= height);
            let black = resized(width, height, &vec![0; (width * height * 3) as usize]);
            let draw = |lit: &dyn Fn(u32, u32) -> bool| {
                let pixels = (0..height).flat_map(|y| (0..width).map(move |x| (x, y)));
                let rgb: Vec<u8> = pixels.flat_map(|(x, y)| [255 * u8::from(lit(x, y)); 3]).collect();
                resized(width, height, &rgb)
            };
            let outside = draw(&|x, y| !(x0..x1).contains(&x) && !(y0..y1).contains(&y));
            for y in input[1]..input[3] {
                let row = (y * SIDE + input[0]) as usize * 3..(y * SIDE + input[2]) as usize * 3;
                prop_assert_eq!(&outside.as_bytes()[row.clone()], &black.as_bytes()[row]);
            }
            // A column or row at the box's edge affects the input's box; where its weight there rounds to zero in
            // 8 bits, it affects the adjacent pixel.
            for edge in [x0, x1 - 1] {
                let [left, _, right, _] = touched(&draw(&|x, _| x == edge), &black).expect("something is lit");
                prop_assert!(left <= input[2] && right >= input[0]);
            }
            for edge in [y0, y1 - 1] {
                let [_, top, _, bottom] = touched(&draw(&|_, y| y == edge), &black).expect("something is lit");
                prop_assert!(top <= input[3] && bottom >= input[1]);
            }
        }
    }
}
