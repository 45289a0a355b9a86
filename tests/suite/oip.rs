//! `/v2` over HTTP: the Open Inference Protocol's own examples, tensors in JSON and binary form, compression, limits
//! and phases.

use std::{
    io::{Read, Write},
    num::NonZeroU32,
};

use base64::{Engine, prelude::BASE64_STANDARD};
use flate2::{
    Compression,
    read::{GzDecoder, ZlibDecoder},
    write::{GzEncoder, ZlibEncoder},
};
use lfm_serve::{image::Pixels, keys::NewKey, oip::http::ROUTES};
use reqwest::Response;
use serde_json::{Value, json};
use tempfile::NamedTempFile;

use crate::{
    fake::Fake,
    harness::{TestApp, golden, picture},
};

pub const INFER: &str = "/v2/models/lfm/infer";
pub const JSON_LENGTH: &str = "inference-header-content-length";

pub async fn app() -> TestApp {
    TestApp::start(vec![Fake::instant()], &[]).await
}

pub async fn json_of(response: Response) -> Value {
    assert_eq!(response.status(), 200, "{}", response.text().await.unwrap_or_default());
    response.json().await.expect("JSON")
}

/// Checks an error answer and returns its message.
pub async fn assert_error(response: Response, status: u16) -> String {
    let got = response.status();
    assert_eq!(response.headers()["content-type"], "application/json");
    assert!(response.headers().contains_key("x-request-id"));
    let body: Value = response.json().await.expect("JSON");
    assert_eq!(got, status, "{body}");
    assert_eq!(body.as_object().map(serde_json::Map::len), Some(1), "{body}");
    body["error"].as_str().expect("an error").to_owned()
}

pub fn file_input(files: &[Vec<u8>]) -> Value {
    let data: Vec<_> = files.iter().map(|file| BASE64_STANDARD.encode(file)).collect();
    json!({"name": "image", "shape": [files.len()], "datatype": "BYTES", "data": data})
}

/// A BYTES tensor's raw form.
fn framed(files: &[Vec<u8>]) -> Vec<u8> {
    files.iter().flat_map(|file| [&(file.len() as u32).to_le_bytes()[..], file].concat()).collect()
}

/// A body of JSON followed by binary tensors, and the JSON's length.
pub fn with_tensors(json: &Value, tensors: &[u8]) -> (Vec<u8>, usize) {
    let json = json.to_string().into_bytes();
    let length = json.len();
    ([json, tensors.to_vec()].concat(), length)
}

pub fn binary_request(files: &[Vec<u8>]) -> (Vec<u8>, usize) {
    let raw = framed(files);
    let input = json!({"name": "image", "shape": [files.len()], "datatype": "BYTES",
        "parameters": {"binary_data_size": raw.len()}});
    with_tensors(&json!({"inputs": [input], "outputs": [{"name": "logit"}]}), &raw)
}

