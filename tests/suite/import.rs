//! `import-onnx` and the whole service on what it writes, with graphs of some 300 bytes whose logits can be computed here
//! (tests/data/foreign/make.py).

use std::{fs, path::Path};

use reqwest::blocking::Client;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::harness::{Server, golden, picture, root, run};

const MEAN: [f64; 3] = [0.485, 0.456, 0.406];
const STD: [f64; 3] = [0.229, 0.224, 0.225];

/// One of the graphs.
fn graph(name: &str) -> String {
    root().join(format!("tests/data/foreign/{name}.onnx")).display().to_string()
}

/// Runs `import-onnx` on a graph into `folder/model`; `flags` replace those of the same name, an empty one removes it.
fn import(folder: &Path, name: &str, flags: &[(&str, &str)]) -> (Option<i32>, String, String) {
    let mut all = vec![
        ("--resize", "both=8x12"),
        ("--filter", "bicubic"),
        ("--output-kind", "two-logits"),
        ("--mean", "0.485,0.456,0.406"),
        ("--std", "0.229,0.224,0.225"),
    ];
    all.retain(|(name, _)| flags.iter().all(|(other, _)| other != name));
    let (graph, out) = (graph(name), folder.join("model").display().to_string());
    let mut arguments = vec!["import-onnx", &graph, "--out", &out];
    all.iter()
        .chain(flags)
        .filter(|(_, value)| !value.is_empty())
        .for_each(|(name, value)| arguments.extend([name, value]));
    run(&arguments)
}

pub fn imported(name: &str, flags: &[(&str, &str)]) -> (TempDir, String) {
    let folder = tempfile::tempdir().expect("a folder");
    let (status, out, error) = import(folder.path(), name, flags);
    assert_eq!(status, Some(0), "{out}{error}");
    let model = folder.path().join("model").display().to_string();
    (folder, model)
}

/// The graphs' logit of "real" and of "fake", by their definition, for pixels normalised by these.
fn logits(pixels: &[u8], mean: [f64; 3], std: [f64; 3]) -> [f64; 2] {
    let normalised = [0, 1, 2].map(|channel| {
        let values = pixels.iter().skip(channel).step_by(3).map(|&value| f64::from(value) / 255.0);
        (values.sum::<f64>() / (pixels.len() / 3) as f64 - mean[channel]) / std[channel]
    });
    let logit = |weight: [f64; 3], bias: f64| (0..3).map(|c| weight[c] * normalised[c]).sum::<f64>() + bias;
    [logit([0.5, -1.0, 2.0], 0.25), logit([-1.5, 0.75, 1.0], -0.5)]
}

/// The logit of "fake" minus that of "real".
fn expected(pixels: &[u8]) -> f64 {
    let [real, fake] = logits(pixels, MEAN, STD);
    fake - real
}

fn pixels() -> Vec<u8> {
    (0..8 * 12 * 3_u32).map(|i| (i * i * 7 % 251) as u8).collect()
}

/// What the served model says of [`pixels`].
fn logit_of_pixels(client: &Client, url: &str, model: &str) -> f64 {
    let request = json!({
        "inputs": [{"name": "pixels", "datatype": "UINT8", "shape": [1, 8, 12, 3], "data": pixels()}],
        "outputs": [{"name": "logit_raw"}],
    });
    let answer = client.post(format!("{url}/v2/models/{model}/infer")).json(&request).send().expect("an answer");
    let answer: Value = answer.json().expect("JSON");
    answer["outputs"][0]["data"][0].as_f64().unwrap_or_else(|| panic!("{answer}"))
}

