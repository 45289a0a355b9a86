use proptest::prelude::*;
use sha2::{Digest, Sha256};

use super::*;

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
    resizer.start(width, height);
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
    fn a_flat_image_stays_flat(width in 1_u32..3000, height in 1_u32..300, value: u8) {
        let rgb = vec![value; width as usize * height as usize * 3];
        for kernel in kernels() {
            let pixels = resize(kernel, &rgb, width, height).expect("all rows were given");
            prop_assert!(pixels.as_bytes().iter().all(|&v| v == value));
        }
    }

    #[test]
    fn weights_sum_to_one_up_to_rounding(size in 1_u32..70_000, index in 0..SIDE) {
        let mut window = Window::default();
        Axis::new(size).fill(index, &mut window);
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
        resizer.start(300, 500);
        noise(300, 250, 7).chunks_exact(900).for_each(|row| resizer.row(row));
        assert!(resizer.finish().is_none(), "half of the rows are missing");
        for (width, height) in [(640, 427), (20, 30), (256, 256)] {
            let rgb = noise(width, height, 3);
            resizer.start(width, height);
            rgb.chunks_exact(width as usize * 3).for_each(|row| resizer.row(row));
            assert_eq!(resizer.finish(), resize(Kernel::Scalar, &rgb, width, height));
        }
    }
}

#[test]
fn rows_of_another_length_leave_the_image_incomplete() {
    let mut resizer = Resizer::default();
    resizer.start(10, 2);
    resizer.row(&[0; 30]);
    resizer.row(&[0; 27]);
    assert!(resizer.finish().is_none());
}