/// The KServe specification's examples of each endpoint, with this model's name and tensors.
#[tokio::test]
async fn the_specifications_examples() {
    let app = app().await;
    for probe in ["/v2/health/live", "/v2/health/ready", "/v2/models/lfm/ready", "/v2/models/lfm/versions/1/ready"] {
        assert_eq!(app.get(probe).await.status(), 200, "{probe}");
    }
    // KServe's client reads the bodies.
    assert_eq!(json_of(app.get("/v2/health/live").await).await, json!({"live": true}));
    assert_eq!(json_of(app.get("/v2/health/ready").await).await, json!({"ready": true}));
    let server = json_of(app.get("/v2").await).await;
    assert_eq!(server["name"], "lfm-serve");
    assert_eq!(server["version"], env!("CARGO_PKG_VERSION"));
    let extensions = json!(["binary_tensor_data", "model_configuration", "parameters", "statistics"]);
    assert_eq!(server["extensions"], extensions);

    for path in ["/v2/models/lfm", "/v2/models/lfm/versions/1"] {
        let model = json_of(app.get(path).await).await;
        assert_eq!(
            model,
            json!({
                "name": "lfm", "versions": ["1"], "platform": "onnxruntime_onnx",
                "inputs": [
                    {"name": "image", "datatype": "BYTES", "shape": [-1]},
                    {"name": "pixels", "datatype": "UINT8", "shape": [-1, 256, 256, 3]}
                ],
                "outputs": [
                    {"name": "score", "datatype": "FP32", "shape": [-1]},
                    {"name": "logit", "datatype": "FP32", "shape": [-1]},
                    {"name": "verdict", "datatype": "BYTES", "shape": [-1]},
                    {"name": "warnings", "datatype": "BYTES", "shape": [-1]},
                    {"name": "topk_values", "datatype": "FP32", "shape": [-1, 64, 16]},
                    {"name": "topk_indices", "datatype": "INT64", "shape": [-1, 64, 16]},
                    {"name": "logit_raw", "datatype": "FP32", "shape": [-1]},
                    {"name": "declared", "datatype": "BYTES", "shape": [-1]}
                ]
            })
        );
    }
    // "Inference Request Examples": an id, and one output by name.
    let request = json!({"id": "42", "inputs": [file_input(&[picture()])], "outputs": [{"name": "score"}]});
    for path in [INFER, "/v2/models/lfm/versions/1/infer"] {
        let answer = json_of(app.post(path).json(&request).send().await.expect("an answer")).await;
        assert_eq!((&answer["model_name"], &answer["model_version"]), (&json!("lfm"), &json!("1")));
        assert_eq!(answer["id"], "42");
        assert_eq!(answer["outputs"].as_array().map(Vec::len), Some(1));
        let output = &answer["outputs"][0];
        assert_eq!(
            (&output["name"], &output["datatype"], &output["shape"]),
            (&json!("score"), &json!("FP32"), &json!([1]))
        );
        assert_eq!(output["data"].as_array().map(Vec::len), Some(1));
    }
    // "Tensor Data": the same elements, flat or nested.
    let flat = vec![7; Pixels::LEN];
    let nested: Vec<_> = flat.chunks(256 * 3).map(|row| row.chunks(3).collect::<Vec<_>>()).collect();
    for data in [json!(flat), json!([nested])] {
        let input = json!({"name": "pixels", "shape": [1, 256, 256, 3], "datatype": "UINT8", "data": data});
        let answer = app.post(INFER).json(&json!({"inputs": [input]})).send().await.expect("an answer");
        let answer = json_of(answer).await;
        assert!(answer.get("id").is_none());
        let names: Vec<_> = answer["outputs"].as_array().expect("outputs").iter().map(|o| o["name"].clone()).collect();
        assert_eq!(names, ["score", "logit", "verdict", "warnings", "topk_values", "topk_indices"]);
        // Flat pixels cannot be judged: NaN in the protocol, null in JSON.
        assert_eq!(answer["outputs"][1]["data"], json!([null]));
        assert_eq!(answer["outputs"][2]["data"], json!(["uncertain"]));
        assert_eq!(answer["outputs"][3]["data"], json!(["no_signal"]));
        assert_eq!(answer["outputs"][4]["shape"], json!([1, 64, 16]));
        assert_eq!(answer["outputs"][5]["data"].as_array().map(Vec::len), Some(1024));
    }
}

#[tokio::test]
async fn configuration_and_statistics_match_tritons() {
    let app = app().await;
    let config = json_of(app.get("/v2/models/lfm/config").await).await;
    assert_eq!(config["name"], "lfm");
    assert_eq!(config["max_batch_size"], 0);
    assert_eq!(
        config["input"][0],
        json!({"name": "image", "data_type": "TYPE_STRING", "dims": [-1], "optional": true})
    );
    assert_eq!(
        config["input"][1],
        json!({"name": "pixels", "data_type": "TYPE_UINT8", "dims": [-1, 256, 256, 3], "optional": true})
    );
    assert_eq!(config["output"][4], json!({"name": "topk_values", "data_type": "TYPE_FP32", "dims": [-1, 64, 16]}));

    app.score(picture()).await;
    app.score("no image").await;
    let request = json!({"inputs": [file_input(&[picture(), picture(), picture()])]});
    json_of(app.post(INFER).json(&request).send().await.expect("an answer")).await;
    for path in ["/v2/models/stats", "/v2/models/lfm/stats", "/v2/models/lfm/versions/1/stats"] {
        let stats = json_of(app.get(path).await).await;
        let model = &stats["model_stats"][0];
        assert_eq!((&model["name"], &model["version"]), (&json!("lfm"), &json!("1")));
        assert_eq!(model["inference_count"], 4, "{path}: images of all routes count");
        assert!(model["last_inference"].as_u64().is_some_and(|ms| ms > 1_600_000_000_000));
        let parts = &model["inference_stats"];
        assert_eq!(parts["fail"]["count"], 1);
        for part in ["success", "queue", "compute_input", "compute_infer", "compute_output"] {
            assert_eq!(parts[part]["count"], 4, "{part}");
        }
        assert!(parts["success"]["ns"].as_u64().is_some_and(|ns| ns > 0));
        let batches = model["batch_stats"].as_array().expect("batches");
        let sum = |field: &str| -> u64 {
            batches
                .iter()
                .map(|b| b[field].as_u64().unwrap_or(1) * b["compute_infer"]["count"].as_u64().expect("n"))
                .sum()
        };
        assert_eq!(sum("batch_size"), 4);
        assert_eq!(model["execution_count"], sum("none"));
    }
}