#[test]
fn an_imported_graph_is_served_like_lfm() {
    let (_folder, model) = imported("tiny", &[("--licence", "research-only")]);
    let manifest: Value =
        serde_json::from_slice(&fs::read(Path::new(&model).join("manifest.json")).expect("a manifest")).expect("JSON");
    assert_eq!(manifest["format_version"], 3);
    assert_eq!(manifest["input"], json!({"width": 12, "height": 8, "resize": {"both": [12, 8]}, "filter": "bicubic"}));

    let server = Server::start(&["--model", &model, "--sessions", "1"]);
    let (client, url) = (Client::new(), &server.url);
    let found = logit_of_pixels(&client, url, "tiny");
    assert!((found - expected(&pixels())).abs() < 1e-4, "{found} is not {}", expected(&pixels()));

    let metadata: Value = client.get(format!("{url}/v2/models/tiny")).send().expect("an answer").json().expect("JSON");
    assert_eq!(metadata["inputs"][1]["shape"], json!([-1, 8, 12, 3]));
    let outputs: Vec<_> = metadata["outputs"].as_array().expect("outputs").iter().map(|one| &one["name"]).collect();
    assert_eq!(outputs, ["score", "logit", "verdict", "warnings", "logit_raw", "declared"]);

    let post = |route: &str| client.post(format!("{url}{route}")).body(picture()).send().expect("an answer");
    let answer: Value = post("/v1/score").json().expect("JSON");
    let score = answer["score"].as_f64().expect("a score");
    assert_eq!(answer["verdict"], if score > 0.5 { "fake" } else { "real" });
    assert_eq!((&answer["evidence"], &answer["judged"]["method"]), (&Value::Null, &json!("resize")));
    assert_eq!(answer["judged"]["share"], 1.0);

    let refused = post("/v1/explain");
    assert_eq!(refused.status(), 501);
    let problem: Value = refused.json().expect("JSON");
    assert_eq!(problem["code"], "not_explainable");

    let about: Value = client.get(format!("{url}/v1/model")).send().expect("an answer").json().expect("JSON");
    assert_eq!((&about["input"], &about["explains"]), (&json!([12, 8]), &json!(false)));
    let metrics = client.get(format!("{url}/metrics")).send().expect("an answer").text().expect("text");
    assert!(metrics.contains(manifest["digest"].as_str().expect("a digest")));
}

#[test]
fn an_output_is_read_as_it_was_said_to_be() {
    let client = Client::new();
    let close = |name: &str, flags: &[(&str, &str)], expected: f64, tolerance: f64| {
        let (_folder, model) = imported(name, flags);
        let found = logit_of_pixels(&client, &Server::start(&["--model", &model, "--sessions", "1"]).url, name);
        assert!((found - expected).abs() < tolerance, "{name} {flags:?}: {found} is not {expected}");
    };
    let plain = expected(&pixels());
    close("tiny", &[("--fake-index", "0")], -plain, 1e-4);
    // Bytes up to 255 with means and deviations of that range.
    let scaled = |values: [f64; 3]| values.map(|value| (value * 255.0).to_string()).join(",");
    let (mean, std) = (scaled(MEAN), scaled(STD));
    close("tiny", &[("--range", "255"), ("--mean", &mean), ("--std", &std)], plain, 1e-4);

    // One probability, channels last.
    let [_, fake] = logits(&pixels(), MEAN, STD);
    let kind = ("--output-kind", "probability");
    close("probability", &[kind], fake, 1e-4);
    close("probability", &[kind, ("--fake-index", "0")], -fake, 1e-4);
    // Bytes that the graph normalises, channels last; two probabilities in half precision, which has 11 bits.
    let [real, fake] = logits(&pixels(), [0.0; 3], [1.0; 3]);
    let bytes = [("--output-kind", "two-probabilities"), ("--mean", ""), ("--std", "")];
    close("bytes", &bytes, fake - real, 2e-3);
}

#[test]
fn a_graph_that_mixes_the_images_of_a_batch_is_warned_of() {
    let (_folder, model) = imported("mixing", &[("--output-kind", "logit")]);
    let (status, out, _) = run(&["doctor", "--model", &model]);
    assert_eq!(status, Some(0), "{out}");
    assert!(out.contains("it mixes the images of a batch") && out.contains("--max-batch-size 1"), "{out}");
}

#[test]
fn its_sessions_are_measured() {
    let (_folder, model) = imported("tiny", &[]);
    let bench = |sections: &str| {
        run(&["bench", "--json", "--rounds", "1", "--batch-sizes", "1,2", "--model", &model, "--only", sections])
    };
    let (status, out, log) = bench("session,metrics");
    assert_eq!(status, Some(0), "{log}");
    let report: Value = serde_json::from_str(&out).expect("JSON");
    assert!(!report["sessions"]["rows"].as_array().expect("rows").is_empty(), "{report}");
    let (status, _, log) = bench("graph");
    assert_eq!(status, Some(1));
    assert!(log.contains("does not have the two graphs"), "{log}");
}

