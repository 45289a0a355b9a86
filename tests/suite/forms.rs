//! Uploads: base64, multipart and JSON in every form that clients send; refusals say what was found and what to do.

use base64::{
    Engine,
    prelude::{BASE64_STANDARD, BASE64_STANDARD_NO_PAD, BASE64_URL_SAFE, BASE64_URL_SAFE_NO_PAD},
};
use reqwest::{
    RequestBuilder,
    multipart::{Form, Part},
};
use serde_json::{Value, json};

use crate::{
    fake::Fake,
    harness::{TestApp, assert_problem, golden, picture},
};

async fn app() -> TestApp {
    TestApp::start(vec![Fake::instant()], &[]).await
}

async fn scored(request: RequestBuilder) -> Value {
    let response = request.send().await.expect("an answer");
    let (status, text) = (response.status(), response.text().await.expect("a body"));
    assert_eq!(status, 200, "{text}");
    serde_json::from_str(&text).expect("JSON")
}

async fn refused(request: RequestBuilder, status: u16, code: &str) -> String {
    assert_problem(request.send().await.expect("an answer"), status, code).await
}

fn lines(text: &str, end: &str) -> String {
    let lines: Vec<_> = text.as_bytes().chunks(76).map(|line| str::from_utf8(line).expect("ASCII")).collect();
    lines.join(end)
}

#[tokio::test]
async fn base64_is_accepted_in_every_clients_form() {
    let app = app().await;
    // 451 x 300, 38,738 bytes: its text has every symbol of the alphabet.
    let bytes = golden("images/chelsea_exif6.jpg");
    let hash = scored(app.post("/v1/score").body(bytes.clone())).await["image"]["sha256"].clone();
    let plain = BASE64_STANDARD.encode(&bytes);
    let json = |text: &str| json!({ "image": text }).to_string();
    let bodies = [
        json(&plain),
        json(&BASE64_STANDARD_NO_PAD.encode(&bytes)),
        json(&BASE64_URL_SAFE.encode(&bytes)),
        json(&BASE64_URL_SAFE_NO_PAD.encode(&bytes)),
        json(&lines(&plain, "\n")),
        json(&(lines(&plain, "\r\n") + "\r\n")),
        json(&format!("data:image/jpeg;base64,{plain}")),
        json(&format!("data:;base64,{}", plain.replace('+', "%2B"))),
        // PHP and .NET escape these.
        json(&plain).replace('/', "\\/").replace('+', "\\u002B"),
        // A byte order mark.
        format!("\u{feff}{}", json(&plain)),
    ];
    for body in bodies {
        let start: String = body.chars().take(60).collect();
        let score = scored(app.post("/v1/score").header("content-type", "application/json").body(body.clone())).await;
        assert_eq!(score["image"]["sha256"], hash, "{start}");
        let batch = body.replacen("{\"image\":", "{\"images\":[{\"image\":", 1) + "]}";
        let batch = scored(app.post("/v1/score/batch").header("content-type", "application/json").body(batch)).await;
        assert_eq!(batch["results"][0]["result"]["image"]["sha256"], hash, "{start}");
    }
    assert_eq!(app.metric("lfm_admitted_bytes").await, 0.0);
}

#[tokio::test]
async fn the_inference_protocol_takes_the_same_base64() {
    let app = app().await;
    let bytes = golden("images/chelsea_exif6.jpg");
    let plain = BASE64_STANDARD.encode(&bytes);
    let body = |text: &str| {
        json!({"inputs": [{"name": "image", "shape": [1], "datatype": "BYTES", "data": [text]}],
            "outputs": [{"name": "logit"}, {"name": "topk_values"}]})
        .to_string()
    };
    let infer = |body: String| app.post("/v2/models/lfm/infer").body(body);
    let expected = scored(infer(body(&plain))).await;
    let bodies = [
        body(&BASE64_STANDARD_NO_PAD.encode(&bytes)),
        body(&BASE64_URL_SAFE.encode(&bytes)),
        body(&lines(&plain, "\r\n")),
        body(&format!("data:image/jpeg;base64,{plain}")),
        body(&plain).replace('/', "\\/"),
        format!("\u{feff}{}", body(&plain)),
    ];
    for body in bodies {
        let start: String = body.chars().take(60).collect();
        assert_eq!(scored(infer(body)).await, expected, "{start}");
    }
    for (text, word) in [("https://example.com/cat.jpg", "URL"), ("AA+_", "alphabet"), ("AA*A", "'*'")] {
        let answer = infer(body(text)).send().await.expect("an answer");
        assert_eq!(answer.status(), 400, "{text}");
        let error = answer.text().await.expect("a body");
        assert!(error.contains(word) && !error.contains("example.com"), "{text}: {error}");
    }
}

