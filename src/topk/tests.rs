//! Every kernel against a stable sort, the GPU kernel on an emulated GPU, and invalid shapes.

use proptest::{collection::vec, prelude::*};

use super::{Kernel, TopKError, by_stable_sort as reference, portable};
use crate::cuda::tests::emulated_top_k;

/// Kernels of this machine: without AVX2 only the portable one is tested.
fn kernels() -> impl Iterator<Item = Kernel> {
    [Some(Kernel::PORTABLE), Kernel::avx2()].into_iter().flatten()
}

/// `Kernel::top_k` without the kernel.
type Run = Box<dyn Fn(usize, usize, &[f32], &mut [f32], &mut [i64]) -> Result<(), TopKError>>;

/// All implementations of Top-K, by name.
fn contenders() -> impl Iterator<Item = (&'static str, Run)> {
    let on_this_cpu = kernels().map(|kernel| -> (_, Run) {
        let run = move |k, row_len, input: &[f32], values: &mut [f32], indices: &mut [i64]| {
            kernel.top_k(k, row_len, input, values, indices)
        };
        (kernel.name(), Box::new(run))
    });
    on_this_cpu.chain([("cuda, emulated", Box::new(emulated_top_k) as Run)])
}

fn top_k(run: &Run, row: &[f32], k: usize) -> (Vec<u32>, Vec<i64>) {
    let mut values = vec![f32::NAN; k];
    let mut indices = vec![-1; k];
    let done = run(k, row.len(), row, &mut values, &mut indices);
    assert_eq!(done, Ok(()));
    (values.iter().map(|x| x.to_bits()).collect(), indices)
}

#[track_caller]
fn assert_agree(row: &[f32], k: usize) {
    let expected = reference(row, k);
    for (name, run) in contenders() {
        let got = top_k(&run, row, k);
        assert_eq!(got, expected, "{name} k={k} n={}", row.len());
    }
}

/// Difficult floats: zeros, infinities, denormals, NaN with payloads.
fn special() -> impl Strategy<Value = f32> {
    prop::sample::select(vec![
        0.0,
        -0.0,
        f32::INFINITY,
        f32::NEG_INFINITY,
        f32::MAX,
        f32::MIN,
        f32::MIN_POSITIVE,
        f32::from_bits(1),
        f32::from_bits(0x8000_0001),
        f32::from_bits(0x007f_ffff),
        1.0,
        -1.0,
        f32::NAN,
        -f32::NAN,
        f32::from_bits(0x7f80_0001),
        f32::from_bits(0xffc1_2345),
    ])
}

/// One kind of value for a whole row.
fn element() -> impl Strategy<Value = BoxedStrategy<f32>> {
    prop_oneof![
        // Rows as in the model.
        3 => Just((-1.0_f32..1.0).boxed()),
        // Any bits: about 1 in 256 is NaN.
        2 => Just(any::<u32>().prop_map(f32::from_bits).boxed()),
        2 => Just(special().boxed()),
        // Zeros of both signs and little else, as after a ReLU.
        2 => Just(prop_oneof![8 => Just(0.0_f32), 8 => Just(-0.0), 1 => -1.0_f32..1.0].boxed()),
        // Few distinct values.
        2 => (2_u32..100).prop_map(|n| (0..n).prop_map(|x| x as f32 - 8.0).boxed()),
        // All equal.
        1 => special().prop_map(|x| Just(x).boxed()),
        // Nearly all finite.
        1 => special().prop_map(|x| prop_oneof![200 => -1.0_f32..1.0, 1 => Just(x)].boxed()),
    ]
}

/// How the values of a row are laid out.
#[derive(Clone, Copy, Debug)]
enum Layout {
    AsDrawn,
    Ascending,
    Descending,
    /// The largest values in a few of the 32 columns: too many values pass the bound.
    Columns(usize),
}

fn layout() -> impl Strategy<Value = Layout> {
    prop_oneof![
        4 => Just(Layout::AsDrawn),
        1 => Just(Layout::Ascending),
        1 => Just(Layout::Descending),
        1 => (1_usize..40).prop_map(Layout::Columns),
    ]
}

fn arrange(row: &mut [f32], layout: Layout) {
    match layout {
        Layout::AsDrawn => {}
        Layout::Ascending => row.sort_by(f32::total_cmp),
        Layout::Descending => row.sort_by(|a, b| b.total_cmp(a)),
        Layout::Columns(columns) => {
            for (i, value) in row.iter_mut().enumerate() {
                *value = if i % 32 < columns { 2.0 + value.abs() } else { *value };
            }
        }
    }
}

/// A row of `k` to 4200 values, often near a multiple of the vector widths, and `k`.
fn row_and_k() -> impl Strategy<Value = (Vec<f32>, usize)> {
    let k = prop_oneof![2 => Just(16_usize), 3 => 1_usize..=40];
    let extra = prop_oneof![3 => 0_usize..100, 3 => 800_usize..1000, 1 => 0_usize..=4160];
    (k, extra, element(), layout()).prop_flat_map(|(k, extra, element, layout)| {
        vec(element, k + extra).prop_map(move |mut row| {
            arrange(&mut row, layout);
            (row, k)
        })
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, ..ProptestConfig::default() })]

    #[test]
    fn kernels_agree_with_a_stable_sort((row, k) in row_and_k()) {
        let expected = reference(&row, k);
        for (name, run) in contenders() {
            let got = top_k(&run, &row, k);
            prop_assert_eq!(&got, &expected, "{} k={} n={}", name, k, row.len());
        }
    }

    #[test]
    fn rows_are_independent(
        row_len in 16_usize..70,
        rows in 0_usize..5,
        seed in vec(-1.0_f32..1.0, 70 * 5),
    ) {
        let input = &seed[..rows * row_len];
        for (_, run) in contenders() {
            let mut values = vec![0.0; rows * 16];
            let mut indices = vec![0; rows * 16];
            let done = run(16, row_len, input, &mut values, &mut indices);
            prop_assert_eq!(done, Ok(()));
            let outputs = values.chunks(16).zip(indices.chunks(16));
            for (row, (values, indices)) in input.chunks(row_len).zip(outputs) {
                let bits: Vec<u32> = values.iter().map(|x| x.to_bits()).collect();
                prop_assert_eq!((bits, indices.to_vec()), reference(row, 16));
            }
        }
    }
}