#[tokio::test]
async fn tensors_are_sent_and_received_in_binary_form() {
    let app = app().await;
    let files = [picture(), golden("images/chelsea_exif6.jpg")];
    let raw = framed(&files);
    let request = |outputs: Value, all: bool| {
        let input =
            json!({"name": "image", "shape": [2], "datatype": "BYTES", "parameters": {"binary_data_size": raw.len()}});
        with_tensors(&json!({"inputs": [input], "outputs": outputs, "parameters": {"binary_data_output": all}}), &raw)
    };
    let send = async |(body, length): (Vec<u8>, usize)| {
        app.post(INFER).header(JSON_LENGTH, length).body(body).send().await.expect("an answer")
    };
    // All outputs binary except one, and the opposite.
    let wanted =
        json!([{"name": "verdict"}, {"name": "logit", "parameters": {"binary_data": false}}, {"name": "topk_indices"}]);
    let response = send(request(wanted, true)).await;
    assert_eq!(response.headers()["content-type"], "application/octet-stream");
    let length: usize = response.headers()[JSON_LENGTH].to_str().expect("ASCII").parse().expect("a number");
    let body = response.bytes().await.expect("a body");
    let head: Value = serde_json::from_slice(&body[..length]).expect("JSON");
    let outputs = &head["outputs"];
    let verdicts = b"\x04\0\0\0fake\x04\0\0\0fake";
    assert_eq!(outputs[0]["parameters"]["binary_data_size"], verdicts.len());
    assert!(outputs[0].get("data").is_none());
    assert_eq!(outputs[1]["data"].as_array().map(Vec::len), Some(2));
    assert_eq!(outputs[2]["parameters"]["binary_data_size"], 2 * 1024 * 8);
    let tensors = &body[length..];
    assert_eq!(&tensors[..verdicts.len()], verdicts);
    let indices: Vec<_> = [68u8, 0, 0, 0, 0, 0, 0, 0].repeat(2 * 1024);
    assert_eq!(&tensors[verdicts.len()..], indices);
    // By default the answer is JSON.
    let response = send(request(json!([{"name": "logit"}, {"name": "logit_raw"}]), false)).await;
    assert!(!response.headers().contains_key(JSON_LENGTH));
    let outputs = json_of(response).await["outputs"].clone();
    for (index, file) in files.iter().enumerate() {
        let scored = json_of(app.score(file.clone()).await).await;
        assert_eq!(scored["logit"], outputs[0]["data"][index]);
        assert_eq!(scored["logit_raw"], outputs[1]["data"][index]);
    }
}

fn gzip(data: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(data).expect("in memory");
    encoder.finish().expect("in memory")
}

fn deflate(data: &[u8]) -> Vec<u8> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(data).expect("in memory");
    encoder.finish().expect("in memory")
}

#[tokio::test]
async fn bodies_are_compressed_both_ways() {
    let app = app().await;
    let (body, length) = binary_request(&[picture()]);
    let send = async |encoding: &str, body: Vec<u8>| {
        let request = app.post(INFER).header("content-encoding", encoding).header("accept-encoding", encoding);
        request.header(JSON_LENGTH, length).body(body).send().await.expect("an answer")
    };
    let plain = send("identity", body.clone()).await.bytes().await.expect("a body");
    for (encoding, packed) in [("gzip", gzip(&body)), ("deflate", deflate(&body))] {
        let response = send(encoding, packed.clone()).await;
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-encoding"], encoding);
        let bytes = response.bytes().await.expect("a body");
        let mut unpacked = Vec::new();
        match encoding {
            "gzip" => GzDecoder::new(&bytes[..]).read_to_end(&mut unpacked),
            _ => ZlibDecoder::new(&bytes[..]).read_to_end(&mut unpacked),
        }
        .expect(encoding);
        assert_eq!(unpacked, plain);
        // Errors are never compressed: Triton's clients do not decompress them.
        assert_error(send(encoding, packed[..packed.len() / 2].to_vec()).await, 400).await;
        assert_error(send(encoding, b"not packed".to_vec()).await, 400).await;
    }
    assert_error(send("br", body).await, 415).await;
}