#[test]
fn the_command_line_takes_it() {
    let (folder, model) = imported("tiny", &[]);
    let (status, out, _) = run(&["doctor", "--model", &model, "--max-batch-size", "4"]);
    assert_eq!(status, Some(0), "{out}");
    for said in ["a logit in a batch and alone differ by", "images in a run: 1 in ", ", 4 in ", "a session took "] {
        assert!(out.contains(said), "{said:?} is not in {out}");
    }

    let labelled = folder.path().join("set");
    for (name, place) in [("x_coffee_64.png", "0_real"), ("orig_rocket.jpg", "1_fake")] {
        let place = labelled.join("source").join(place);
        fs::create_dir_all(&place).expect("a folder");
        fs::write(place.join(name), golden(&format!("images/{name}"))).expect("a file");
    }
    let (status, out, error) = run(&["evaluate", "--model", &model, &labelled.display().to_string()]);
    assert_eq!(status, Some(0), "{error}");
    assert!(out.contains("average_precision"), "{out}");
    let explain = folder.path().join("why").display().to_string();
    let image = labelled.join("source/0_real/x_coffee_64.png").display().to_string();
    let (status, _, error) = run(&["score", "--model", &model, "--explain", &explain, &image]);
    assert_eq!(status, Some(1));
    assert!(error.contains("Top-K"), "{error}");
}

#[test]
fn tiles_of_native_pixels_have_the_inputs_size() {
    let (_folder, model) = imported("tiny", &[("--resize", "none")]);
    let image = root().join("tests/golden/images/orig_rocket.jpg").display().to_string();
    let (status, out, error) = run(&["score", "--model", &model, "--json", "--regions", "5", &image]);
    assert_eq!(status, Some(0), "{error}");
    let answer: Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!(answer["judged"]["method"], "crop");
    let regions = answer["judged"]["regions"].as_array().expect("regions");
    assert_eq!(regions.len(), 5);
    // 640 x 427: the centre is at (640 - 12) / 4 * 2 and (427 - 8) / 4 * 2.
    assert_eq!(regions[0]["box"], json!([314, 208, 326, 216]));
}

#[test]
fn what_cannot_be_served_is_refused_and_leaves_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let cases: &[(&[(&str, &str)], &str)] = &[
        (&[("--output-kind", "logit")], "2 elements for each image, not 1"),
        (&[("--mean", ""), ("--std", "")], "give --mean and --std"),
        (&[("--std", "1,0,1")], "above 0"),
        (&[("--size", "8x8")], "its input is of 8 x 12"),
        (&[("--resize", "shorter=8")], "less than the input"),
        (&[("--resize", "both=9000x9000")], "is not 1 to 2048"),
        (&[("--layout", "nhwc")], "has 12 channels"),
        (&[("--output", "means")], "it has no output means"),
        (&[("--threshold", "2")], "threshold 2"),
    ];
    for (flags, reason) in cases {
        let (status, _, error) = import(folder.path(), "tiny", flags);
        assert_eq!(status, Some(1), "{error}");
        assert!(error.contains(reason), "{error:?} does not contain {reason:?}");
        assert!(!folder.path().join("model").exists());
    }
    let broken = folder.path().join("broken.onnx");
    let whole = fs::read(graph("tiny")).expect("the graph");
    for length in [0, 1, 40, 200, whole.len() - 1] {
        fs::write(&broken, &whole[..length]).expect("a file");
        let flags = ["--resize", "none", "--filter", "bilinear", "--output-kind", "two-logits"];
        let (file, out) = (broken.display().to_string(), folder.path().join("model").display().to_string());
        let (status, _, error) = run(&[&["import-onnx", &file, "--out", &out], &flags[..]].concat());
        assert_eq!((status, error.lines().count()), (Some(1), 1), "{length}: {error}");
    }
    assert_eq!(import(folder.path(), "tiny", &[]).0, Some(0));
    let (status, _, error) = import(folder.path(), "tiny", &[]);
    assert_eq!(status, Some(1));
    assert!(error.contains("cannot make"), "{error}");
    // It was imported before.
    let again = folder.path().join("model/model.onnx").display().to_string();
    let out = folder.path().join("again").display().to_string();
    let flags = ["--resize", "none", "--filter", "bilinear", "--output-kind", "logit"];
    let (status, _, error) = run(&[&["import-onnx", &again, "--out", &out], &flags[..]].concat());
    assert_eq!(status, Some(1));
    assert!(error.contains("imported before"), "{error}");
}