#[tokio::test]
async fn a_text_that_is_not_base64_is_refused_with_what_was_found() {
    let app = app().await;
    let cases = [
        ("https://example.com/cat.jpg", "URL"),
        ("data:image/svg+xml,%3Csvg", "base64"),
        ("AA+_", "alphabet"),
        ("AAAA AAAA", "space"),
        ("AA*A", "'*'"),
        ("AAAAA", "missing"),
    ];
    for (text, word) in cases {
        let detail = refused(app.post("/v1/score").json(&json!({ "image": text })), 400, "bad_request").await;
        assert!(detail.contains(word) && !detail.contains("example.com"), "{text}: {detail}");
    }
}

#[tokio::test]
async fn a_body_that_is_no_image_is_refused_as_what_it_is() {
    let app = app().await;
    let cases: [(&[u8], &str); 11] = [
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "a HEIC image"),
        (b"\0\0\0\x14ftypmif1\0\0\0\0mif1", "a HEIF image"),
        (b"\xff\x0a\xfa\x1f", "a JPEG XL image"),
        (b"\0\0\0\x0cJXL \r\n\x87\n", "a JPEG XL image"),
        (b"%PDF-1.7\n", "a PDF document"),
        (b"<svg xmlns=\"http://www.w3.org/2000/svg\"/>", "an SVG drawing"),
        (b"\0\0\0\x18ftypisom\0\0\x02\0isommp42", "a video"),
        (b"<!DOCTYPE html><html></html>", "a web page"),
        (b"PK\x03\x04\x14\0", "a zip archive"),
        (b"\x1f\x8b\x08\0", "a gzip archive"),
        (b"https://example.com/cat.jpg", "a URL"),
    ];
    for (bytes, what) in cases {
        let request = app.post("/v1/score").header("content-type", "application/octet-stream").body(bytes);
        let detail = refused(request, 415, "unsupported_format").await;
        assert!(detail.contains(what) && !detail.contains("example.com"), "{what}: {detail}");
    }
}

#[tokio::test]
async fn a_file_part_may_have_any_name() {
    let app = app().await;
    let file = || Part::bytes(picture()).file_name("a.png");
    for name in ["image", "file", "upload", "image[]", "image[0]", "files", "photo", ""] {
        let score = scored(app.post("/v1/score").multipart(Form::new().part(name, file()))).await;
        assert_eq!(score["image"]["format"], "png", "{name}");
    }
    let typed = Part::bytes(picture()).mime_str("image/png").expect("a type");
    scored(app.post("/v1/score").multipart(Form::new().part("picture", typed))).await;
    scored(app.post("/v1/score").multipart(Form::new().part("image", Part::bytes(picture())))).await;
    let batch = Form::new().part("a", file()).part("images[]", file());
    let batch = scored(app.post("/v1/score/batch").multipart(batch)).await;
    assert_eq!(batch["results"].as_array().map(Vec::len), Some(2));
    let two = Form::new().part("a", file()).part("b", file());
    refused(app.post("/v1/score").multipart(two), 413, "too_many_images").await;
}

