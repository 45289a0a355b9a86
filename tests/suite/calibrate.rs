//! `calibrate`: evidence from labelled pictures, for an imported detector and for LFM.

use std::{fs, fs::File, io::BufWriter, path::Path};

use reqwest::blocking::Client;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{
    cli::model_copy,
    harness::{Server, golden, root, run},
};

/// Pictures of each label.
const EACH: u32 = 140;

/// A PNG whose pixels are `pixel(x, y)` in all channels.
fn write(path: &Path, side: u32, pixel: impl Fn(u32, u32) -> u8) {
    fs::create_dir_all(path.parent().expect("a parent")).expect("a folder");
    let mut encoder = png::Encoder::new(BufWriter::new(File::create(path).expect("a file")), side, side);
    encoder.set_color(png::ColorType::Rgb);
    let pixels: Vec<u8> = (0..side * side).flat_map(|at| [pixel(at % side, at / side); 3]).collect();
    encoder.write_header().and_then(|mut writer| writer.write_image_data(&pixels)).expect("a PNG");
}

/// Grey pictures of 256 x 256; the real ones are lighter, and some are as light as generated ones.
fn greys(folder: &Path) {
    for index in 0..EACH {
        let (real, fake) = (130 + index * 37 % 101, 40 + index * 53 % 101);
        write(&folder.join(format!("set/0_real/{index}.png")), 256, |_, _| real as u8);
        write(&folder.join(format!("set/1_fake/{index}.f.png")), 256, |_, _| fake as u8);
    }
}

/// The graph of tests/data/foreign/, whose logit falls with the grey.
fn imported(folder: &Path) -> String {
    let graph = root().join("tests/data/foreign/tiny.onnx").display().to_string();
    let model = folder.join("model").display().to_string();
    let flags = ["--resize", "both=8x12", "--filter", "bicubic", "--output-kind", "two-logits"];
    let flags = [&flags[..], &["--mean", "0.485,0.456,0.406", "--std", "0.229,0.224,0.225"]].concat();
    let (status, out, log) = run(&[&["import-onnx", &graph, "--out", &model], &flags[..]].concat());
    assert_eq!(status, Some(0), "{out}{log}");
    model
}

fn manifest(model: &str) -> Value {
    serde_json::from_slice(&fs::read(Path::new(model).join("manifest.json")).expect("a manifest")).expect("JSON")
}

fn below(folder: &TempDir, name: &str) -> String {
    folder.path().join(name).display().to_string()
}

/// Runs it on `pictures`, and gives what it printed.
fn calibrate(pictures: &str, model: &str, out: &str) -> (Option<i32>, Value, String) {
    let (status, printed, log) = run(&["calibrate", pictures, "--model", model, "--out", out]);
    let printed = serde_json::from_str(&printed).unwrap_or(Value::Null);
    (status, printed, log)
}

