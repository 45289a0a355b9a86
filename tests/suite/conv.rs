//! `lfm:WinogradConv` and `lfm:ResidueConv` in sessions of ONNX Runtime, beside the standard operators that they stand
//! for, on models made by `tests/data/ops/make.py`.

use ort::{session::Session, value::Tensor};

use crate::op::{run_error, session, session_with_threads};

/// Channels of the models' images.
const CHANNELS: usize = 20;

/// Values that only have to be many and different.
fn bits() -> impl Iterator<Item = u32> {
    std::iter::successors(Some(1_u32), |state| Some(state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223)))
}

fn images([n, h, w, c]: [usize; 4]) -> Tensor<f32> {
    let values = bits().map(|bits| (bits >> 8) as f32 / (1 << 24) as f32).take(n * h * w * c).collect::<Vec<_>>();
    Tensor::from_array(([n, h, w, c], values)).expect("the shape fits the values")
}

fn pixels([n, h, w, c]: [usize; 4]) -> Tensor<u8> {
    let values = bits().map(|bits| (bits >> 24) as u8).take(n * h * w * c).collect::<Vec<_>>();
    Tensor::from_array(([n, h, w, c], values)).expect("the shape fits the values")
}

/// Runs operator and standard operators, and holds one against the other.
fn assert_same(
    model: &str,
    threads: usize,
    shapes: &[[usize; 4]],
    run: impl Fn(&mut Session, [usize; 4]) -> (Vec<f32>, Vec<f32>, Vec<i64>),
) {
    let mut session = session_with_threads(model, threads).expect("a session");
    for &shape in shapes {
        let (ours, expected, sides) = run(&mut session, shape);
        assert!(expected.is_empty() || expected.iter().any(|&value| value > 0.0), "{model} {shape:?} {sides:?}");
        assert_eq!(ours.len(), expected.len(), "{model} {shape:?}");
        let scale = expected.iter().fold(1.0_f32, |most, value| most.max(*value));
        let apart = ours.iter().zip(&expected).fold(0.0_f32, |most, (a, b)| most.max((a - b).abs()));
        assert!(apart <= 1e-5 * scale, "{model} {shape:?} on {threads} threads: {apart:e} of {scale}");
    }
}

fn taken(outputs: ort::session::SessionOutputs<'_>) -> (Vec<f32>, Vec<f32>, Vec<i64>) {
    let (sides, ours) = outputs["y"].try_extract_tensor::<f32>().expect("floats");
    let (expected_sides, expected) = outputs["expected"].try_extract_tensor::<f32>().expect("floats");
    assert_eq!(sides, expected_sides);
    (ours.to_vec(), expected.to_vec(), sides.to_vec())
}

#[test]
fn agree_with_the_standard_operators() {
    let sizes = [[1, 30, 31], [2, 3, 3], [3, 13, 8], [1, 127, 14], [1, 8, 90], [0, 9, 9]];
    for threads in [1, 3] {
        let shapes = sizes.map(|[n, h, w]| [n, h, w, CHANNELS]);
        for model in ["winograd", "winograd_pool"] {
            assert_same(model, threads, &shapes, |session, shape| {
                taken(session.run(ort::inputs![images(shape)]).unwrap())
            });
        }
        let even = sizes.map(|[n, h, w]| [n, h / 2 * 2 + 2, w / 2 * 2 + 2, 3]);
        assert_same("residue", threads, &even, |session, shape| {
            taken(session.run(ort::inputs![pixels(shape)]).unwrap())
        });
    }
}

#[test]
fn inputs_that_do_not_fit_are_an_error_and_the_session_lives_on() {
    let mut pooling = session("winograd_pool").unwrap();
    for shape in [[1, 2, 9, CHANNELS], [1, 9, 2, CHANNELS], [0, 2, 2, CHANNELS]] {
        let error = run_error(&mut pooling, images(shape));
        assert!(error.contains("lfm:WinogradConv node \"winograd_pool\": an input of"), "{error}");
        assert!(error.contains("is too small, must be at least 3 x 3"), "{error}");
    }
    assert_eq!(**pooling.run(ort::inputs![images([1, 3, 3, CHANNELS])]).unwrap()["y"].shape(), [1, 1, 1, 35]);
    let mut residue = session("residue_alone").unwrap();
    let error = run_error(&mut residue, pixels([1, 6, 7, 3]));
    assert!(error.contains("node \"residue_alone\": an image of 6 x 7 has an odd side"), "{error}");
}

#[test]
fn models_that_are_wrong_in_themselves_do_not_load() {
    for (model, reason) in [
        ("pool_missing", "node \"pool_missing\": the attribute pool is missing, must be 0 or 1"),
        ("pool_two", "node \"pool_two\": the attribute pool is 2, must be 0 or 1"),
        (
            "filter_3x3",
            "node \"filter_3x3\": weight [35, 20, 3, 3] and bias [35] must have the shapes (M, C, 2, 2) and (M)",
        ),
        ("bias_too_long", "weight [35, 20, 2, 2] and bias [36] must have"),
        ("residue_of_4", "lfm:ResidueConv node \"residue_of_4\": the weight has 560 values"),
        ("variable", "node \"variable\": the bias must be a constant"),
    ] {
        let Err(error) = session(model) else { panic!("{model} should not load") };
        assert!(error.to_string().contains(reason), "{error}");
    }
}