#[tokio::test]
async fn settings_may_be_form_fields_and_the_query_wins() {
    let app = app().await;
    let file = || Part::bytes(picture()).file_name("a.png");
    let before = Form::new().text("threshold", "0.25").text("external_id", "a/7 & b").part("file", file());
    let behind = Form::new().part("file", file()).text("external_id", "a/7 & b").text("threshold", "0.25");
    let written = json!({ "threshold": 0.25, "image": BASE64_STANDARD.encode(picture()), "external_id": "a/7 & b" });
    let requests = [
        app.post("/v1/score").multipart(before),
        app.post("/v1/score").multipart(behind),
        app.post("/v1/score").json(&written),
    ];
    for request in requests {
        let score = scored(request).await;
        assert_eq!((&score["threshold"], &score["external_id"]), (&json!(0.25), &json!("a/7 & b")));
    }
    let both = app.post("/v1/score?threshold=0.75").json(&written);
    let score = scored(both).await;
    assert_eq!((&score["threshold"], &score["external_id"]), (&json!(0.75), &json!("a/7 & b")));
    let batch = Form::new().text("threshold", "0.25").part("image", file());
    let batch = scored(app.post("/v1/score/batch").multipart(batch)).await;
    assert_eq!(batch["results"][0]["result"]["threshold"], 0.25);
    // A form sends empty fields, JSON sends null.
    let empty = Form::new().text("external_id", "").part("image", file());
    assert_eq!(scored(app.post("/v1/score").multipart(empty)).await["external_id"], Value::Null);
    let null = json!({ "image": BASE64_STANDARD.encode(picture()), "threshold": null });
    scored(app.post("/v1/score").json(&null)).await;
}

#[tokio::test]
async fn unknown_fields_are_refused_with_a_list_of_known_ones() {
    let app = app().await;
    let image = BASE64_STANDARD.encode(picture());
    let file = || Part::bytes(picture()).file_name("a.png");
    let requests = [
        app.post("/v1/score").json(&json!({ "image": image, "treshold": 0.5 })),
        app.post("/v1/score").multipart(Form::new().part("image", file()).text("treshold", "0.5")),
        app.post("/v1/score?treshold=0.5").body(picture()),
    ];
    for request in requests {
        let detail = refused(request, 400, "bad_request").await;
        for word in ["`treshold`", "`threshold`", "`external_id`"] {
            assert!(detail.contains(word), "{detail}");
        }
    }
    let image_detail = refused(app.post("/v1/score").json(&json!({ "img": image })), 400, "bad_request").await;
    assert!(image_detail.contains("`img`") && image_detail.contains("`image`"), "{image_detail}");
    let element = json!({ "images": [{ "image": image, "name": "x" }] });
    let detail = refused(app.post("/v1/score/batch").json(&element), 400, "bad_request").await;
    assert!(detail.contains("`name`") && detail.contains("`id`"), "{detail}");
    for (name, value) in [("threshold", "2"), ("threshold", "high"), ("external_id", &*"x".repeat(257))] {
        let form = Form::new().part("image", file()).text(name, value.to_owned());
        let detail = refused(app.post("/v1/score").multipart(form), 400, "bad_request").await;
        assert!(detail.contains(name) && !detail.contains("query"), "{detail}");
    }
    let long = Form::new().part("image", file()).text("external_id", "x".repeat(5000));
    refused(app.post("/v1/score").multipart(long), 400, "bad_request").await;
    let twice = Form::new().part("image", file()).text("threshold", "0.2").text("threshold", "0.3");
    refused(app.post("/v1/score").multipart(twice), 400, "bad_request").await;
    let many = "\u{1}".repeat(3000);
    let detail = refused(app.post("/v1/score").json(&json!({ "image": image, &many: 1 })), 400, "bad_request").await;
    assert!(detail.len() < 1000 && !detail.contains('\u{1}'), "{} bytes of answer", detail.len());
}

/// A form as only old HTTP libraries and mail libraries write it.
fn written(headers: &str, preamble: &str, end: &str) -> Vec<u8> {
    let head =
        format!("{preamble}--b\r\nContent-Disposition: form-data; name=\"image\"; filename=\"a.png\"\r\n{headers}\r\n");
    [head.as_bytes(), &picture(), format!("\r\n--b{end}").as_bytes()].concat()
}