#[test]
fn an_imported_detector_gets_evidence_that_is_served() {
    let folder = tempfile::tempdir().expect("a folder");
    let (pictures, out) = (below(&folder, "pictures"), below(&folder, "out"));
    greys(Path::new(&pictures));
    let model = imported(folder.path());
    let (status, printed, log) = calibrate(&pictures, &model, &out);
    assert_eq!(status, Some(0), "{log}");

    let lossless = &printed["classes"]["lossless"];
    let numbers = |half: &str, label: usize| lossless[half][label].as_u64().expect("a number");
    for label in [0, 1] {
        assert_eq!(numbers("fit", label) + numbers("report", label), u64::from(EACH));
        assert!(numbers("fit", label).min(numbers("report", label)) >= 30, "{lossless}");
    }
    assert_eq!(lossless["undecided"], Value::Null);
    let missing = json!({"reason": "too_few", "real_missing": 60, "fake_missing": 60});
    assert_eq!(printed["classes"]["jpeg_95"]["undecided"], missing);
    for side in ["false_alarms", "misses"] {
        for point in lossless[side].as_array().expect("points") {
            for measured in ["wrong", "right"] {
                let share = point[measured]["report"].as_f64().expect("a share");
                let bound = |end: usize| point[measured]["interval_95"][end].as_f64().expect("a bound");
                assert!(bound(0) <= share && share <= bound(1), "{side}: {point}");
            }
        }
    }
    let row = &printed["report"]["classes"]["lossless"];
    assert_eq!(row["n_real"].as_u64(), Some(numbers("report", 0)));
    assert!(row["coverage"].as_f64() > Some(0.5) && row["accuracy"].as_f64() > Some(0.85), "{row}");

    // All else is as it was.
    let (mut before, mut after) = (manifest(&model), manifest(&out));
    assert_eq!(after["metrics"]["calibrated"]["classes"], printed["classes"]);
    for manifest in [&mut before, &mut after] {
        let fields = manifest.as_object_mut().expect("an object");
        ["evidence", "val_score_histogram", "metrics"].iter().for_each(|name| _ = fields.remove(*name));
    }
    assert_eq!(before, after);
    let graph = |model: &str| fs::read(Path::new(model).join("model.onnx")).expect("the graph");
    assert_eq!(graph(&model), graph(&out));

    let server = Server::start(&["--model", &out, "--sessions", "1", "--operating-point", "false_alarms=0.1"]);
    let client = Client::new();
    let about: Value = client.get(format!("{}/v1/model", server.url)).send().expect("an answer").json().expect("JSON");
    assert_eq!(about["operating_point"], json!({"false_alarms": 0.1, "misses": 0.1}));
    assert_eq!(about["figures"]["calibrated"]["classes"]["lossless"]["auc"], lossless["auc"]);
    let table = &about["evidence"]["classes"]["lossless"]["regions"]["1"];
    assert_eq!(about["evidence"]["classes"]["small"]["regions"]["1"]["real"], json!([]));
    let ask = |name: &str, query: &str| -> Value {
        let bytes = fs::read(Path::new(&pictures).join(name)).expect("a picture");
        let answer = client.post(format!("{}/v1/score{query}", server.url)).body(bytes).send().expect("an answer");
        answer.json().expect("JSON")
    };
    // The darkest and the lightest, of those in between one that nothing is said of.
    let dark = ask("set/1_fake/0.f.png", "");
    assert_eq!((&dark["verdict"], &dark["evidence"]["class"]), (&json!("fake"), &json!("lossless")));
    assert_eq!(dark["evidence"]["n_real"], lossless["fit"][0]);
    let number = |value: &Value| value.as_f64().expect("a number");
    let expected = number(&table["a"]) * number(&dark["logit_raw"]) + number(&table["b"]);
    assert!((number(&dark["logit"]) - expected).abs() < 1e-4, "{dark}");
    assert_eq!(ask("set/0_real/30.png", "")["verdict"], "real");
    assert_eq!(ask("set/1_fake/0.f.png", "?max_false_alarms=0")["verdict"], "uncertain");
    // A class without a picture.
    let small = client.post(format!("{}/v1/score", server.url)).body(golden("images/x_coffee_64.png")).send();
    let small: Value = small.expect("an answer").json().expect("JSON");
    assert_eq!((&small["verdict"], &small["evidence"]["n_fake"]), (&json!("uncertain"), &json!(0)));

    let (status, said, log) = run(&["evaluate", "--model", &out, &pictures]);
    let said: Value = serde_json::from_str(&said).expect("JSON");
    assert_eq!((status, &said["judged_by"]["operating_point"]["misses"]), (Some(0), &json!(0.1)), "{log}");
}

#[test]
fn the_same_pictures_give_the_same_folder_and_copies_count_once() {
    let folder = tempfile::tempdir().expect("a folder");
    let (pictures, out, again) = (below(&folder, "pictures"), below(&folder, "out"), below(&folder, "again"));
    greys(Path::new(&pictures));
    let model = imported(folder.path());
    assert_eq!(calibrate(&pictures, &model, &out).0, Some(0));
    // The same picture saved again, and a file that is none.
    for index in 0..EACH {
        let real = Path::new(&pictures).join("set/0_real");
        fs::copy(real.join(format!("{index}.png")), real.join(format!("{index}.copy.png"))).expect("copied");
    }
    fs::write(Path::new(&pictures).join("set/1_fake/broken.png"), "no picture").expect("written");
    let (status, printed, log) = calibrate(&pictures, &model, &again);
    assert_eq!((status, &printed["failed"]), (Some(2), &json!(1)), "{log}");
    assert!(log.contains("broken.png"), "{log}");
    assert_eq!(printed["files"], 3 * EACH + 1);
    assert_eq!(manifest(&out)["evidence"], manifest(&again)["evidence"]);
}

