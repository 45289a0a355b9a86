//! The reference's results end to end: `make import` of the published weights, then the command line and a server on
//! the golden images.

use std::{fs, path::Path};

use base64::{Engine, prelude::BASE64_STANDARD};
use lfm_serve::{
    config::{Auto, ModelConfig},
    image::Pixels,
    model::{Model, OnnxModel, SessionOptions},
};
use reqwest::blocking::Client;
use serde_json::{Value, json};

use crate::harness::{Server, config, golden, published_model, run, shared};

/// Largest difference of a logit from the reference's float64 run.
const TOLERANCE: f64 = 5e-4;

/// 16-bit grey: the reference clips it to white, so it is refused.
const REFUSED: &str = "x_chelsea_gray16.png";

fn read_json(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).expect("readable")).expect("JSON")
}

#[test]
fn every_golden_image_scores_as_the_reference_does() {
    let Some(shared) = shared("the golden logits") else { return };
    let model = published_model(&shared).to_str().expect("UTF-8");
    let images = shared.join("reference/golden/images");
    let golden = read_json(&shared.join("reference/golden/golden.json"));
    let server = Server::start(&["--model", model]);
    let client = Client::new();
    let (_, out, _) = run(&["score", "--model", model, images.to_str().expect("UTF-8")]);
    let lines: Vec<Value> = out.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();

    let expected = golden["images"].as_array().expect("images");
    assert_eq!(lines.len(), expected.len());
    let mut worst: f64 = 0.0;
    for entry in expected {
        let name = entry["file"].as_str().expect("a name");
        let cli = lines.iter().find(|line| Path::new(line["path"].as_str().expect("a path")).ends_with(name));
        let cli = cli.unwrap_or_else(|| panic!("{name} was not scored"));
        let bytes = fs::read(images.join(name)).expect("readable");
        let response = client.post(format!("{}/v1/score", server.url)).body(bytes).send().expect("an answer");
        let http: Value = response.json().expect("JSON");
        if name == REFUSED {
            assert_eq!(cli["error"]["code"], "unsupported_format");
            assert_eq!(http["code"], "unsupported_format");
            continue;
        }
        assert_eq!(cli["image"]["rgb256_sha256"], entry["rgb256_sha256"], "{name}");
        assert_eq!(cli["image"]["sha256"], entry["sha256"], "{name}");
        let reference = &entry["resize"];
        let logit = cli["logit"].as_f64().unwrap_or_else(|| panic!("{name}: {cli}"));
        let distance = (logit - reference["logit_fp64"].as_f64().expect("a logit")).abs();
        worst = worst.max(distance);
        assert!(distance <= TOLERANCE, "{name}: {logit} is {distance} from the reference");
        assert_eq!(cli["verdict"], reference["verdict"], "{name}");
        // The same bytes give the same logit to the last bit, over HTTP and on the command line.
        assert_eq!(http["logit"], cli["logit"], "{name}");
        assert_eq!(http["verdict"], cli["verdict"], "{name}");
    }
    eprintln!("golden logits: {} images, at most {worst:.1e} from float64", expected.len() - 1);
}

#[test]
fn hostile_files_that_pillow_reads_score_as_it_does() {
    let Some(shared) = shared("the hostile files' logits") else { return };
    let model = published_model(&shared).to_str().expect("UTF-8");
    let hostile = shared.join("reference/golden/hostile");
    let golden = read_json(&shared.join("reference/golden/golden.json"));
    let (_, out, log) = run(&["score", "--model", model, "--max-pixels", "170MP", hostile.to_str().expect("UTF-8")]);
    let mut scored = 0;
    for line in out.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON")) {
        let name = Path::new(line["path"].as_str().expect("a path")).file_name().expect("a name").to_owned();
        let entry = golden["hostile"]
            .as_array()
            .expect("files")
            .iter()
            .find(|entry| name == entry["file"].as_str().expect("a name"));
        let pillow = &entry.unwrap_or_else(|| panic!("{name:?} is not in golden.json"))["load_truncated_false"];
        assert_eq!(line["logit"].is_number(), pillow["ok"], "{line}");
        if pillow["ok"] == true {
            scored += 1;
            assert_eq!(line["image"]["rgb256_sha256"], pillow["rgb256_sha256"], "{name:?}");
            let distance =
                (line["logit"].as_f64().expect("a logit") - pillow["logit"].as_f64().expect("a logit")).abs();
            assert!(distance <= TOLERANCE, "{name:?}: {distance}");
        }
    }
    assert_eq!(scored, 8, "{log}");
}