#[tokio::test]
async fn multipart_of_old_clients_is_accepted() {
    let app = app().await;
    let post =
        |body: Vec<u8>| app.post("/v1/score").header("content-type", "multipart/form-data; boundary=b").body(body);
    for (headers, preamble, end) in [
        ("", "", "--\r\n"),
        ("", "This is a MIME message.\r\n", "--"),
        ("Content-Transfer-Encoding: binary\r\n", "\r\n", "--\r\nepilogue"),
        ("Content-Transfer-Encoding: 8bit\r\nContent-Type: image/png\r\n", "", "--\r\n"),
    ] {
        let score = scored(post(written(headers, preamble, end))).await;
        assert_eq!(score["image"]["bytes"], picture().len(), "{headers:?}");
    }
    for encoding in ["base64", "quoted-printable"] {
        let body = written(&format!("Content-Transfer-Encoding: {encoding}\r\n"), "", "--\r\n");
        let detail = refused(post(body), 400, "bad_request").await;
        assert!(detail.contains("Content-Transfer-Encoding") && detail.contains(encoding), "{detail}");
    }
    let detail = refused(post(written("", "", "")), 400, "bad_request").await;
    assert!(detail.contains("boundary"), "{detail}");
    let no_boundary = app.post("/v1/score").header("content-type", "multipart/form-data").body(written("", "", "--"));
    assert!(refused(no_boundary, 400, "bad_request").await.contains("boundary"));
    let no_file = Form::new().text("threshold", "0.5");
    let detail = refused(app.post("/v1/score").multipart(no_file), 400, "bad_request").await;
    assert!(detail.contains("`image`") && detail.contains("file name"), "{detail}");
}

#[tokio::test]
async fn curls_own_content_type_is_judged_by_its_bytes() {
    let app = app().await;
    let curl =
        |body: Vec<u8>| app.post("/v1/score").header("content-type", "application/x-www-form-urlencoded").body(body);
    let jpeg = golden("images/chelsea_exif6.jpg");
    assert_eq!(scored(curl(jpeg.clone())).await["image"]["format"], "jpeg");
    assert_eq!(scored(curl(picture())).await["image"]["format"], "png");
    // As sent by `curl -d @photo.jpg`.
    let damaged: Vec<u8> = jpeg.into_iter().filter(|byte| !matches!(byte, b'\0' | b'\r' | b'\n')).collect();
    assert!(refused(curl(damaged), 400, "bad_request").await.contains("--data-binary"));
    let form = refused(curl(b"image=abc&x=y".to_vec()), 415, "unsupported_media_type").await;
    assert!(form.contains("multipart/form-data"), "{form}");
    assert!(refused(curl(b"no image".to_vec()), 415, "unsupported_format").await.len() > 10);
}

#[tokio::test]
async fn a_url_in_place_of_an_image_is_refused_with_an_explanation() {
    let app = app().await;
    let url = "https://example.com/cat.jpg";
    let form = || Form::new().text("image", url);
    let requests = [app.post("/v1/score").body(url), app.post("/v1/score").multipart(form())];
    for request in requests {
        let detail = refused(request, 415, "unsupported_format").await;
        assert!(detail.contains("URL") && detail.contains("send the image") && !detail.contains("example"), "{detail}");
    }
    let batch = scored(app.post("/v1/score/batch").multipart(form())).await;
    assert_eq!(batch["results"][0]["error"]["code"], "unsupported_format");
}

