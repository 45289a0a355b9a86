//! Explanations: `POST /v1/explain` and `score --explain`, with the real network.

use std::{collections::BTreeMap, fs, path::Path};

use lfm_serve::{
    config::Auto,
    explain::geometry,
    image::{self, Pixels, SIDE},
    model::{Model, OnnxModel, SessionOptions},
};
use reqwest::{StatusCode, blocking::Client};
use serde_json::Value;

use crate::{
    fake::Fake,
    harness::{Server, TestApp, assert_problem, config, golden, picture, published_model, root, run, shared},
};

/// Largest difference of bias plus map from the logit.
const TOLERANCE: f64 = 1e-3;

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("{value} is no number"))
}

/// Checks an explanation against the rules of the interface; returns the difference of the sum from the logit.
fn check(answer: &Value) -> f64 {
    let attribution = &answer["attribution"];
    let maps: Vec<Vec<Vec<f64>>> = attribution["regions"]
        .as_array()
        .expect("regions")
        .iter()
        .map(|region| serde_json::from_value(region["map"].clone()).expect("a map"))
        .collect();
    assert_eq!(attribution["map"], attribution["regions"][0]["map"]);
    assert_eq!(maps.len(), answer["judged"]["regions"].as_array().map_or(1, Vec::len));
    assert!(maps.iter().all(|map| map.len() == 30 && map.iter().all(|row| row.len() == 30)));
    let [width, height] = ["width", "height"].map(|side| number(&answer["image"][side]));
    let within = |cell: &Value| {
        let [x0, y0, x1, y1]: [f64; 4] = serde_json::from_value(cell.clone()).expect("a box");
        assert!(0.0 <= x0 && x0 < x1 && x1 <= width && 0.0 <= y0 && y0 < y1 && y1 <= height, "{cell}");
    };
    within(&attribution["judged"]);
    let mut rest = maps.clone();
    for cell in attribution["cells"].as_array().expect("cells") {
        within(&cell["box"]);
        let place = |name: &str| usize::try_from(cell[name].as_u64().expect("a place")).expect("small");
        let value = &mut rest[place("region")][place("row")][place("col")];
        assert_eq!(*value, number(&cell["contribution"]));
        *value = 0.0;
    }
    assert!(rest.iter().flatten().flatten().all(|&value| value == 0.0), "a place contributes but is not a cell");
    let sum = number(&attribution["bias"]) + maps.iter().flatten().flatten().sum::<f64>();
    // If regions disagree there is no logit.
    let Some(logit) = answer["logit"].as_f64() else { return 0.0 };
    let miss = (sum - logit).abs();
    assert!(miss < TOLERANCE, "{sum} is not the logit of {}", answer["logit"]);
    miss
}

/// The size and the pixels of a PNG.
fn read_png(bytes: &[u8]) -> (u32, u32, Vec<u8>) {
    let mut reader = png::Decoder::new(std::io::Cursor::new(bytes)).read_info().expect("a PNG");
    let mut pixels = vec![0; reader.output_buffer_size().expect("small")];
    let frame = reader.next_frame(&mut pixels).expect("a frame");
    (frame.width, frame.height, pixels)
}

#[test]
fn the_sum_rule_holds_on_all_golden_images_with_the_published_weights() {
    let Some(shared) = shared("the sum rule with the published weights") else { return };
    let model = published_model(&shared).to_str().expect("UTF-8");
    let server = Server::start(&["--model", model]);
    let client = Client::new();
    let (mut images, mut worst) = (0, 0.0_f64);
    for entry in fs::read_dir(shared.join("reference/golden/images")).expect("the golden images") {
        let bytes = fs::read(entry.expect("a file").path()).expect("readable");
        let post = |route: &str| client.post(format!("{}{route}", server.url)).body(bytes.clone());
        let explained = post("/v1/explain").send().expect("an answer");
        if explained.status() == StatusCode::UNSUPPORTED_MEDIA_TYPE {
            continue; // 16-bit grey
        }
        let explained: Value = explained.json().expect("JSON");
        let scored: Value = post("/v1/score").send().expect("an answer").json().expect("JSON");
        for field in ["logit", "score", "verdict", "warnings", "model", "image", "threshold"] {
            assert_eq!(explained[field], scored[field]);
        }
        worst = worst.max(check(&explained));
        images += 1;
    }
    assert!(images >= 30, "{images}");
    eprintln!("sum rule, published weights: {images} golden images, at most {worst:.1e} from the logit");
}

