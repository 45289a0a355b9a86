use proptest::prelude::*;
use sha2::{Digest, Sha256};

use super::*;
use crate::image::{Recipe, Scale};

/// Width, height, and the start of the SHA-256 of Pillow 11.3.0's result for [`noise`]:
/// `Image.fromarray(noise).resize((256, 256), Image.BILINEAR)`.
#[rustfmt::skip]
const PILLOW: [(u32, u32, &str); 26] = [
    (1, 1, "7ef68a67eb2767e4"),
    (1, 3000, "049db766e0eb0a68"),
    (3000, 1, "0f06a5b2c9818296"),
    (2, 3, "4e449dcaa207021f"),
    (5, 7, "4bbcbced88078afa"),
    (6, 6, "6a6dfd59776eb60a"),
    (8, 8, "fa50c534a2d138cf"),
    (16, 11, "29b571b0004089a7"),
    (100, 255, "c3369ccbe97437a7"),
    (255, 100, "3d5aa27011720d3d"),
    (255, 257, "87d7ebb9408f7d52"),
    (256, 256, "b252ce535f38c5a0"),
    (256, 31, "16cd014497fdaa20"),
    (31, 256, "ad63e13991ba9f3f"),
    (256, 1000, "4f46b3d8652b3a21"),
    (1000, 256, "47a2ca775184b8de"),
    (257, 255, "061bc88e4552b399"),
    (511, 513, "d89c9fbd59d12fde"),
    (512, 512, "a5105d6395c06474"),
    (640, 427, "dc2ec09870edb7ed"),
    (1023, 769, "0217207f129dc92c"),
    (4000, 300, "1277e3a51308eb19"),
    (300, 4000, "9ca0421b523e6653"),
    (65535, 2, "868c29bc02dd97c8"),
    (2, 65535, "b3f0de69d9a3ad4b"),
    (1600, 1200, "fc97305168aa4126"),
];

/// Width, height, and the starts of the SHA-256 of what Pillow 11.3.0 makes of [`noise`] under each of [`recipes`], the
/// centre cut out as torchvision's `CenterCrop` does.
#[rustfmt::skip]
const RECIPES: [(u32, u32, [&str; 4]); 11] = [
    (1, 1, ["21d1a1a8a3ffffbc", "21d1a1a8a3ffffbc", "0e44b26a81ee3d2c", "ccd807256ed70e2b"]),
    (2, 3, ["e5b03d06f5d122a1", "00ed9104c24c2aed", "0ae3cfe718f2689d", "8437f3af5207dd06"]),
    (5, 7, ["cb9c53877a1c69e2", "73aa745cf9eee60e", "93f096194e5ccbb3", "e3ba5985742ad28d"]),
    (16, 11, ["64a0f1cc1dbcfdf5", "4c5f419e22d75fab", "28b257621430e054", "9b3bd8ac461fceaa"]),
    (100, 255, ["87cbbd1b17e1dffb", "0cb2c32f80f33759", "3a22ade374319f82", "3cde24c85d8c9604"]),
    (224, 300, ["befb364d339d7925", "abee9d474a3e9584", "eeb67d08cbf5969f", "2eeffd9a427396d9"]),
    (256, 256, ["c3065875ea3a12e4", "e0fb4424c570f503", "0e213611ec6bc088", "6eafc4d85c9c5232"]),
    (257, 255, ["29c357d51ef5cf23", "e8dae65709ee0d1c", "b3c81f92eb2e0e95", "ee9e5ed81af93499"]),
    (31, 300, ["9fe0714e4f2e1c4e", "ee2a7d3f54ec8d11", "5a0ba28028188e1a", "4f0dbbe5dcd995a6"]),
    (500, 120, ["297b1feaf79f8f83", "56fdd423080bd8dd", "19c16a509d7e69ff", "bf4f3560d169d94c"]),
    (383, 511, ["b6d96df717eecc77", "6fa9efc98d85d94d", "5e7064c501e148b2", "2b413f592b26af59"]),
];

fn recipes() -> [Recipe; 4] {
    let recipe = |width, height, scale, filter| Recipe { width, height, scale, filter };
    [
        recipe(224, 224, Scale::Shorter(256), Filter::Bicubic),
        recipe(224, 224, Scale::Shorter(255), Filter::Bilinear),
        recipe(130, 90, Scale::Both(131, 97), Filter::Bicubic),
        recipe(384, 384, Scale::Both(384, 384), Filter::Bicubic),
    ]
}

/// The top bytes of a linear congruential generator (Numerical Recipes' constants).
fn noise(width: u32, height: u32, seed: u32) -> Vec<u8> {
    let mut state = seed;
    let next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    std::iter::repeat_with(next).take(width as usize * height as usize * 3).collect()
}

fn resize(kernel: Kernel, rgb: &[u8], width: u32, height: u32) -> Option<Pixels> {
    let mut resizer = Resizer::new(kernel);
    resizer.start(&Fit::square(width, height));
    rgb.chunks_exact(width as usize * 3).for_each(|row| resizer.row(row));
    resizer.finish()
}

