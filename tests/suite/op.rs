//! `lfm:TopKPooling` in sessions of ONNX Runtime, on models made by `tests/data/ops/make.py`.

use ort::{
    session::{Session, SessionInputValue},
    value::{Tensor, TensorRef},
};

/// A session on `tests/data/ops/<model>.onnx`.
pub(crate) fn session(model: &str) -> ort::Result<Session> {
    session_with_threads(model, 1)
}

/// The one place that knows how the crate starts ONNX Runtime.
pub(crate) fn session_with_threads(model: &str, threads: usize) -> ort::Result<Session> {
    let environment = lfm_serve::model::runtime::environment(None).expect("ONNX Runtime is there");
    let path = format!("{}/tests/data/ops/{model}.onnx", env!("CARGO_MANIFEST_DIR"));
    let graph = std::fs::read(path).expect("the model");
    lfm_serve::model::op::commit(Session::builder(environment)?.with_intra_threads(threads)?, &graph)
}

/// The value that 32 random bits stand for in a class of data.
type Level = fn(u32) -> f32;

/// Maps (n, c, h, w) of a class of data.
fn maps([n, c, h, w]: [usize; 4], level: Level) -> Tensor<f32> {
    // xorshift: the values only have to be many and different.
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let values: Vec<f32> = (0..n * c * h * w)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            level((state >> 32) as u32)
        })
        .collect();
    Tensor::from_array(([n, c, h, w], values)).expect("the shape fits the values")
}

fn uniform(bits: u32) -> f32 {
    bits as f32 / u32::MAX as f32 - 0.5
}

/// Runs the session; the error's text if that fails.
pub(crate) fn run_error<'v>(session: &mut Session, input: impl Into<SessionInputValue<'v>>) -> String {
    match session.run(ort::inputs![input]) {
        Ok(_) => panic!("the run should fail"),
        Err(error) => error.to_string(),
    }
}

#[test]
fn agrees_with_the_standard_topk() {
    let mut session = session("both").unwrap();
    // NaN is left out: the TopK of ONNX Runtime 1.31 misplaces values behind one.
    let classes: [(&str, Level); 5] = [
        ("random", uniform),
        ("equal", |_| 0.25),
        ("few distinct", |bits| (bits % 5) as f32),
        ("rectified", |bits| (uniform(bits) - 0.47).max(0.0)),
        ("infinite and zero", |bits| [f32::NEG_INFINITY, -0.0, 0.0, f32::INFINITY][bits as usize % 4]),
    ];
    for shape in [[1, 64, 30, 30], [3, 2, 4, 4], [2, 5, 1, 17], [8, 64, 30, 30], [1, 1, 67, 61]] {
        for (class, level) in classes {
            let maps = maps(shape, level);
            let outputs = session.run(ort::inputs![&maps]).unwrap();
            let (pooled, values) = outputs["values"].try_extract_tensor::<f32>().unwrap();
            let (_, indices) = outputs["indices"].try_extract_tensor::<i64>().unwrap();
            let expected_values = outputs["expected_values"].try_extract_tensor::<f32>().unwrap();
            let expected_indices = outputs["expected_indices"].try_extract_tensor::<i64>().unwrap();
            assert_eq!(**pooled, [shape[0] as i64, shape[1] as i64, 16]);
            assert_eq!(indices, expected_indices.1, "{class} {shape:?}");
            let bits = |values: &[f32]| values.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
            assert_eq!(bits(values), bits(expected_values.1), "{class} {shape:?}");
        }
    }
}

#[test]
fn declares_the_shape_of_its_outputs() {
    let session = session("pool").unwrap();
    for output in session.outputs() {
        let shape = output.dtype().tensor_shape().expect("a tensor");
        assert_eq!(**shape, [-1, -1, 16], "{}", output.name());
    }
}

#[test]
fn an_empty_batch_gives_empty_outputs() {
    let mut session = session("pool").unwrap();
    for shape in [[0, 64, 30, 30], [2, 0, 30, 30]] {
        let outputs = session.run(ort::inputs![maps(shape, uniform)]).unwrap();
        let expected = [shape[0] as i64, shape[1] as i64, 16];
        assert_eq!(**outputs["values"].shape(), expected);
        assert_eq!(**outputs["indices"].shape(), expected);
    }
}

#[test]
fn maps_smaller_than_k_are_an_error_and_the_session_lives_on() {
    for model in ["pool", "pool_any_rank"] {
        let mut session = session(model).unwrap();
        for shape in [[1, 64, 3, 5], [1, 64, 0, 30], [0, 64, 3, 5]] {
            let error = run_error(&mut session, maps(shape, uniform));
            assert!(error.contains(&format!("node \"{model}\"")), "{error}");
            assert!(error.contains("k is 16, must be from 1 to"), "{error}");
        }
        let outputs = session.run(ort::inputs![maps([1, 2, 4, 4], uniform)]);
        assert_eq!(**outputs.unwrap()["values"].shape(), [1, 2, 16]);
    }
}

#[test]
fn a_rank_other_than_4_is_an_error() {
    let rows = vec![0.0_f32; 900];
    for model in ["rank_3", "pool_any_rank"] {
        let mut session = session(model).unwrap();
        let input = TensorRef::from_array_view(([1, 1, 900], &*rows)).unwrap();
        let error = run_error(&mut session, input);
        assert!(error.contains(&format!("node \"{model}\"")), "{error}");
        assert!(error.contains("[1, 1, 900], must be (N, C, H, W)"), "{error}");
    }
}

#[test]
fn models_that_are_wrong_in_themselves_do_not_load() {
    for (model, reason) in [
        ("k_zero", "node \"k_zero\": k is 0, must be at least 1"),
        ("k_negative", "node \"k_negative\": k is -3, must be at least 1"),
        ("k_missing", "node \"k_missing\": the integer attribute k is missing"),
        ("k_float", "node \"k_float\": the integer attribute k is missing"),
        // ONNX Runtime's own check of the types.
        ("input_f64", "in node (input_f64) is invalid"),
    ] {
        let Err(error) = session(model) else {
            panic!("{model} should not load");
        };
        assert!(error.to_string().contains(reason), "{error}");
    }
}

#[test]
fn sessions_can_be_built_at_the_same_time() {
    std::thread::scope(|scope| {
        let building: Vec<_> = (0..16).map(|_| scope.spawn(|| session("pool").map(drop))).collect();
        for built in building {
            built.join().expect("no panic").expect("a session");
        }
    });
}