#[test]
fn the_sum_rule_holds_on_val_with_the_bundled_model() {
    let Some(shared) = shared("the sum rule on val") else { return };
    let val = shared.join("data/val");
    if !val.is_dir() {
        eprintln!("SKIPPED the sum rule on val: ../shared/data/val is not here");
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let explain = folder.path().to_str().expect("UTF-8");
    let (code, out, log) = run(&["score", "--explain", explain, val.to_str().expect("UTF-8")]);
    assert_eq!(code, Some(0), "{log}");
    let mut worst = 0.0_f64;
    for line in out.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON")) {
        let explained = explained(folder.path(), line["path"].as_str().expect("a path"));
        assert_eq!(explained["logit"], line["logit"]);
        worst = worst.max(check(&explained));
    }
    let images = out.lines().count();
    assert!(images >= 200, "{images}");
    eprintln!("sum rule, bundled model: {images} images of val, at most {worst:.1e} from the logit");
}

/// The explanation that `--explain` wrote for a file.
fn explained(folder: &Path, file: &str) -> Value {
    let place = folder.join(file.replace("..", "_").trim_start_matches('/'));
    let json = fs::read(format!("{}.json", place.display())).unwrap_or_else(|error| panic!("{file}: {error}"));
    let png = fs::read(format!("{}.png", place.display())).expect("an overlay");
    assert!(png.starts_with(b"\x89PNG"));
    serde_json::from_slice(&json).expect("JSON")
}

#[test]
fn score_explains_files_into_a_folder() {
    let folder = tempfile::tempdir().expect("a folder");
    let target = folder.path().join("made/anew");
    let files = ["tests/golden/images/x_coffee_64.png", "tests/golden/images/chelsea_exif6.jpg"];
    let broken = "tests/golden/hostile/text.jpg";
    let (code, out, _) = run(&["score", "--explain", target.to_str().expect("UTF-8"), files[0], files[1], broken]);
    assert_eq!(code, Some(2));
    let plain = run(&["score", files[0], files[1], broken]).1;
    assert_eq!(out, plain, "what is printed is the same");
    for (file, line) in files.iter().zip(out.lines()) {
        let explained = explained(&target, file);
        check(&explained);
        let line: Value = serde_json::from_str(line).expect("JSON");
        assert_eq!((&explained["logit"], &explained["image"]), (&line["logit"], &line["image"]));
    }
    assert!(!target.join(format!("{broken}.json")).exists());
}

/// A place depends exactly on its receptive field: noise around it does not change its values; one row or column of the
/// field removed changes them.
#[tokio::test]
async fn a_place_depends_exactly_on_its_receptive_field() {
    let options = SessionOptions::read(&config(&[]).models()[0], Auto::Fixed(1)).expect("the bundled model");
    let mut model = OnnxModel::start(&options).expect("a session");
    // Noise within the box, uniform grey around it.
    let only = |[x0, y0, x1, y1]: [u32; 4]| {
        let pixels = (0..SIDE * SIDE).flat_map(|i| {
            let noise = (u64::from(i) + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15).to_le_bytes();
            let inside = (x0..x1).contains(&(i % SIDE)) && (y0..y1).contains(&(i / SIDE));
            if inside { [noise[5], noise[6], noise[7]] } else { [128; 3] }
        });
        Pixels::new(pixels.collect()).expect("256x256")
    };
    // The Top-K values from a place, by map.
    let mut values = async |pixels: Pixels, place: i64| {
        let output = model.run(vec![pixels]).await.expect("a run").remove(0);
        let terms = output.topk_indices.iter().enumerate().zip(&output.topk_values);
        terms.filter(|((_, at), _)| **at == place).map(|((i, _), value)| (i / 16, *value)).collect::<BTreeMap<_, _>>()
    };
    for (row, col) in [(0, 0), (11, 17), (29, 29)] {
        let mut compared = 0;
        let place = (row * 30 + col) as i64;
        let [x0, y0, x1, y1] = geometry::field(row, col);
        let alone = values(only([x0, y0, x1, y1]), place).await;
        assert!(!alone.is_empty());
        let (wide, high) = ((x1 + 9).min(SIDE), (y1 + 9).min(SIDE));
        let crowded = values(only([x0.saturating_sub(9), y0.saturating_sub(9), wide, high]), place).await;
        for (map, value) in &crowded {
            if let Some(expected) = alone.get(map) {
                assert!((value - expected).abs() <= 1e-4, "map {map}: {value} is not {expected}");
                compared += 1;
            }
        }
        for cut in [[x0 + 1, y0, x1, y1], [x0, y0 + 1, x1, y1], [x0, y0, x1 - 1, y1], [x0, y0, x1, y1 - 1]] {
            assert_ne!(values(only(cut), place).await, alone, "{cut:?}");
        }
        // How many maps select the place in both pictures depends on the weights.
        assert!(compared > 0, "no map takes the place at row {row}, column {col} in both pictures");
    }
}