#[test]
fn too_few_pictures_write_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let pictures = folder.path().join("pictures");
    write(&pictures.join("0_real/a.png"), 256, |_, _| 200);
    write(&pictures.join("1_fake/b.png"), 256, |_, _| 20);
    let (model, out) = (imported(folder.path()), below(&folder, "out"));
    let (status, printed, log) = calibrate(&pictures.display().to_string(), &model, &out);
    assert_eq!(status, Some(1));
    assert!(log.contains("no class of file gets verdicts"), "{log}");
    assert_eq!(printed["classes"]["lossless"]["undecided"]["reason"], "too_few");
    assert!(!Path::new(&out).exists());

    let (status, _, log) = calibrate(&pictures.display().to_string(), &model, &model);
    assert_eq!(status, Some(1));
    assert!(log.contains("cannot make"), "{log}");
}

/// Strong noise, and weak noise on waves: LFM scores them apart. From a folder of format 1, which has no evidence.
#[test]
fn lfm_is_calibrated_too() {
    let folder = tempfile::tempdir().expect("a folder");
    let (pictures, out) = (below(&folder, "pictures"), below(&folder, "out"));
    let noise = |seed: u32, x: u32, y: u32| {
        let mut hash = seed.wrapping_mul(0x9e37_79b9) ^ x.wrapping_mul(0x85eb_ca6b) ^ y.wrapping_mul(0xc2b2_ae35);
        (0..3).for_each(|_| hash = (hash ^ (hash >> 15)).wrapping_mul(0x2c1b_3c6d));
        (hash >> 24) as u8
    };
    for index in 0..80 {
        let file = |label: &str| Path::new(&pictures).join("noise").join(label).join(format!("{label}{index}.png"));
        write(&file("0_real"), 256, |x, y| 100 + noise(index, x, y) / 8);
        write(&file("1_fake"), 256, |x, y| {
            let wave = 60.0 * (f64::from(x) / 17.0 + f64::from(index)).sin() + 30.0 * (f64::from(y) / 11.0).cos();
            (128.0 + wave) as u8 + noise(1000 + index, x, y) / 32
        });
    }
    let model = model_copy();
    let path = model.path().join("manifest.json");
    let mut old: Value = serde_json::from_slice(&fs::read(&path).expect("a manifest")).expect("JSON");
    old["format_version"] = 1.into();
    ["evidence", "regions"].iter().for_each(|name| _ = old.as_object_mut().expect("an object").remove(*name));
    fs::write(&path, old.to_string()).expect("written");

    let (status, printed, log) = calibrate(&pictures, &model.path().display().to_string(), &out);
    assert_eq!(status, Some(0), "{log}{printed}");
    let lossless = &printed["classes"]["lossless"];
    assert_eq!(lossless["undecided"], Value::Null, "{lossless}");
    assert!(printed["report"]["classes"]["lossless"]["accuracy"].as_f64() > Some(0.85), "{printed}");
    let new = manifest(&out);
    assert_eq!((&new["format_version"], &new["regions"]["auto"]["then"]), (&json!(2), &json!(1)));
    assert_eq!((&new["digest"], &new["threshold"]), (&old["digest"], &old["threshold"]));
    assert!(new["metrics"]["classes"].is_null(), "figures of other evidence");

    old["calibration"] = json!({"a": 2.0, "b": 0.5});
    fs::write(&path, old.to_string()).expect("written");
    let (status, _, log) = calibrate(&pictures, &model.path().display().to_string(), &below(&folder, "other"));
    assert_eq!(status, Some(1));
    assert!(log.contains("a calibration of their own"), "{log}");
}
