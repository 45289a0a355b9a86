//! `POST /v1/score` and `/v1/score/batch` over a real socket: all forms and answers.

use std::{sync::atomic::Ordering::SeqCst, time::Duration};

use base64::{Engine, prelude::BASE64_STANDARD};
use futures_util::stream;
use lfm_serve::model::{Output, RunError};
use reqwest::{
    Body,
    multipart::{Form, Part},
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use crate::{
    fake::{Fake, answer},
    harness::{PATIENCE, TestApp, assert_problem, exchange, golden, picture, request},
};

async fn app() -> TestApp {
    TestApp::start(vec![Fake::instant()], &[]).await
}

#[tokio::test]
async fn every_form_gets_the_same_answer() {
    let app = app().await;
    let bytes = picture();
    let file = || Part::bytes(bytes.clone()).file_name("a.png");
    let encoded = BASE64_STANDARD.encode(&bytes);
    let chunks: Vec<Result<_, std::io::Error>> = bytes.chunks(1000).map(|chunk| Ok(chunk.to_vec())).collect();
    let requests = [
        app.post("/v1/score").body(bytes.clone()),
        app.post("/v1/score").header("content-type", "image/png").body(bytes.clone()),
        app.post("/v1/score").header("content-type", "image/jpeg; what=ever").body(bytes.clone()),
        app.post("/v1/score").header("content-type", "application/octet-stream").body(bytes.clone()),
        app.post("/v1/score").body(Body::wrap_stream(stream::iter(chunks))),
        app.post("/v1/score").multipart(Form::new().part("image", file())),
        app.post("/v1/score").json(&json!({ "image": encoded })),
    ];
    let mut logits = Vec::new();
    for request in requests {
        let response = request.send().await.expect("an answer");
        assert_eq!(response.status(), 200, "{}", response.text().await.unwrap_or_default());
        logits.push(response.json::<Value>().await.expect("JSON")["logit"].clone());
    }
    assert!(logits.iter().all(|logit| *logit == logits[0]), "{logits:?}");
}

#[tokio::test]
async fn the_answer_has_every_field_of_the_interface() {
    let app = app().await;
    let request = app.post("/v1/score?external_id=upload%207&threshold=0.25").header("x-request-id", "mine-1");
    let response = request.body(golden("images/chelsea_exif6.jpg")).send().await.expect("an answer");
    assert_eq!(response.headers()["x-request-id"], "mine-1");
    let body: Value = response.json().await.expect("JSON");
    assert_eq!(body["id"], "mine-1");
    assert_eq!(body["external_id"], "upload 7");
    assert_eq!(body["threshold"], 0.25);
    assert_eq!(body["verdict"], "fake");
    let logit = body["logit"].as_f64().expect("a logit");
    let score = body["score"].as_f64().expect("a score");
    assert!((score - 1.0 / (1.0 + (-logit).exp())).abs() < 1e-12);
    assert_eq!(body["warnings"], json!([]));
    assert_eq!(body["model"]["name"], "lfm");
    assert!(body["model"]["digest"].as_str().is_some_and(|digest| digest.starts_with("sha256:")));
    let image = &body["image"];
    assert_eq!(image["format"], "jpeg");
    assert_eq!((&image["width"], &image["height"], &image["bytes"]), (&json!(451), &json!(300), &json!(38738)));
    assert_eq!(image["exif_orientation"], 6);
    assert_eq!(image["sha256"].as_str().map(str::len), Some(64));
    for stage in ["decode", "queue", "inference", "total"] {
        assert!(body["timings_ms"][stage].as_f64().is_some_and(|ms| ms >= 0.0), "{stage}: {body}");
    }
}

#[tokio::test]
async fn warnings_name_what_weakens_the_score() {
    let app = app().await;
    let flat: Value = app.score(golden("images/x_flat.png")).await.json().await.expect("JSON");
    assert_eq!(flat["warnings"], json!(["no_signal", "small_source"]));
    let small: Value = app.score(picture()).await.json().await.expect("JSON");
    assert_eq!(small["warnings"], json!(["small_source"]));
}

#[tokio::test]
async fn malformed_requests_are_refused_with_their_code() {
    let app = app().await;
    let text = || Part::bytes(b"x".to_vec());
    let json_type = ("content-type", "application/json");
    let cases = [
        (app.post("/v1/score"), 400, "empty_body"),
        (app.post("/v1/score").header("content-type", "text/plain").body("x"), 415, "unsupported_media_type"),
        (app.post("/v1/score").header("content-type", "multipart/form-data").body("x"), 400, "bad_request"),
        (app.post("/v1/score").multipart(Form::new().part("file", text())), 415, "unsupported_format"),
        (app.post("/v1/score").multipart(Form::new().part("other", text())), 400, "bad_request"),
        (
            app.post("/v1/score").multipart(Form::new().part("image", text()).part("image", text())),
            413,
            "too_many_images",
        ),
        (app.post("/v1/score").header(json_type.0, json_type.1).body("{"), 400, "bad_request"),
        (app.post("/v1/score").json(&json!({ "image": "*" })), 400, "bad_request"),
        (app.post("/v1/score").json(&json!({ "image": "", "x": 1 })), 400, "bad_request"),
        (app.post("/v1/score").json(&json!({ "image": "" })), 400, "empty_body"),
        (app.post("/v1/score?threshold=2").body(picture()), 400, "bad_request"),
        (app.post("/v1/score?threshold=x").body(picture()), 400, "bad_request"),
        (app.post("/v1/score?treshold=0.5").body(picture()), 400, "bad_request"),
        (app.post(&format!("/v1/score?external_id={}", "x".repeat(257))).body(picture()), 400, "bad_request"),
        (app.post("/v1/score").header("x-request-timeout-ms", "soon").body(picture()), 400, "bad_request"),
        (app.post("/v1/score").header("x-request-timeout-ms", "0").body(picture()), 400, "bad_request"),
        (app.post("/v1/score").body("no image"), 415, "unsupported_format"),
        (app.post("/v1/score").body(golden("hostile/truncated.png")), 422, "undecodable_image"),
        (app.post("/v1/nowhere").body(picture()), 404, "not_found"),
        (app.client.get(app.url("/v1/score")), 405, "method_not_allowed"),
        (app.client.get(app.url("/nowhere")), 404, "not_found"),
        (app.client.post(app.url("/readyz")), 405, "method_not_allowed"),
    ];
    for (request, status, code) in cases {
        let detail = assert_problem(request.send().await.expect("an answer"), status, code).await;
        assert!(!detail.is_empty() && !detail.contains(".rs") && !detail.contains("0x"), "{detail}");
    }
    assert_eq!(app.metric("lfm_images_total{outcome=\"scored\"}").await, 0.0);
}

#[tokio::test]
async fn a_405_names_the_methods_that_are_allowed() {
    let app = app().await;
    let response = app.get("/v1/score").await;
    assert_eq!(response.headers()["allow"], "POST");
}

#[tokio::test]
async fn limits_answer_with_their_code() {
    let flags = ["--max-body-bytes", "20000", "--max-pixels", "4000", "--min-side", "10"];
    let app = TestApp::start(vec![Fake::instant()], &flags).await;
    assert_problem(app.score(golden("images/coffee_rgb.png")).await, 413, "body_too_large").await;
    let chunks = (0..30).map(|_| Ok::<_, std::io::Error>(vec![0u8; 1000]));
    let chunked = Body::wrap_stream(stream::iter(chunks));
    assert_problem(app.score(chunked).await, 413, "body_too_large").await;
    assert_problem(app.score(picture()).await, 413, "image_too_large").await;
    assert_problem(app.score(golden("hostile/one_pixel.png")).await, 422, "image_too_small").await;
}

#[tokio::test]
async fn a_valid_request_id_is_kept_and_another_is_replaced() {
    let app = app().await;
    for (given, kept) in [("abc-123", true), ("with space", false), (&"x".repeat(129), false)] {
        let response =
            app.post("/v1/score").header("x-request-id", given).body(picture()).send().await.expect("an answer");
        let id = response.headers()["x-request-id"].to_str().expect("ASCII").to_owned();
        assert_eq!(id == given, kept, "{given} became {id}");
        assert_eq!(response.json::<Value>().await.expect("JSON")["id"], id);
    }
}

#[tokio::test]
async fn too_many_images_at_once_are_shed_with_retry_after() {
    let (model, gate) = Fake::gated();
    let app = TestApp::start(vec![model], &["--max-in-flight", "1"]).await;
    let first = tokio::spawn(app.post("/v1/score").body(picture()).send());
    while app.metric("lfm_images_in_flight").await < 1.0 {
        tokio::task::yield_now().await;
    }
    let shed = app.score(picture()).await;
    let wait: u64 = shed.headers()["retry-after"].to_str().expect("ASCII").parse().expect("whole seconds");
    assert!(wait >= 1);
    assert_problem(shed, 429, "overloaded").await;
    gate.add_permits(1);
    assert_eq!(first.await.expect("no panic").expect("an answer").status(), 200);
    assert_eq!(app.metric("lfm_images_total{outcome=\"shed\"}").await, 1.0);
    assert_eq!(app.metric("lfm_images_total{outcome=\"scored\"}").await, 1.0);
    assert_eq!(app.metric("lfm_images_in_flight").await, 0.0);
}

#[tokio::test]
async fn bytes_beyond_the_budget_are_shed_before_they_are_read() {
    let app = TestApp::start(vec![Fake::instant()], &["--max-admitted-bytes", "5000"]).await;
    assert_problem(app.score(picture()).await, 429, "overloaded").await;
    let chunks = picture().chunks(1000).map(|chunk| Ok::<_, std::io::Error>(chunk.to_vec())).collect::<Vec<_>>();
    assert_problem(app.score(Body::wrap_stream(stream::iter(chunks))).await, 429, "overloaded").await;
    assert_eq!(app.metric("lfm_admitted_bytes").await, 0.0);
    assert_eq!(app.score(golden("hostile/one_pixel.png")).await.status(), 200);
}

#[tokio::test]
async fn an_early_answer_reaches_a_client_that_is_still_sending() {
    let app = TestApp::start(vec![Fake::instant()], &["--max-body-bytes", "1MiB"]).await;
    let mut socket = TcpStream::connect(app.address).await.expect("a connection");
    socket.write_all(b"POST /v1/score HTTP/1.1\r\nhost: x\r\ncontent-length: 20000000\r\n\r\n").await.expect("sent");
    // Like Python's requests: the client sends its whole body before it reads.
    let chunk = vec![0u8; 64 * 1024];
    while timeout(Duration::from_millis(200), socket.write_all(&chunk)).await.is_ok_and(|sent| sent.is_ok()) {}
    let mut answer = Vec::new();
    let _ = timeout(PATIENCE, socket.read_to_end(&mut answer)).await.expect("the connection is closed");
    let answer = String::from_utf8_lossy(&answer);
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
    assert!(answer.to_ascii_lowercase().contains("connection: close"), "{answer}");
    assert!(answer.contains("body_too_large"), "{answer}");
}

/// Under overload every refusal would otherwise cost its client, or the load balancer, a new connection.
#[tokio::test]
async fn a_connection_stays_when_a_small_body_is_refused() {
    let app = TestApp::start(vec![Fake::instant()], &["--max-admitted-bytes", "5000"]).await;
    let address = app.address;
    let asked = move || {
        let mut socket = std::net::TcpStream::connect(address).expect("a connection");
        let files = [picture(), picture(), golden("hostile/one_pixel.png"), vec![0; 1 << 20]];
        files.map(|file| exchange(&mut socket, &request(&file)).expect("an answer"))
    };
    let answers = tokio::task::spawn_blocking(asked).await.expect("no panic");
    assert_eq!(answers, [(429, false), (429, false), (200, false), (429, false)]);
}

#[tokio::test]
async fn a_client_with_expect_continue_is_refused_or_continued() {
    let app = TestApp::start(vec![Fake::instant()], &["--max-body-bytes", "1MiB"]).await;
    for (length, expected) in [("20000000", "HTTP/1.1 413 "), ("7452", "HTTP/1.1 100 ")] {
        let mut socket = TcpStream::connect(app.address).await.expect("a connection");
        let head =
            format!("POST /v1/score HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: {length}\r\n\r\n");
        socket.write_all(head.as_bytes()).await.expect("sent");
        let mut answer = [0; 64];
        let read = timeout(PATIENCE, socket.read(&mut answer)).await.expect("an answer").expect("bytes");
        let answer = String::from_utf8_lossy(&answer[..read]).into_owned();
        assert!(answer.starts_with(expected), "{answer}");
    }
}

#[tokio::test]
async fn a_slow_body_is_cut_off() {
    let app = TestApp::start(vec![Fake::instant()], &["--body-timeout", "50ms"]).await;
    let stalled = Body::wrap_stream(stream::pending::<Result<Vec<u8>, std::io::Error>>());
    assert_problem(app.score(stalled).await, 408, "body_timeout").await;
}

#[tokio::test]
async fn a_deadline_is_answered_while_all_sessions_are_busy() {
    let (model, gate) = Fake::gated();
    let app = TestApp::start(vec![model.clone()], &[]).await;
    let busy = tokio::spawn(app.post("/v1/score").body(picture()).send());
    while model.images.load(SeqCst) < 1 {
        tokio::task::yield_now().await;
    }
    let hurried = app.post("/v1/score").header("x-request-timeout-ms", "50").body(picture());
    assert_problem(hurried.send().await.expect("an answer"), 504, "deadline_exceeded").await;
    gate.add_permits(1);
    assert_eq!(busy.await.expect("no panic").expect("an answer").status(), 200);
    assert_eq!(model.images.load(SeqCst), 1, "the expired image was never run");
    assert_eq!(app.metric("lfm_images_total{outcome=\"expired\"}").await, 1.0);
    assert_eq!(app.metric("lfm_images_in_flight").await, 0.0);
}

#[tokio::test]
async fn the_servers_timeout_limits_the_callers() {
    let (model, _gate) = Fake::gated();
    let app = TestApp::start(vec![model], &["--request-timeout", "50ms"]).await;
    let patient = app.post("/v1/score").header("x-request-timeout-ms", "3600000").body(picture());
    assert_problem(patient.send().await.expect("an answer"), 504, "deadline_exceeded").await;
}

#[tokio::test]
async fn a_disconnected_clients_image_is_withdrawn() {
    let (model, gate) = Fake::gated();
    let app = TestApp::start(vec![model.clone()], &[]).await;
    let busy = tokio::spawn(app.post("/v1/score").body(picture()).send());
    while model.images.load(SeqCst) < 1 {
        tokio::task::yield_now().await;
    }
    let leaving = tokio::spawn(app.post("/v1/score").body(picture()).send());
    while app.metric("lfm_queue_images").await < 1.0 {
        tokio::task::yield_now().await;
    }
    leaving.abort();
    while app.metric("lfm_images_total{outcome=\"cancelled\"}").await < 1.0 {
        tokio::task::yield_now().await;
    }
    assert_eq!(app.metric("lfm_queue_images").await, 0.0);
    gate.add_permits(1);
    assert_eq!(busy.await.expect("no panic").expect("an answer").status(), 200);
    assert_eq!(model.images.load(SeqCst), 1, "the image of the client that left was never run");
}

#[tokio::test]
async fn two_hundred_disconnected_clients_cause_no_run() {
    let (model, gate) = Fake::gated();
    let app = TestApp::start(vec![model.clone()], &["--max-in-flight", "1000", "--trusted-proxies", "1"]).await;
    // Each a client of its own: of one client's images that wait for long, new ones would be refused on a slow machine.
    let post = |number: usize| {
        let address = format!("10.0.0.{number}");
        tokio::spawn(app.post("/v1/score").header("x-forwarded-for", address).body(picture()).send())
    };
    let busy = post(201);
    while model.images.load(SeqCst) < 1 {
        tokio::task::yield_now().await;
    }
    let leaving: Vec<_> = (0..200).map(post).collect();
    while app.metric("lfm_queue_images").await < 200.0 {
        tokio::task::yield_now().await;
    }
    let live = post(202);
    while app.metric("lfm_queue_images").await < 201.0 {
        tokio::task::yield_now().await;
    }
    leaving.iter().for_each(tokio::task::JoinHandle::abort);
    while app.metric("lfm_images_total{outcome=\"cancelled\"}").await < 200.0 {
        tokio::task::yield_now().await;
    }
    assert_eq!(app.metric("lfm_images_in_flight").await, 2.0, "their permits are returned at once");
    // Two runs may proceed: the one in progress and the live client's.
    gate.add_permits(2);
    for answered in [busy, live] {
        assert_eq!(answered.await.expect("no panic").expect("an answer").status(), 200);
    }
    assert_eq!(model.images.load(SeqCst), 2, "no image of a client that left was run");
}

#[tokio::test]
async fn a_failing_run_fails_its_own_image_and_the_session_is_replaced() {
    let model = Fake::new(4, async |batch: Vec<_>| {
        let poisoned = |output: &Output| output.logit == 0.0;
        let outputs: Vec<Output> = batch.iter().map(answer).collect();
        if outputs.iter().any(poisoned) { Err(RunError("a secret /path/to/something".into())) } else { Ok(outputs) }
    });
    let app = TestApp::start(vec![model.clone()], &[]).await;
    // A black pixel: the fake reads its first byte as the logit.
    let black = {
        let mut png = Vec::new();
        let mut encoder = png::Encoder::new(&mut png, 1, 1);
        encoder.set_color(png::ColorType::Rgb);
        encoder.write_header().and_then(|mut writer| writer.write_image_data(&[0, 0, 0])).expect("a PNG");
        png
    };
    let detail = assert_problem(app.score(black).await, 500, "inference_failed").await;
    assert!(!detail.contains("secret"), "{detail}");
    assert_eq!(app.score(picture()).await.status(), 200);
    assert_eq!(model.rebuilt.load(SeqCst), 1);
    assert_eq!(app.metric("lfm_images_total{outcome=\"failed\"}").await, 1.0);
    assert_eq!(app.metric("lfm_sessions").await, 1.0);
}

#[tokio::test]
async fn a_batch_answers_each_image_in_order() {
    let app = app().await;
    let encoded = |path: &str| BASE64_STANDARD.encode(golden(path));
    let request = json!({ "images": [
        { "id": "a", "image": encoded("images/x_coffee_64.png") },
        { "id": "b", "image": "not base64!" },
        { "image": encoded("hostile/truncated.png") },
        { "id": "d", "image": encoded("images/coffee_q80.webp") },
        { "id": "e", "image": "" },
    ]});
    let response = app.post("/v1/score/batch").json(&request).send().await.expect("an answer");
    assert_eq!(response.status(), 200);
    let body: Value = response.json().await.expect("JSON");
    let results = body["results"].as_array().expect("results");
    let ids: Vec<_> = results.iter().map(|result| result["id"].as_str()).collect();
    assert_eq!(ids, [Some("a"), Some("b"), None, Some("d"), Some("e")]);
    let formats: Vec<_> = results.iter().map(|result| result["result"]["image"]["format"].as_str()).collect();
    assert_eq!(formats, [Some("png"), None, None, Some("webp"), None]);
    let codes: Vec<_> = results.iter().map(|result| result["error"]["code"].as_str()).collect();
    assert_eq!(codes, [None, Some("bad_request"), Some("undecodable_image"), None, Some("empty_body")]);
    assert_eq!(app.metric("lfm_images_total{outcome=\"scored\"}").await, 2.0);
    assert_eq!(app.metric("lfm_images_total{outcome=\"rejected\"}").await, 3.0);
}

#[tokio::test]
async fn a_multipart_batch_names_results_after_files() {
    let app = app().await;
    let file = |name: &'static str| Part::bytes(picture()).file_name(name);
    let form =
        Form::new().part("image", file("1.png")).part("image", file("2.png")).part("image", Part::bytes(picture()));
    let body: Value =
        app.post("/v1/score/batch").multipart(form).send().await.expect("an answer").json().await.expect("JSON");
    let ids: Vec<_> = body["results"].as_array().expect("results").iter().map(|result| result["id"].as_str()).collect();
    assert_eq!(ids, [Some("1.png"), Some("2.png"), None]);
}

#[tokio::test]
async fn a_batch_as_a_whole_is_refused_with_its_code() {
    let app = TestApp::start(vec![Fake::instant()], &["--max-batch-images", "2", "--max-in-flight", "1"]).await;
    let image = BASE64_STANDARD.encode(picture());
    let images = |count: usize| json!({ "images": vec![json!({ "image": image }); count] });
    let batch = || app.post("/v1/score/batch");
    let cases = [
        (batch().json(&images(3)), 413, "too_many_images"),
        (batch().json(&images(2)), 429, "overloaded"),
        (batch().json(&images(0)), 400, "bad_request"),
        (batch().json(&json!({ "image": image })), 400, "bad_request"),
        (batch().body(picture()), 415, "unsupported_media_type"),
        (batch(), 415, "unsupported_media_type"),
    ];
    for (request, status, code) in cases {
        assert_problem(request.send().await.expect("an answer"), status, code).await;
    }
    assert_eq!(batch().json(&images(1)).send().await.expect("an answer").status(), 200);
    assert_eq!(app.metric("lfm_images_in_flight").await, 0.0);
}