#[tokio::test]
async fn explain_answers_in_the_accepted_form() {
    let app = TestApp::start(vec![Fake::instant()], &[]).await;
    let ask = async |accept: &str, body: Vec<u8>| {
        app.post("/v1/explain?external_id=7").header("accept", accept).body(body).send().await.expect("an answer")
    };
    for accept in ["application/json", "*/*", "text/html, */*;q=0.1"] {
        let answer = ask(accept, picture()).await;
        assert_eq!(answer.headers()["content-type"], "application/json");
        let answer: Value = answer.json().await.expect("JSON");
        assert_eq!((&answer["external_id"], &answer["attribution"]["cells"][0]["row"]), (&"7".into(), &2.into()));
        check(&answer);
    }
    let answer = ask("image/png", picture()).await;
    assert_eq!(answer.headers()["content-type"], "image/png");
    assert!(answer.headers().contains_key("x-request-id"));
    let (width, height, _) = read_png(&answer.bytes().await.expect("bytes"));
    assert!(width >= 512 && height >= 512, "a small picture is enlarged: {width} x {height}");
    assert_problem(ask("text/html", picture()).await, 406, "not_acceptable").await;
    // The head is checked before the body; an error is always a problem document.
    assert_problem(ask("text/html", b"no image".to_vec()).await, 406, "not_acceptable").await;
    assert_problem(ask("image/png", golden("hostile/truncated.png")).await, 422, "undecodable_image").await;
    assert_eq!(app.metric("lfm_images_total{outcome=\"scored\"}").await, 4.0);
    assert_eq!(app.metric("lfm_images_in_flight").await, 0.0);
    assert_eq!(app.metric("lfm_admitted_bytes").await, 0.0);
    assert_eq!(app.metric("lfm_decode_bytes").await, 0.0);
}

/// A large picture's overlay has a limited size, and shows the tile beside it.
#[tokio::test]
async fn an_overlay_has_a_size_limit() {
    let app = TestApp::start(vec![Fake::instant()], &[]).await;
    for (width, height) in [(6000, 200), (200, 6000), (3000, 2500), (1, 1), (60_000, 1)] {
        let mut png = Vec::new();
        let mut encoder = png::Encoder::new(&mut png, width, height);
        encoder.set_color(png::ColorType::Grayscale);
        let grey = vec![90; (width * height) as usize];
        encoder.write_header().and_then(|mut writer| writer.write_image_data(&grey)).expect("a PNG");
        let answer = app.post("/v1/explain").header("accept", "image/png").body(png).send().await.expect("an answer");
        let (wide, high, _) = read_png(&answer.bytes().await.expect("bytes"));
        assert!((490..=1600).contains(&wide) && (100..=1300).contains(&high), "{width}x{height}: {wide}x{high}");
    }
}

