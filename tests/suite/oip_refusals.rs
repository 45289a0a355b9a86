//! `/v2` over HTTP: refusals.

use base64::{Engine, prelude::BASE64_STANDARD};
use lfm_serve::{
    image::Pixels,
    model::{Manifest, Output},
    oip::protocol,
};
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::{
    fake::{Fake, answer},
    harness::{TestApp, golden, picture, root},
    oip::{INFER, JSON_LENGTH, app, assert_error, binary_request, file_input, json_of, with_tensors},
};

#[tokio::test]
async fn unsupported_inputs_are_refused() {
    let app = app().await;
    let file = file_input(&[picture()]);
    let with = |change: &dyn Fn(&mut Value)| {
        let mut request = json!({"inputs": [file.clone()]});
        change(&mut request);
        request
    };
    let input = |name: &str, value: Value| with(&|request| request["inputs"][0][name] = value.clone());
    let pixels = |shape: Value, data: Value| json!({"inputs": [{"name": "pixels", "shape": shape, "datatype": "UINT8", "data": data}]});
    let parameter = |name: &str, value: Value| with(&|request| request["parameters"] = json!({name: value.clone()}));
    let output = |value: Value| with(&|request| request["outputs"] = json!([value.clone()]));
    let cases = [
        (json!({}), "inputs"),
        (json!({"inputs": []}), "exactly one input"),
        (json!({"inputs": [file, file]}), "exactly one input"),
        (input("name", json!("picture")), "unexpected inference input 'picture'"),
        (input("datatype", json!("UINT8")), "expected BYTES"),
        (input("shape", json!([2])), "size of its shape"),
        (input("shape", json!([0])), "expected [-1]"),
        (input("shape", json!([-1])), "expected [-1]"),
        (input("shape", json!([1, 1])), "expected [-1]"),
        (input("shape", json!([])), "expected [-1]"),
        (input("shape", json!([9_223_372_036_854_775_807_i64])), "more images than the limit of 64"),
        (input("shape", json!(["1"])), "JSON"),
        (input("data", json!([1])), "are not BYTES"),
        (input("data", json!(["*"])), "base64"),
        (input("data", json!(["", 1])), "numbers and strings"),
        (input("data", json!([null])), "JSON"),
        (input("data", json!([])), "are not BYTES"),
        (
            with(&|request| {
                request["inputs"][0].as_object_mut().map(|input| input.remove("data"));
            }),
            "no data",
        ),
        (input("data", json!([BASE64_STANDARD.encode("no image")])), "This is text"),
        (input("data", json!([BASE64_STANDARD.encode(golden("hostile/truncated.png"))])), "cannot decode"),
        (input("parameters", json!({"binary_data_size": 4})), "both"),
        (input("parameters", json!({"shared_memory_region": "x"})), "shared memory"),
        (pixels(json!([1, 256, 256, 3]), json!([1, 2, 3])), "size of its shape"),
        (pixels(json!([1, 256, 256, 3]), json!([256])), "UINT8"),
        (pixels(json!([1, 256, 256, 3]), json!([-1])), "JSON"),
        (pixels(json!([1, 256, 256, 3]), json!([0.5])), "JSON"),
        (pixels(json!([1, 3, 256, 256]), json!([1])), "expected [-1, 256, 256, 3]"),
        (output(json!({"name": "nothing"})), "unexpected inference output 'nothing'"),
        (output(json!({"name": "logit", "parameters": {"classification": 3}})), "classification"),
        (output(json!({"name": "logit", "parameters": {"binary_data": 1}})), "true or false"),
        (with(&|request| request["outputs"] = json!([{"name": "logit"}, {"name": "logit"}])), "twice"),
        (parameter("priority", json!(1)), "`priority` is not supported"),
        (parameter("timeout", json!(-1)), "microseconds"),
        (parameter("timeout", json!("soon")), "microseconds"),
    ];
    for (request, says) in cases {
        let response = app.post(INFER).json(&request).send().await.expect("an answer");
        let error = assert_error(response, 400).await;
        assert!(error.contains(says), "{error:?} does not contain {says:?}");
        assert!(!error.contains(".rs"), "{error}");
    }
    for accepted in [parameter("priority", json!(0)), parameter("timeout", json!(0)), parameter("mine", json!("x"))] {
        json_of(app.post(INFER).json(&accepted).send().await.expect("an answer")).await;
    }
    // The error of a batch names the invalid image.
    let request = json!({"inputs": [file_input(&[picture(), b"no image".to_vec()])]});
    let error = assert_error(app.post(INFER).json(&request).send().await.expect("an answer"), 400).await;
    assert!(error.starts_with("image 1: "), "{error}");

    for path in ["/v2/models/resnet/infer", "/v2/models/lfm/versions/2/infer"] {
        let response = app.post(path).json(&json!({"inputs": [file]})).send().await.expect("an answer");
        assert!(assert_error(response, 404).await.contains("unknown model"), "{path}");
    }
    for path in ["/v2/models/resnet", "/v2/models/resnet/ready", "/v2/models/%ff/config", "/v2/nowhere"] {
        assert_error(app.get(path).await, 404).await;
    }
    assert_error(app.get(INFER).await, 405).await;
    assert_error(app.post(INFER).send().await.expect("an answer"), 400).await;
}