#[tokio::test]
async fn decompressed_bodies_are_limited_and_counted_in_the_budget() {
    let app = TestApp::start(vec![Fake::instant()], &["--max-body-bytes", "1MiB"]).await;
    let bomb = gzip(&vec![0; 200_000_000]);
    assert!(bomb.len() < 1 << 20);
    let request = app.post(INFER).header("content-encoding", "gzip").body(bomb.clone());
    assert_error(request.send().await.expect("an answer"), 413).await;
    let app = TestApp::start(vec![Fake::instant()], &["--max-admitted-bytes", "1MiB"]).await;
    let request = app.post(INFER).header("content-encoding", "gzip").body(bomb);
    let refused = request.send().await.expect("an answer");
    assert!(refused.headers().contains_key("retry-after"));
    assert_error(refused, 503).await;
    assert_eq!(app.metric("lfm_admitted_bytes").await, 0.0);
}

#[tokio::test]
async fn the_timeout_parameter_is_a_deadline() {
    let (model, _gate) = Fake::gated();
    let app = TestApp::start(vec![model], &[]).await;
    let request = json!({"inputs": [file_input(&[picture()])], "parameters": {"timeout": 20_000}});
    assert_error(app.post(INFER).json(&request).send().await.expect("an answer"), 504).await;
    assert_eq!(app.metric("lfm_images_total{outcome=\"expired\"}").await, 1.0);
    assert_eq!(app.metric("lfm_errors_total{code=\"deadline_exceeded\"}").await, 1.0);
}

#[tokio::test]
async fn every_image_needs_a_permit() {
    let (model, gate) = Fake::gated();
    let app = TestApp::start(vec![model], &["--max-in-flight", "2"]).await;
    let request = |images: usize| json!({"inputs": [file_input(&vec![picture(); images])]});
    let refused = app.post(INFER).json(&request(3)).send().await.expect("an answer");
    assert!(refused.headers().contains_key("retry-after"));
    assert_error(refused, 503).await;
    assert_eq!(app.metric("lfm_images_in_flight").await, 0.0);
    assert_eq!(app.metric("lfm_images_total{outcome=\"shed\"}").await, 1.0);
    gate.add_permits(2);
    json_of(app.post(INFER).json(&request(2)).send().await.expect("an answer")).await;
    assert_eq!(app.metric("lfm_images_total{outcome=\"scored\"}").await, 2.0);
}

#[tokio::test]
async fn readiness_follows_the_phases() {
    let app = TestApp::starting(&[]).await;
    assert_eq!(app.get("/v2/health/live").await.status(), 200);
    assert_error(app.get("/v2/health/ready").await, 503).await;
    assert_error(app.get("/v2/models/lfm/ready").await, 503).await;
    let request = json!({"inputs": [file_input(&[picture()])]});
    assert_error(app.post(INFER).json(&request).send().await.expect("an answer"), 503).await;
}

#[tokio::test]
async fn all_routes_except_probes_need_a_key() {
    let key = NewKey::make("alice", NonZeroU32::new(1), None).expect("a key");
    let file = NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), format!("{}\n", key.line)).expect("written");
    let app = TestApp::start(vec![Fake::instant()], &["--api-keys-file", &file.path().to_string_lossy()]).await;
    for route in ROUTES.iter().filter(|route| route.path.starts_with("/v2")) {
        let path = route.path.replace("{name}", "lfm").replace("{version}", "1");
        let response = if route.method == "POST" {
            app.post(&path).send().await.expect("an answer")
        } else {
            app.get(&path).await
        };
        if path.ends_with("/ready") || path.ends_with("/live") {
            assert_eq!(response.status(), 200, "{path}");
        } else {
            assert!(response.headers().contains_key("www-authenticate"), "{path}");
            assert!(assert_error(response, 401).await.contains("API key"), "{path}");
        }
    }
    // The key's cap applies to each image of a request.
    let infer = async |images: usize| {
        let request = json!({"inputs": [file_input(&vec![picture(); images])]});
        app.post(INFER).bearer_auth(&key.key).json(&request).send().await.expect("an answer")
    };
    json_of(infer(1).await).await;
    assert!(assert_error(infer(2).await, 503).await.contains("alice"));
}

#[tokio::test]
async fn requests_are_counted_by_template() {
    let app = app().await;
    app.post(INFER).body("{").send().await.expect("an answer");
    let template = "/v2/models/{name}/infer";
    let series = format!("lfm_http_requests_total{{method=\"POST\",route=\"{template}\",status=\"400\"}}");
    assert_eq!(app.metric(&series).await, 1.0);
    let route = ROUTES.iter().find(|route| route.path == template).expect("a route");
    assert_eq!(route.statuses(&lfm_serve::oip::http::TritonJson), [200, 400, 401, 404, 408, 413, 415, 500, 503, 504]);
}