#[tokio::test]
async fn top_k_values_and_places_are_the_references() {
    let Some(shared) = shared("the golden top-k") else { return };
    let config = ModelConfig { model: Some(published_model(&shared).into()), runtime: config(&[]).runtime };
    let options = SessionOptions::read(&config, Auto::Fixed(1)).expect("the published model");
    let mut model = OnnxModel::start(&options).expect("a session");
    let folder = shared.join("reference/golden/topk");
    for name in ["astro_420_q95_jpg", "coffee_rgb_png", "orig_china_jpg"] {
        let file = |end: &str| fs::read(folder.join(format!("{name}_{end}"))).expect("readable");
        let values: Vec<f32> = npy(&file("val.npy")).collect();
        // Also stored as float32; exact up to 2^24.
        let indices: Vec<f32> = npy(&file("idx.npy")).collect();
        let pixels = Pixels::new(file("rgb256.raw")).expect("256x256 RGB");
        let output = model.run(vec![pixels]).await.expect("a run").pop().expect("an output");
        assert_eq!(output.topk_values.len(), values.len());
        let mut other_places = 0;
        for (rank, (found, expected)) in output.topk_values.iter().zip(&values).enumerate() {
            assert!((found - expected).abs() <= 2e-4, "{name}, place {rank}: {found} is not {expected}");
            other_places += usize::from(output.topk_indices[rank] != indices[rank] as i64);
        }
        // Values closer than the rounding of two float32 runs may swap positions.
        assert!(other_places <= 8, "{name}: {other_places} of {} places differ", indices.len());
    }
}

/// The data of a NumPy file (NPY format 1.0) of 64 x 16 float32.
fn npy(file: &[u8]) -> impl Iterator<Item = f32> {
    let header = u16::from_le_bytes([file[8], file[9]]) as usize;
    let text = String::from_utf8_lossy(&file[10..10 + header]);
    assert!(text.contains("'<f4'") && text.contains("(64, 16)"), "{text}");
    file[10 + header..].chunks_exact(4).map(|bytes| f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
}

/// One image's logit does not depend on its batch, to the last bit.
#[tokio::test]
async fn a_logit_does_not_depend_on_its_batch() {
    let options = SessionOptions::read(&config(&[]).models()[0], Auto::Fixed(32)).expect("the bundled model");
    let mut model = OnnxModel::start(&options).expect("a session");
    let limits = lfm_serve::image::Limits::default();
    let inputs: Vec<Pixels> =
        ["coffee_rgb.png", "astro_420_q95.jpg", "orig_china.jpg", "x_coffee_64.png", "coins_la.png"]
            .iter()
            .map(|name| {
                let bytes = golden(&format!("images/{name}"));
                let header = lfm_serve::image::inspect(&bytes, &limits).expect("a header");
                let (resize, scratch) = (Default::default(), &mut Default::default());
                lfm_serve::image::prepare(&bytes, &header, resize, scratch, &Default::default()).expect("pixels")
            })
            .collect();
    let mut alone = Vec::new();
    for pixels in &inputs {
        alone.push(model.run(vec![pixels.clone()]).await.expect("a run").remove(0));
    }
    for size in 2..=32 {
        let batch = inputs.iter().cycle().skip(size).take(size).cloned().collect();
        let outputs = model.run(batch).await.expect("a run");
        for (output, expected) in outputs.iter().zip(alone.iter().cycle().skip(size)) {
            assert_eq!(output.logit.to_bits(), expected.logit.to_bits(), "batch of {size}");
            assert_eq!(output.topk_indices, expected.topk_indices, "batch of {size}");
        }
    }
}

/// 64 images in one request get the same logits as single requests, with any batch size.
#[test]
fn a_batch_request_equals_single_requests_to_the_last_bit() {
    let names: Vec<_> = ["coffee_rgb.png", "astro_420_q95.jpg", "coffee_q80.webp", "x_coffee_64.png", "coins_la.png"]
        .into_iter()
        .cycle()
        .take(64)
        .collect();
    let encoded = |name: &str| BASE64_STANDARD.encode(golden(&format!("images/{name}")));
    let images: Vec<_> = names.iter().map(|name| json!({ "id": name, "image": encoded(name) })).collect();
    let client = Client::new();
    let mut alone = std::collections::HashMap::new();
    for size in ["1", "5", "32"] {
        let server = Server::start(&["--sessions", "1", "--max-batch-size", size, "--request-timeout", "120s"]);
        let request = client.post(format!("{}/v1/score/batch", server.url)).json(&json!({ "images": images }));
        let answer: Value = request.timeout(crate::harness::PATIENCE).send().expect("an answer").json().expect("JSON");
        let results = answer["results"].as_array().expect("results");
        assert_eq!(results.len(), 64);
        for (name, result) in names.iter().zip(results) {
            assert_eq!(result["id"], *name);
            let single = alone.entry(*name).or_insert_with(|| {
                let bytes = golden(&format!("images/{name}"));
                let response = client.post(format!("{}/v1/score", server.url)).body(bytes).send().expect("an answer");
                response.json::<Value>().expect("JSON")["logit"].clone()
            });
            assert!(single.is_number());
            assert_eq!(result["result"]["logit"], *single, "{name} in batches of {size}");
        }
    }
}