fn kernels() -> Vec<Kernel> {
    let mut kernels = vec![Kernel::Scalar, Kernel::fastest()];
    kernels.dedup();
    kernels
}

#[test]
fn every_kernel_gives_pillows_bytes() {
    for (width, height, expected) in PILLOW {
        let rgb = noise(width, height, 1);
        for kernel in kernels() {
            let pixels = resize(kernel, &rgb, width, height).expect("all rows were given");
            let hash = hex(&Sha256::digest(pixels.as_bytes()));
            assert_eq!(&hash[..16], expected, "{width} x {height}, {kernel:?}");
        }
    }
}

#[test]
fn every_recipe_gives_pillows_bytes() {
    for (width, height, expected) in RECIPES {
        let rgb = noise(width, height, 1);
        for (recipe, expected) in recipes().into_iter().zip(expected) {
            for kernel in kernels() {
                let mut resizer = Resizer::new(kernel);
                resizer.start(&Fit::of(&recipe, width, height));
                rgb.chunks_exact(width as usize * 3).for_each(|row| resizer.row(row));
                let pixels = resizer.finish().expect("all rows were given");
                let hash = hex(&Sha256::digest(pixels.as_bytes()));
                assert_eq!(&hash[..16], expected, "{width} x {height}, {recipe}, {kernel:?}");
            }
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn kernels_agree_on_any_size(width in 1_u32..5000, height in 1_u32..5000, seed: u32) {
        // Both sides vary over the whole range, the area stays small.
        let height = height.min(400_000 / width).max(1);
        let rgb = noise(width, height, seed);
        let expected = resize(Kernel::Scalar, &rgb, width, height);
        prop_assert!(expected.is_some());
        prop_assert!(resize(Kernel::fastest(), &rgb, width, height) == expected);
    }

    #[test]
    fn kernels_agree_on_small_sizes(width in 1_u32..40, height in 1_u32..40, seed: u32) {
        let rgb = noise(width, height, seed);
        let expected = resize(Kernel::Scalar, &rgb, width, height);
        prop_assert!(expected.is_some());
        prop_assert!(resize(Kernel::fastest(), &rgb, width, height) == expected);
    }

    #[test]
    fn kernels_agree_on_recipes(width in 1_u32..900, height in 1_u32..900, seed: u32, recipe in 0_usize..4) {
        let fit = Fit::of(&recipes()[recipe], width, height);
        let rgb = noise(width, height, seed);
        let resized = |kernel| {
            let mut resizer = Resizer::new(kernel);
            resizer.start(&fit);
            rgb.chunks_exact(width as usize * 3).for_each(|row| resizer.row(row));
            resizer.finish()
        };
        let expected = resized(Kernel::Scalar);
        prop_assert!(expected.is_some());
        prop_assert!(resized(Kernel::fastest()) == expected);
    }

    #[test]
    fn a_flat_image_stays_flat(width in 1_u32..3000, height in 1_u32..300, value: u8) {
        let rgb = vec![value; width as usize * height as usize * 3];
        for kernel in kernels() {
            let pixels = resize(kernel, &rgb, width, height).expect("all rows were given");
            prop_assert!(pixels.as_bytes().iter().all(|&v| v == value));
        }
    }

    #[test]
    fn weights_sum_to_one_up_to_rounding(size in 1_u32..70_000, index in 0..256_u32) {
        let mut window = Window::default();
        Axis::new(AxisFit::whole(size, 256), Filter::Bilinear).fill(index, &mut window);
        prop_assert!(window.end() <= size);
        let sum: i32 = window.weights.iter().sum();
        let error = (sum - (1 << windows::PRECISION_BITS)).unsigned_abs() as usize;
        prop_assert!(error <= window.weights.len());
    }
}

#[test]
fn one_resizer_takes_images_of_different_sizes_and_discards_unfinished_ones() {
    for kernel in kernels() {
        let mut resizer = Resizer::new(kernel);
        resizer.start(&Fit::square(300, 500));
        noise(300, 250, 7).chunks_exact(900).for_each(|row| resizer.row(row));
        assert!(resizer.finish().is_none(), "half of the rows are missing");
        for (width, height) in [(640, 427), (20, 30), (256, 256)] {
            let rgb = noise(width, height, 3);
            resizer.start(&Fit::square(width, height));
            rgb.chunks_exact(width as usize * 3).for_each(|row| resizer.row(row));
            assert_eq!(resizer.finish(), resize(Kernel::Scalar, &rgb, width, height));
        }
    }
}

#[test]
fn rows_of_another_length_leave_the_image_incomplete() {
    let mut resizer = Resizer::default();
    resizer.start(&Fit::square(10, 2));
    resizer.row(&[0; 30]);
    resizer.row(&[0; 27]);
    assert!(resizer.finish().is_none());
}