/// A viewer shows this file with its left side up: map and picture are rotated accordingly, boxes are not.
#[tokio::test]
async fn an_overlay_is_upright_and_boxes_are_stored_pixels() {
    let app = TestApp::start(vec![Fake::instant()], &[]).await;
    let turned = golden("images/chelsea_exif6.jpg");
    // The same file with the orientation set to 1.
    let mut plain = turned.clone();
    let tag = plain
        .windows(10)
        .position(|bytes| bytes == [0x12, 1, 3, 0, 0, 0, 1, 0, 6, 0] || bytes == [1, 0x12, 0, 3, 0, 0, 0, 1, 0, 6]);
    let tag = tag.unwrap_or_else(|| plain.windows(10).position(|b| b[..2] == [0x12, 1] && b[8] == 6).expect("the tag"));
    for value in [8, 9] {
        if plain[tag + value] == 6 {
            plain[tag + value] = 1;
        }
    }
    let ask = async |accept: &str, body: &[u8]| {
        app.post("/v1/explain").header("accept", accept).body(body.to_vec()).send().await.expect("an answer")
    };
    let json = async |body: &[u8]| ask("application/json", body).await.json::<Value>().await.expect("JSON");
    let (six, one) = (json(&turned).await, json(&plain).await);
    assert_eq!((&six["image"]["exif_orientation"], &one["image"]["exif_orientation"]), (&6.into(), &1.into()));
    assert_eq!((&six["image"]["width"], &six["image"]["height"]), (&451.into(), &300.into()));
    let stored = |answer: &Value| {
        let mut attribution = answer["attribution"].clone();
        for cell in attribution["cells"].as_array_mut().expect("cells") {
            cell.as_object_mut().expect("a cell").remove("shown").expect("where it is shown");
        }
        for region in attribution["regions"].as_array_mut().expect("regions") {
            region.as_object_mut().map(|region| region.remove("shown"));
        }
        attribution
    };
    assert_eq!(stored(&six), stored(&one), "boxes and map are those of the stored pixels");
    check(&six);

    let overlay = async |body: &[u8]| read_png(&ask("image/png", body).await.bytes().await.expect("bytes"));
    let ((six_width, _, six), (one_width, _, one)) = (overlay(&turned).await, overlay(&plain).await);
    let at = |pixels: &[u8], width: u32, x: u32, y: u32| pixels[((y * width + x) * 3) as usize..][..3].to_vec();
    // The panel starts at 8, 8: rotated clockwise, stored (x, y) is at (height - 1 - y, x).
    for (x, y) in (0..451).step_by(7).flat_map(|x| (0..300).step_by(7).map(move |y| (x, y))) {
        assert_eq!(at(&one, one_width, 8 + x, 8 + y), at(&six, six_width, 8 + 299 - y, 8 + x), "{x}, {y}");
    }
    // The fake's single place, column 8 and row 2 of the tile at (96, 22), is laid over the picture, which is as stored
    // elsewhere.
    let header = image::inspect(&plain, &image::Limits::default()).expect("a header");
    let picture = image::decode(&plain, &header, &image::Cancel::default()).expect("a picture").data;
    let middle = (96 + 8 * 8 + 11, 22 + 2 * 8 + 11);
    let [place, beside] = [(middle.0, middle.1), (middle.0 + 8, middle.1)];
    let is_stored = |(x, y)| at(&one, one_width, 8 + x, 8 + y) == at(&picture, 451, x, y);
    assert!(!is_stored(place) && is_stored(beside));
}

#[test]
fn the_published_model_is_explained_across_the_whole_picture() {
    let Some(shared) = shared("boxes under resize") else { return };
    let model = published_model(&shared).to_str().expect("UTF-8");
    let folder = tempfile::tempdir().expect("a folder");
    let explain = folder.path().to_str().expect("UTF-8");
    let file = root().join("tests/golden/images/orig_rocket.jpg");
    let file = file.to_str().expect("UTF-8");
    assert_eq!(run(&["score", "--model", model, "--explain", explain, file]).0, Some(0));
    let explained = explained(folder.path(), file);
    check(&explained);
    let (width, height) = (&explained["image"]["width"], &explained["image"]["height"]);
    assert_eq!(explained["attribution"]["judged"], serde_json::json!([0, 0, width, height]));
}