#[tokio::test]
async fn json_is_parsed_only_up_to_its_limits() {
    let app = TestApp::start(vec![Fake::instant()], &["--max-batch-images", "2"]).await;
    let image = BASE64_STANDARD.encode(picture());
    let post = |body: String| app.post("/v1/score/batch").header("content-type", "application/json").body(body);
    // After the third image the JSON is invalid: it is not parsed that far.
    let endless = format!("{{\"images\":[{}", format!("{{\"image\":\"{image}\"}},").repeat(3));
    refused(post(endless), 413, "too_many_images").await;
    let small = format!("{{\"images\":[{}0]}}", "{\"image\":\"\"},".repeat(400_000));
    refused(post(small), 413, "too_many_images").await;
    let deep = format!("{{\"x\":{}", "[".repeat(1_000_000));
    refused(post(deep.replace("\"x\"", "\"images\"")), 400, "bad_request").await;
    refused(post(deep.replace("\"x\"", "\"threshold\"")), 400, "bad_request").await;
    for body in [
        format!("\"{image}\""),
        format!("[\"{image}\"]"),
        format!("{{\"images\":\"{image}\"}}"),
        format!("{{\"images\":[\"{image}\"]}}"),
        format!("{{\"images\":[{{\"image\":\"{image}\"}}],\"images\":[]}}"),
        format!("{{\"images\":[{{\"image\":\"{image}\"}}]}} x"),
        format!("{{\"images\":[{{\"image\":\"{image}\",\"id\":\"{}\"}}]}}", "i".repeat(257)),
        format!("{{\"images\":[{{\"id\":\"{image}\"}}]}}"),
        format!("{{\"images\":[],\"external_id\":\"{image}\"}}"),
        "{\"images\":[]}".into(),
        "null".into(),
    ] {
        let detail = refused(post(body.clone()), 400, "bad_request").await;
        assert!(detail.len() < 400, "{} bytes of answer", detail.len());
    }
    assert_eq!(app.metric("lfm_admitted_bytes").await, 0.0);
    assert_eq!(app.metric("lfm_images_in_flight").await, 0.0);
}

#[tokio::test]
async fn decoded_bytes_are_reserved_before_the_body_is_parsed() {
    // The body fits the budget, its decoded bytes or its copy do not.
    let body = json!({ "image": BASE64_STANDARD.encode(picture()) }).to_string();
    let budget = (body.len() + picture().len() / 2).to_string();
    let app = TestApp::start(vec![Fake::instant()], &["--max-admitted-bytes", &budget]).await;
    let json = app.post("/v1/score").header("content-type", "application/json").body(body);
    refused(json, 429, "overloaded").await;
    let form = || Form::new().part("image", Part::bytes(golden("images/x_coffee_64.png")).file_name("a.png"));
    refused(app.post("/v1/score").multipart(form()), 429, "overloaded").await;
    assert_eq!(app.metric("lfm_admitted_bytes").await, 0.0);
    scored(app.post("/v1/score").body(picture())).await;
    let app = TestApp::start(vec![Fake::instant()], &["--max-admitted-bytes", "50000"]).await;
    scored(app.post("/v1/score").multipart(form())).await;
    assert_eq!(app.metric("lfm_admitted_bytes").await, 0.0);
}

#[tokio::test]
async fn a_large_json_body_reserves_its_bytes_and_its_decoded_size() {
    let app = TestApp::start(vec![Fake::instant()], &["--max-body-bytes", "64MiB"]).await;
    // A PNG with 24 MiB after its end, which decoders ignore.
    let mut file = picture();
    file.resize(24 * 1024 * 1024, 0);
    let body = json!({ "image": BASE64_STANDARD.encode(&file) });
    let score = scored(app.post("/v1/score").json(&body)).await;
    assert_eq!(score["image"]["bytes"], file.len());
    assert_eq!(app.metric("lfm_admitted_bytes").await, 0.0);
}

#[tokio::test]
async fn every_code_is_explained_at_its_type_url() {
    let app = app().await;
    let problem: Value = app.get("/nowhere").await.json().await.expect("JSON");
    let (path, anchor) = problem["type"].as_str().and_then(|kind| kind.split_once('#')).expect("an anchor");
    assert_eq!((path, anchor), ("/errors", "not_found"));
    let page = app.get(path).await.text().await.expect("text");
    let document = std::fs::read_to_string(crate::harness::root().join("docs/errors.md")).expect("docs/errors.md");
    for code in lfm_serve::error::Code::ALL {
        assert!(page.contains(&format!("id=\"{}\"", code.as_str())), "{} is not on the page", code.as_str());
        assert!(page.contains(code.title()), "{}", code.title());
        assert!(document.contains(&format!("| `{}` | {} | {}", code.as_str(), code.status(), code.title())));
        for text in [code.title(), code.remedy()] {
            assert!(!text.contains(['|', '\n', '<']), "{text}");
        }
        assert!(code.remedy().ends_with('.'), "{}", code.remedy());
    }
    let (status, printed, _) = crate::harness::run(&["errors"]);
    assert_eq!(status, Some(0));
    assert!(printed == document, "docs/errors.md is behind: make errors");
}