/// A binary request's fields, each of which may be wrong.
#[derive(Debug, Clone)]
struct Lies {
    json_length: Option<usize>,
    binary_size: Value,
    string_length: u32,
    count: i64,
    cut: usize,
    extra: usize,
}

fn lies() -> impl Strategy<Value = Lies> {
    let length = prop_oneof![0..400usize, Just(usize::MAX), Just(usize::MAX / 2), any::<usize>()];
    let size = prop_oneof![
        (0..400u64).prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        Just(json!("7")),
        Just(Value::Null),
    ];
    let string = prop_oneof![0..400u32, Just(u32::MAX), any::<u32>()];
    let count = prop_oneof![-2..70i64, any::<i64>()];
    (prop::option::of(length), size, string, count, 0..40usize, 0..40usize).prop_map(
        |(json_length, binary_size, string_length, count, cut, extra)| Lies {
            json_length,
            binary_size,
            string_length,
            count,
            cut,
            extra,
        },
    )
}

impl Lies {
    fn body(&self) -> (Vec<u8>, usize) {
        let input = json!({"name": "image", "shape": [self.count], "datatype": "BYTES",
            "parameters": {"binary_data_size": self.binary_size}});
        let raw = [&self.string_length.to_le_bytes()[..], b"no image"].concat();
        let (mut body, length) = with_tensors(&json!({"inputs": [input]}), &raw);
        body.truncate(body.len() - self.cut);
        body.extend(vec![0xa5; self.extra]);
        (body, self.json_length.unwrap_or(length))
    }
}

/// Wrong lengths, overflows, truncations and undescribed bytes are always bad requests.
#[test]
fn an_inconsistent_binary_request_is_a_bad_request() {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let app = runtime.block_on(app());
    let send = |body: Vec<u8>, length: &str| {
        let request = app.post(INFER).header(JSON_LENGTH, length).body(body);
        runtime.block_on(async { assert_error(request.send().await.expect("an answer"), 400).await })
    };
    let config = ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() };
    proptest!(config, |(lies in lies())| {
        let (body, length) = lies.body();
        send(body, &length.to_string());
    });
    let (honest, _) = binary_request(&[picture()]);
    for length in ["-1", "x", "", "18446744073709551616", "0", "1e3"] {
        send(honest.clone(), length);
    }
}

proptest! {
    /// Any bytes with any length: an answer, never a panic.
    #[test]
    fn any_body_is_parsed_or_refused(body in prop::collection::vec(any::<u8>(), 0..300), length in prop::option::of(0..400usize)) {
        let _ = protocol::json::read(body.into(), length);
    }

    #[test]
    fn written_requests_are_read_back(files in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 1..5)) {
        let (body, length) = binary_request(&files);
        let manifest = Manifest::read(&root().join("tests/data/model")).expect("the manifest of the tests");
        let request = protocol::json::read(body.into(), Some(length))
            .and_then(|written| protocol::Request::check(&manifest, written, 64));
        let read: Vec<_> = request.expect("a request").images.into_iter().map(|image| match image {
            protocol::Image::File(bytes) => bytes.to_vec(),
            protocol::Image::Pixels(_) => panic!("files were written"),
        }).collect();
        prop_assert_eq!(read, files);
    }
}

#[tokio::test]
async fn one_failing_image_fails_the_request() {
    let model = Fake::new(1, async |batch: Vec<Pixels>| match batch[0].as_bytes()[0] {
        9 => Err(lfm_serve::model::RunError("nine".into())),
        _ => Ok(batch.iter().map(answer).collect::<Vec<Output>>()),
    });
    let app = TestApp::start(vec![model], &[]).await;
    let images: Vec<u8> = [7, 9].into_iter().flat_map(|value| vec![value; Pixels::LEN]).collect();
    let input = json!({"name": "pixels", "shape": [2, 256, 256, 3], "datatype": "UINT8",
        "parameters": {"binary_data_size": images.len()}});
    let (body, length) = with_tensors(&json!({"inputs": [input]}), &images);
    let response = app.post(INFER).header(JSON_LENGTH, length).body(body).send().await.expect("an answer");
    let error = assert_error(response, 500).await;
    assert!(error.starts_with("image 1: ") && !error.contains("nine"), "{error}");
}