#[test]
fn every_length_around_the_vector_widths() {
    // Many ties: 7 distinct values.
    let row: Vec<f32> = (0..300_u32).map(|i| (i * 37 % 7) as f32).collect();
    for n in 1..=row.len() {
        for k in [1, 2, 15, 16, 17, 32, 33, n] {
            if k <= n {
                assert_agree(&row[..n], k);
                assert_agree(&row[row.len() - n..], k);
            }
        }
    }
}

/// Rows where more values than can be ranked pass the bound, the last of them at any position.
#[test]
fn every_length_of_rows_with_too_many_values_above_the_bound() {
    for columns in 1..=20 {
        // The bound is at most 2; the others are above it by less than 1.
        let value = |i: u32| match i % 32 < columns {
            true => 2.25 + (i % 5) as f32 / 8.0,
            false => (i % 3) as f32,
        };
        let row: Vec<f32> = (0..420).map(value).collect();
        for n in 16..=row.len() {
            assert_agree(&row[..n], 16);
        }
    }
}

#[test]
fn negative_infinity_is_an_ordinary_value() {
    let mut row = vec![f32::NEG_INFINITY; 100];
    row[3] = f32::MIN;
    row[98] = f32::NAN;
    for k in [1, 2, 3, 16, 17, 40, 100] {
        assert_agree(&row, k);
    }
}

#[test]
fn bound_is_reached_by_16_maxima_and_few_more() {
    let mut maxima: Vec<f32> = (0..32_u8).map(f32::from).collect();
    let mut state = 1_u32;
    let (rounds, mut reaching) = (1000, 0);
    for _ in 0..rounds {
        for i in (1..maxima.len()).rev() {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            maxima.swap(i, (state >> 16) as usize % (i + 1));
        }
        let mut grid = [[0.0; 8]; 4];
        grid.as_flattened_mut().copy_from_slice(&maxima);
        let bound = portable::lower_bound(&grid);
        let reach = maxima.iter().filter(|&&maximum| maximum >= bound).count();
        assert!(reach >= portable::MAX_K, "{reach} reach {bound}");
        reaching += reach;
    }
    let mean = reaching as f32 / rounds as f32;
    assert!(mean < 19.0, "a loose bound: {mean} of the maxima reach it");
}

#[test]
fn bits_survive_and_ties_keep_their_order() {
    let payload = f32::from_bits(0x7fc0_0abc);
    let mut row = vec![-1.0; 100];
    row[40] = -0.0;
    row[50] = 0.0;
    row[60] = -0.0;
    row[70] = payload;
    row[80] = -f32::NAN;
    row[90] = f32::INFINITY;
    let expected_values = [payload, -f32::NAN, f32::INFINITY, -0.0, 0.0, -0.0, -1.0, -1.0];
    let expected_values = expected_values.map(f32::to_bits).to_vec();
    let expected_indices = vec![70, 80, 90, 40, 50, 60, 0, 1];
    for (name, run) in contenders() {
        let got = top_k(&run, &row, 8);
        assert_eq!(got, (expected_values.clone(), expected_indices.clone()), "{name}");
    }
}

#[test]
fn wrong_shapes_are_refused_and_nothing_is_written() {
    let input = [1.0, 3.0, 2.0, 5.0, 4.0, 6.0];
    // k, row length, input length, values, indices
    let cases = [
        (0, 3, 6, 0, 0, TopKError::K { k: 0, row_len: 3 }),
        (4, 3, 6, 8, 8, TopKError::K { k: 4, row_len: 3 }),
        (1, 0, 0, 0, 0, TopKError::K { k: 1, row_len: 0 }),
        (2, 3, 5, 2, 2, TopKError::Length { input: 5, values: 2, indices: 2 }),
        (2, 3, 6, 3, 4, TopKError::Length { input: 6, values: 3, indices: 4 }),
        (2, 3, 6, 4, 5, TopKError::Length { input: 6, values: 4, indices: 5 }),
        (1, i32::MAX as usize + 1, 0, 0, 0, TopKError::RowTooLong { row_len: i32::MAX as usize + 1 }),
    ];
    for (k, row_len, input_len, values_len, indices_len, expected) in cases {
        for kernel in kernels() {
            let mut values = [7.0; 8];
            let mut indices = [7; 8];
            let got =
                kernel.top_k(k, row_len, &input[..input_len], &mut values[..values_len], &mut indices[..indices_len]);
            assert_eq!(got, Err(expected));
            assert_eq!((values, indices), ([7.0; 8], [7; 8]));
        }
    }
}

#[test]
fn no_rows_are_accepted() {
    for (_, run) in contenders() {
        assert_eq!(run(16, 900, &[], &mut [], &mut []), Ok(()));
    }
}
