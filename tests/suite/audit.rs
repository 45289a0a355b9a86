//! The decision log, `--cors-origin`, and the routes of each address.

use bytes::Bytes;
use serde_json::Value;

use crate::{
    fake::Fake,
    harness::{TestApp, picture},
};

#[tokio::test]
async fn each_scored_image_leaves_one_line() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("audit.jsonl");
    let flags = ["--audit-log", path.to_str().expect("UTF-8"), "--trusted-proxies", "1"];
    let app = TestApp::start(vec![Fake::instant()], &flags).await;
    let request = app.post("/v1/score?external_id=upload-7").header("x-request-id", "abc");
    let request = request.header("x-forwarded-for", "2001:db8::7").body(picture());
    let answer: Value = request.send().await.expect("an answer").json().await.expect("JSON");
    // An image that was not scored has no line.
    app.score("no image").await;
    app.stopped().await;

    let text = std::fs::read_to_string(&path).expect("the log");
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let [line] = &lines[..] else { panic!("one line, not {text}") };
    assert_eq!(line["event"], "scored");
    assert_eq!(line["request_id"], "abc");
    assert_eq!(line["external_id"], "upload-7");
    assert_eq!((&line["key"], &line["client"]), (&Value::Null, &Value::from("2001:db8::/64")));
    assert_eq!(line["image"]["sha256"], answer["image"]["sha256"]);
    assert_eq!(line["judgement"]["verdict"], answer["verdict"]);
    assert_eq!(line["judgement"]["score"], answer["score"]);
    assert_eq!(line["model_digest"], answer["model"]["digest"]);
    assert!(line["timings_ms"]["inference"].as_f64().is_some_and(|time| time >= 0.0), "{line}");
}

#[tokio::test]
async fn a_full_disk_loses_lines_and_no_answers() {
    const IMAGES: usize = 10_000;
    const CLIENTS: usize = 8;
    let app = TestApp::start(vec![Fake::instant()], &["--audit-log", "/dev/full"]).await;
    let (picture, url) = (Bytes::from(picture()), app.url("/v1/score"));
    let clients = (0..CLIENTS).map(|_| {
        let (picture, url) = (picture.clone(), url.clone());
        tokio::spawn(async move {
            // Connections are kept: ten thousand new ones would cost more than the images.
            let client = reqwest::Client::new();
            for _ in 0..IMAGES / CLIENTS {
                let answer = client.post(&url).body(picture.clone()).send().await.expect("an answer");
                assert_eq!(answer.status(), 200);
                answer.bytes().await.expect("a body");
            }
        })
    });
    for client in clients.collect::<Vec<_>>() {
        client.await.expect("every image is scored");
    }
    assert_eq!(app.metric("lfm_images_total{outcome=\"scored\"}").await, IMAGES as f64);
    let dropped = async || app.metric("lfm_audit_lines_total{outcome=\"dropped\"}").await;
    // The writer counts on its own thread.
    while dropped().await < IMAGES as f64 {
        tokio::task::yield_now().await;
    }
    assert_eq!(app.metric("lfm_audit_lines_total{outcome=\"written\"}").await, 0.0);
    app.stopped().await;
}

#[tokio::test]
async fn pages_of_allowed_origins_may_read_answers_and_no_others() {
    let app =
        TestApp::start(vec![Fake::instant()], &["--cors-origin", "https://desk.example,http://localhost:3000"]).await;
    let from = async |app: &TestApp, origin: &str| {
        let answer = app.post("/v1/score").header("origin", origin).body(picture()).send().await.expect("an answer");
        assert_eq!(answer.status(), 200);
        answer.headers().get("access-control-allow-origin").map(|origin| origin.to_str().expect("ASCII").to_owned())
    };
    assert_eq!(from(&app, "https://desk.example").await.as_deref(), Some("https://desk.example"));
    assert_eq!(from(&app, "https://other.example").await, None);
    let preflight = app
        .client
        .request(reqwest::Method::OPTIONS, app.url("/v1/score"))
        .header("origin", "http://localhost:3000")
        .header("access-control-request-method", "POST")
        .header("access-control-request-headers", "authorization,x-request-timeout-ms")
        .send()
        .await
        .expect("an answer");
    assert_eq!(preflight.status(), 200);
    assert_eq!(preflight.headers()["access-control-allow-origin"], "http://localhost:3000");
    assert_eq!(preflight.headers()["access-control-allow-headers"], "authorization,x-request-timeout-ms");
    app.stopped().await;
    let closed = TestApp::start(vec![Fake::instant()], &[]).await;
    assert_eq!(from(&closed, "https://desk.example").await, None);
    closed.stopped().await;
}

#[tokio::test]
async fn with_an_admin_address_the_main_one_has_only_liveness() {
    let app = TestApp::start(vec![Fake::instant()], &["--admin-listen", "127.0.0.1:0"]).await;
    let live = app.get("/livez").await;
    assert_eq!((live.status().as_u16(), live.text().await.expect("text").as_str()), (200, "ok\n"));
    for route in ["/metrics", "/readyz", "/startupz"] {
        assert_eq!(app.get(route).await.status(), 404, "{route}");
    }
    app.stopped().await;
}
