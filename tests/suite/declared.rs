//! What a file says of itself, in every answer.

use base64::{Engine, prelude::BASE64_STANDARD};
use serde_json::{Value, json};

use crate::{
    fake::Fake,
    harness::{TestApp, picture, run},
    oip::{INFER, file_input},
};

const SECRET: &str = "a secret garden";

/// The picture with a text of PNG before its pixels.
fn with_text(keyword: &str, text: &str) -> Vec<u8> {
    const HEADER: usize = 8 + 25;
    let picture = picture();
    let data = format!("{keyword}\0{text}");
    let mut checksum = flate2::Crc::new();
    checksum.update(b"tEXt");
    checksum.update(data.as_bytes());
    let length = (data.len() as u32).to_be_bytes();
    let (header, rest) = picture.split_at(HEADER);
    [header, &length, b"tEXt", data.as_bytes(), &checksum.sum().to_be_bytes(), rest].concat()
}

fn generated() -> Vec<u8> {
    with_text("parameters", &format!("{SECRET}\nSteps: 20, Sampler: Euler a, CFG scale: 7, Seed: 1"))
}

fn expected() -> Value {
    let claim = json!({"source": "png_text", "kind": "generated", "tool": "Stable Diffusion WebUI (AUTOMATIC1111)",
        "signer": null, "validation": "none", "detail": "text `parameters`"});
    json!({"generated": true, "claims": [claim]})
}

async fn json_of(request: reqwest::RequestBuilder) -> Value {
    let response = request.send().await.expect("an answer");
    assert_eq!(response.status(), 200);
    response.json().await.expect("JSON")
}

#[tokio::test]
async fn every_route_says_it_and_the_score_does_not_move() {
    let folder = tempfile::tempdir().expect("a folder");
    let log = folder.path().join("audit.jsonl");
    let app = TestApp::start(vec![Fake::instant()], &["--audit-log", log.to_str().expect("UTF-8")]).await;
    let plain = json_of(app.post("/v1/score").body(picture())).await;
    assert_eq!(plain["declared"], json!({"generated": null, "claims": []}));
    let answer = json_of(app.post("/v1/score").body(generated())).await;
    assert_eq!(answer["declared"], expected());
    for field in ["verdict", "score", "logit", "warnings", "evidence"] {
        assert_eq!(answer[field], plain[field], "{field}");
    }
    let images: Vec<_> =
        [generated(), picture()].iter().map(|file| json!({"image": BASE64_STANDARD.encode(file)})).collect();
    let batch = json_of(app.post("/v1/score/batch").json(&json!({"images": images}))).await;
    assert_eq!(batch["results"][0]["result"]["declared"], expected());
    assert_eq!(batch["results"][1]["result"]["declared"]["generated"], Value::Null);
    let explained = json_of(app.post("/v1/explain").header("accept", "application/json").body(generated())).await;
    assert_eq!(explained["declared"], expected());

    let outputs = json!([{"name": "declared"}, {"name": "verdict"}]);
    let request = json!({"inputs": [file_input(&[generated(), picture()])], "outputs": outputs});
    let tensors = json_of(app.post(INFER).json(&request)).await;
    let said: Vec<Value> = tensors["outputs"][0]["data"]
        .as_array()
        .expect("strings")
        .iter()
        .map(|text| serde_json::from_str(text.as_str().expect("a string")).expect("JSON"))
        .collect();
    assert_eq!(said[0], expected());
    assert_eq!(said[1]["generated"], Value::Null);

    let counted = app.metric("lfm_declared_total{kind=\"generated\",source=\"png_text\"}").await;
    assert_eq!(counted, 4.0);
    app.stopped().await;
    let log = std::fs::read_to_string(&log).expect("the log");
    let lines: Vec<Value> = log.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(lines[1]["declared"], expected());
    assert!(!log.contains(SECRET), "{log}");
}

#[tokio::test]
async fn it_can_be_switched_off_and_given_in_full() {
    let off = TestApp::start(vec![Fake::instant()], &["--declared", "off"]).await;
    assert_eq!(json_of(off.post("/v1/score").body(generated())).await["declared"], Value::Null);
    off.stopped().await;
    let full = TestApp::start(vec![Fake::instant()], &["--declared-detail", "full"]).await;
    let answer = json_of(full.post("/v1/score").body(generated())).await;
    let detail = answer["declared"]["claims"][0]["detail"].as_str().expect("a detail");
    assert!(detail.contains(SECRET), "{detail}");
    full.stopped().await;
}

/// A manifest store, an XMP packet and texts that are all larger than what is read of them.
#[tokio::test]
async fn metadata_made_to_be_large_costs_no_answer() {
    let app = TestApp::start(vec![Fake::instant()], &[]).await;
    let spaces = vec![b' '; 64 << 20];
    let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::best());
    std::io::Write::write_all(&mut encoder, &spaces).expect("memory");
    let packed = encoder.finish().expect("memory");
    let chunk = |kind: &[u8], parts: &[&[u8]]| {
        let data = parts.concat();
        let mut checksum = flate2::Crc::new();
        checksum.update(kind);
        checksum.update(&data);
        [&(data.len() as u32).to_be_bytes(), kind, &data, &checksum.sum().to_be_bytes()].concat()
    };
    let boxes = b"\0\0\0\x08jumb".repeat(100_000);
    let extra = [
        chunk(b"iTXt", &[b"prompt\0\x01\0\0\0", &packed]),
        chunk(b"iTXt", &[b"XML:com.adobe.xmp\0\x01\0\0\0", &packed]),
        chunk(b"caBX", &[b"\0\0\0\0jumb", &boxes]),
    ];
    let picture = picture();
    let (header, rest) = picture.split_at(33);
    let answer = json_of(app.post("/v1/score").body([header, &extra.concat(), rest].concat())).await;
    assert_eq!(answer["declared"]["generated"], Value::Null);
    assert_eq!(answer["declared"]["claims"][0]["kind"], "other", "{answer}");
    app.stopped().await;
}

#[test]
fn the_command_line_says_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("generated.png");
    std::fs::write(&path, generated()).expect("a file");
    let path = path.to_str().expect("UTF-8");
    let (code, out, err) = run(&["score", "--sessions", "1", "--json", path]);
    assert_eq!(code, Some(0), "{err}");
    let line: Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!(line["declared"], expected());
    let (code, _, err) = run(&["score", "--c2pa-trust", path, path]);
    assert_eq!(code, Some(1));
    assert!(err.contains("--c2pa-trust"), "{err}");
}
