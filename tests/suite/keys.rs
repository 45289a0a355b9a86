//! API keys over a real socket: accepted and refused requests, and the log.

use std::{
    fs,
    io::{BufRead, Read},
    num::NonZeroU32,
    os::unix::fs::PermissionsExt,
    path::Path,
    sync::atomic::Ordering::SeqCst,
    thread,
};

use lfm_serve::{keys::NewKey, metrics::Outcome};
use serde_json::{Value, json};
use tempfile::NamedTempFile;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use crate::{
    cli::assert_one_line,
    fake::Fake,
    harness::{PATIENCE, Server, TestApp, assert_problem, picture, run},
};

fn key(name: &str) -> NewKey {
    NewKey::make(name, None, None).expect("a key")
}

fn capped(name: &str, most: u32) -> NewKey {
    NewKey::make(name, NonZeroU32::new(most), None).expect("a key")
}

fn write(file: &Path, keys: &[&NewKey]) {
    let lines: String = keys.iter().map(|key| format!("{}\n", key.line)).collect();
    replace(file, &lines);
}

/// Atomic: a server that polls the file meanwhile finds the old one or the new one.
fn replace(file: &Path, text: &str) {
    let new = file.with_extension("new");
    fs::write(&new, text).expect("written");
    fs::rename(new, file).expect("replaced");
}

fn keys_file(keys: &[&NewKey]) -> NamedTempFile {
    let file = NamedTempFile::new().expect("a file");
    write(file.path(), keys);
    file
}

async fn guarded(models: Vec<Fake>, file: &Path) -> TestApp {
    TestApp::start(models, &["--api-keys-file", &file.to_string_lossy()]).await
}

#[tokio::test]
async fn every_form_of_a_valid_key_is_accepted() {
    let (alice, bob) = (key("alice"), key("bob"));
    let file = keys_file(&[&alice, &bob]);
    let app = guarded(vec![Fake::instant()], file.path()).await;
    let forms: [&[(&str, String)]; 7] = [
        &[("authorization", format!("Bearer {}", alice.key))],
        &[("authorization", format!("bearer {}", bob.key))],
        &[("authorization", format!("BEARER   {}", alice.key))],
        &[("x-api-key", bob.key.clone())],
        &[("authorization", "Basic YTpi".into()), ("x-api-key", alice.key.clone())],
        &[("authorization", format!("Bearer {}", alice.key)), ("x-api-key", "wrong".into())],
        &[("X-Api-Key", alice.key.clone())],
    ];
    for headers in forms {
        let request = headers.iter().fold(app.post("/v1/score"), |request, (name, value)| request.header(*name, value));
        assert_eq!(request.body(picture()).send().await.expect("an answer").status(), 200, "{headers:?}");
    }
}

#[tokio::test]
async fn requests_without_a_valid_key_are_refused_and_not_counted_as_images() {
    let alice = key("alice");
    let file = keys_file(&[&alice]);
    let model = Fake::instant();
    let app = guarded(vec![model.clone()], file.path()).await;
    let hash = alice.line.split(':').nth(1).expect("a hash").to_owned();
    let wrong: [&[(&str, String)]; 9] = [
        &[],
        &[("authorization", "Bearer".into())],
        &[("authorization", "Bearer ".into())],
        &[("authorization", format!("Basic {}", alice.key))],
        &[("authorization", alice.key.clone())],
        &[("authorization", format!("Bearer {}x", alice.key))],
        &[("x-api-key", hash)],
        &[("x-api-key", alice.key.to_lowercase())],
        &[("authorization", "Bearer wrong".into()), ("x-api-key", alice.key.clone())],
    ];
    for route in ["/v1/score", "/v1/score/batch"] {
        for headers in wrong {
            let request = headers.iter().fold(app.post(route), |request, (name, value)| request.header(*name, value));
            let response = request.body(picture()).send().await.expect("an answer");
            assert_eq!(response.headers()["www-authenticate"], "Bearer realm=\"lfm-serve\"", "{headers:?}");
            let detail = assert_problem(response, 401, "unauthorized").await;
            assert!(!detail.contains(&alice.key), "{detail}");
        }
    }
    assert_eq!(model.images.load(SeqCst), 0);
    for outcome in Outcome::ALL {
        assert_eq!(app.metric(&format!("lfm_images_total{{outcome=\"{}\"}}", outcome.as_str())).await, 0.0);
    }
    assert_eq!(app.metric("lfm_errors_total{code=\"unauthorized\"}").await, 18.0);
    let series = "lfm_http_requests_total{method=\"POST\",route=\"/v1/score\",status=\"401\"}";
    assert_eq!(app.metric(series).await, 9.0);
}

#[tokio::test]
async fn a_wrong_key_is_refused_before_the_body_is_read() {
    let file = keys_file(&[&key("alice")]);
    let app = guarded(vec![Fake::instant()], file.path()).await;
    for more in ["", "expect: 100-continue\r\n"] {
        let mut socket = TcpStream::connect(app.address).await.expect("a connection");
        let head =
            format!("POST /v1/score HTTP/1.1\r\nhost: x\r\nx-api-key: wrong\r\n{more}content-length: 20000000\r\n\r\n");
        socket.write_all(head.as_bytes()).await.expect("sent");
        // Not a byte of the body is sent.
        let mut answer = [0; 32];
        timeout(PATIENCE, socket.read_exact(&mut answer)).await.expect("an answer").expect("bytes");
        assert!(answer.starts_with(b"HTTP/1.1 401 "), "{}", String::from_utf8_lossy(&answer));
    }
}

#[tokio::test]
async fn probes_metrics_and_the_document_need_no_key() {
    let file = keys_file(&[&key("alice")]);
    let app = guarded(vec![Fake::instant()], file.path()).await;
    for path in ["/livez", "/readyz", "/startupz", "/metrics", "/openapi.json"] {
        assert_eq!(app.get(path).await.status(), 200, "{path}");
    }
    assert_problem(app.get("/nowhere").await, 404, "not_found").await;
    let open = TestApp::start(vec![Fake::instant()], &[]).await;
    let anyone = open.post("/v1/score").header("x-api-key", "wrong").body(picture());
    assert_eq!(anyone.send().await.expect("an answer").status(), 200, "without a keys file no key is needed");
}

#[tokio::test]
async fn the_document_declares_both_forms_and_the_refusal() {
    let document: Value = serde_json::from_str(&lfm_serve::api::openapi::document()).expect("JSON");
    let schemes = &document["components"]["securitySchemes"];
    assert_eq!((&schemes["bearer"]["type"], &schemes["bearer"]["scheme"]), (&json!("http"), &json!("bearer")));
    assert_eq!((&schemes["api_key"]["in"], &schemes["api_key"]["name"]), (&json!("header"), &json!("X-API-Key")));
    for path in ["/v1/score", "/v1/score/batch"] {
        let operation = &document["paths"][path]["post"];
        assert_eq!(operation["security"], json!([{"bearer": []}, {"api_key": []}, {}]), "{path}");
        assert!(operation["responses"]["401"].is_object(), "{path}");
    }
    assert!(document["paths"]["/readyz"]["get"].get("security").is_none());
}

#[tokio::test]
async fn the_file_is_read_again_when_it_changes() {
    let (old, new) = (key("old"), key("new"));
    let file = keys_file(&[&old]);
    let app = guarded(vec![Fake::instant()], file.path()).await;
    let status = async |key: &NewKey| {
        let request = app.post("/v1/score").bearer_auth(&key.key).body(picture());
        request.send().await.expect("an answer").status().as_u16()
    };
    assert_eq!((status(&old).await, status(&new).await), (200, 401));
    // Written in place.
    write(file.path(), &[&new]);
    timeout(PATIENCE, async { while status(&new).await != 200 {} }).await.expect("the new key opens");
    assert_eq!(status(&old).await, 401);
    // Replaced by a rename, as editors and Kubernetes do.
    let next = keys_file(&[&old]);
    fs::rename(next.into_temp_path().keep().expect("kept"), file.path()).expect("renamed");
    timeout(PATIENCE, async { while status(&old).await != 200 {} }).await.expect("the old key opens again");
    assert_eq!(status(&new).await, 401);
    // Emptied: every request is refused.
    write(file.path(), &[]);
    timeout(PATIENCE, async { while status(&old).await != 401 {} }).await.expect("no key opens");
}

#[tokio::test]
async fn a_key_has_no_more_images_in_flight_than_its_cap() {
    let (small, large) = (capped("small", 2), key("large"));
    let file = keys_file(&[&small, &large]);
    let (model, gate) = Fake::gated();
    let app = guarded(vec![model.clone()], file.path()).await;
    let send = |key: &NewKey| app.post("/v1/score").bearer_auth(&key.key).body(picture()).send();
    let leaving = tokio::spawn(send(&small));
    while model.images.load(SeqCst) < 1 {
        tokio::task::yield_now().await;
    }
    let staying = tokio::spawn(send(&small));
    while app.metric("lfm_images_in_flight").await < 2.0 {
        tokio::task::yield_now().await;
    }
    let full = send(&small).await.expect("an answer");
    assert!(full.headers().contains_key("retry-after"));
    let detail = assert_problem(full, 429, "overloaded").await;
    assert!(detail.contains("`small`"), "{detail}");
    let others = tokio::spawn(send(&large));
    while app.metric("lfm_images_in_flight").await < 3.0 {
        tokio::task::yield_now().await;
    }
    // The client of the running image disconnects: the run continues, and its permit is not returned before the end.
    leaving.abort();
    while app.metric("lfm_images_total{outcome=\"cancelled\"}").await < 1.0 {
        tokio::task::yield_now().await;
    }
    assert_problem(send(&small).await.expect("an answer"), 429, "overloaded").await;
    gate.add_permits(16);
    for answered in [staying, others] {
        assert_eq!(answered.await.expect("no panic").expect("an answer").status(), 200);
    }
    while app.metric("lfm_images_in_flight").await > 0.0 {
        tokio::task::yield_now().await;
    }
    // Each image of a batch counts.
    let image = base64::Engine::encode(&base64::prelude::BASE64_STANDARD, picture());
    for (images, status) in [(3, 429), (2, 200)] {
        let body = json!({ "images": vec![json!({ "image": image }); images] });
        let batch = app.post("/v1/score/batch").bearer_auth(&small.key).json(&body);
        assert_eq!(batch.send().await.expect("an answer").status(), status, "{images} images");
    }
}

#[tokio::test]
async fn images_are_counted_by_key_and_outcome() {
    let (alice, bob) = (key("alice"), capped("bob", 1));
    let file = keys_file(&[&alice, &bob]);
    let app = guarded(vec![Fake::instant()], file.path()).await;
    let send = async |key: &str, route: &str, body: Vec<u8>| {
        let request = app.post(route).bearer_auth(key).header("content-type", "application/octet-stream");
        request.body(body).send().await.expect("an answer").status().as_u16()
    };
    assert_eq!(send(&alice.key, "/v1/score", picture()).await, 200);
    assert_eq!(send(&alice.key, "/v1/score", picture()).await, 200);
    assert_eq!(send(&alice.key, "/v1/explain", picture()).await, 200);
    assert_eq!(send(&alice.key, "/v1/score", b"no image".to_vec()).await, 415);
    assert_eq!(send(&bob.key, "/v2/models/lfm/infer", b"{".to_vec()).await, 400);
    assert_eq!(send("made-up", "/v1/score", picture()).await, 401);
    let text = app.get("/metrics").await.text().await.expect("text");
    let mut series: Vec<_> = text.lines().filter(|line| line.starts_with("lfm_key_images_total{")).collect();
    series.sort_unstable();
    // Nothing for what callers make up, and a series only for what has happened.
    let expected = [
        r#"lfm_key_images_total{key="alice",outcome="rejected"} 1"#,
        r#"lfm_key_images_total{key="alice",outcome="scored"} 3"#,
        r#"lfm_key_images_total{key="bob",outcome="rejected"} 1"#,
    ];
    assert_eq!(series, expected);
}

#[test]
fn the_log_has_the_keys_name_and_never_the_key() {
    let (alice, stranger) = (key("alice"), key("stranger"));
    let file = keys_file(&[&alice]);
    let path = file.path().to_string_lossy();
    // Level trace: not even a library may log the key.
    let mut server = Server::start(&["--api-keys-file", &path, "--sessions", "1", "--log-level", "trace"]);
    let mut log = server.log();
    let log = thread::spawn(move || {
        let mut text = String::new();
        log.read_to_string(&mut text).expect("UTF-8");
        text
    });
    let client = reqwest::blocking::Client::new();
    let post = |id: &str| client.post(format!("{}/v1/score", server.url)).header("x-request-id", id).body(picture());
    let requests = [
        (post("1").bearer_auth(&alice.key), 200),
        (post("2").header("x-api-key", &alice.key), 200),
        (post("3").bearer_auth(&stranger.key), 401),
        (post("4"), 401),
        (client.get(format!("{}/readyz", server.url)).header("x-api-key", &alice.key).header("x-request-id", "5"), 200),
    ];
    for (request, status) in requests {
        assert_eq!(request.send().expect("an answer").status(), status);
    }
    assert!(server.terminate().0.success());
    let log = log.join().expect("no panic");
    for key in [&alice, &stranger] {
        assert!(!log.contains(&key.key), "a key is in the log");
    }
    let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let requests: Vec<_> = lines.filter(|line| line["message"] == "request").collect();
    let client_of =
        |id: &str| &requests.iter().find(|line| line["request_id"] == id).expect("an access line")["client"];
    assert_eq!(["1", "2", "3", "4", "5"].map(client_of), ["alice", "alice", "127.0.0.1", "127.0.0.1", "127.0.0.1"]);
}

#[test]
fn an_invalid_file_leaves_the_keys_unchanged_and_logs_one_error() {
    let (alice, bob) = (key("alice"), key("bob"));
    let file = keys_file(&[&alice]);
    let path = file.path().to_string_lossy();
    let mut server = Server::start(&["--api-keys-file", &path, "--sessions", "1", "--log-level", "info"]);
    let mut log = server.log().lines().map(|line| serde_json::from_str::<Value>(&line.expect("UTF-8")).expect("JSON"));
    let client = reqwest::blocking::Client::new();
    let status = |key: &NewKey| {
        let request = client.post(format!("{}/v1/score", server.url)).bearer_auth(&key.key).body(picture());
        request.send().expect("an answer").status()
    };
    replace(file.path(), &alice.key);
    let about_keys = |line: &Value| line["message"].as_str().is_some_and(|message| message.contains("API keys"));
    let error = log.find(about_keys).expect("an error");
    assert_eq!(error["level"], "ERROR");
    let text = error.to_string();
    assert!(text.contains(&*path) && text.contains("line 1") && !text.contains(&alice.key), "{text}");
    assert_eq!(status(&alice), 200);
    // The next valid change takes effect, and the invalid one was logged once.
    write(file.path(), &[&alice, &bob]);
    let next = log.find(about_keys).expect("a line");
    assert_eq!((&next["message"], &next["keys"]), (&json!("the API keys were read again"), &json!(2)));
    assert_eq!(status(&bob), 200);
    // A missing file is an error too, and changes nothing.
    fs::remove_file(file.path()).expect("removed");
    let gone = log.find(about_keys).expect("a line");
    assert_eq!(gone["level"], "ERROR");
    assert_eq!(status(&bob), 200);
}

#[test]
fn a_file_that_cannot_be_used_at_start_is_one_line() {
    let serve = |path: &Path| {
        run(&["serve", "--listen", "127.0.0.1:0", "--log-level", "error", "--api-keys-file", &path.to_string_lossy()])
    };
    assert_one_line(&serve(Path::new("/nowhere/keys")), &["/nowhere/keys", "No such file"]);
    assert_one_line(&serve(Path::new("/")), &["API keys file / ", "not a regular file"]);
    assert_one_line(&serve(Path::new("/dev/zero")), &["not a regular file"]);
    let alice = key("alice");
    let file = keys_file(&[&alice]);
    fs::set_permissions(file.path(), fs::Permissions::from_mode(0o666)).expect("set");
    assert_one_line(&serve(file.path()), &["its mode is 0666", "everyone may write it", "chmod o-w"]);
    fs::set_permissions(file.path(), fs::Permissions::from_mode(0o644)).expect("set");
    fs::write(file.path(), format!("{}\n{}", alice.line, alice.key)).expect("written");
    let ended = serve(file.path());
    assert_one_line(&ended, &["line 2", "64 hex digits"]);
    assert!(!ended.2.contains(&alice.key), "{}", ended.2);
    fs::write(file.path(), [0xff, 0xfe]).expect("written");
    assert_one_line(&serve(file.path()), &["UTF-8"]);
    fs::write(file.path(), vec![b'#'; (1 << 20) + 1]).expect("written");
    assert_one_line(&serve(file.path()), &["larger than 1048576 bytes"]);
}

#[tokio::test]
async fn the_key_command_makes_a_valid_key() {
    let (code, line, shown) = run(&["key", "alice", "--cap", "9", "--weight", "2"]);
    assert_eq!(code, Some(0));
    let key = shown.lines().last().expect("the key");
    assert!(
        !line.contains(key) && line.starts_with("alice:") && line.trim_end().ends_with(":max_in_flight=9:weight=2"),
        "{line}"
    );
    let file = NamedTempFile::new().expect("a file");
    fs::write(file.path(), &line).expect("written");
    let app = guarded(vec![Fake::instant()], file.path()).await;
    let response = app.post("/v1/score").bearer_auth(key).body(picture()).send().await.expect("an answer");
    assert_eq!(response.status(), 200);

    let (_, second, _) = run(&["key", "alice"]);
    assert_ne!(line.split(':').nth(1), second.trim_end().split(':').nth(1), "all keys differ");
    assert_one_line(&run(&["key", "two words"]), &["two words", "a name is"]);
}

#[test]
fn the_admin_address_has_only_probes_and_metrics() {
    let file = keys_file(&[&key("alice")]);
    let path = file.path().to_string_lossy();
    let mut server = Server::start(&[
        "--api-keys-file",
        &path,
        "--admin-listen",
        "127.0.0.1:0",
        "--sessions",
        "1",
        "--log-level",
        "info",
    ]);
    let mut log = server.log().lines().map(|line| serde_json::from_str::<Value>(&line.expect("UTF-8")).expect("JSON"));
    let ready = log.find(|line| line["message"] == "ready").expect("the line");
    let admin = ready["admin_address"].as_str().expect("an address");
    assert_ne!(format!("http://{admin}"), server.url);
    let client = reqwest::blocking::Client::new();
    for path in ["/livez", "/readyz", "/startupz", "/metrics"] {
        let status = |base: &str| client.get(format!("{base}{path}")).send().expect("an answer").status();
        assert_eq!(status(&format!("http://{admin}")), 200, "{path}");
        assert_eq!(status(&server.url), if path == "/livez" { 200 } else { 404 }, "{path}");
    }
    let work = client.post(format!("http://{admin}/v1/score")).body(picture()).send().expect("an answer");
    assert_eq!(work.status(), 404);
    let taken = ["serve", "--listen", "127.0.0.1:0", "--log-level", "error", "--admin-listen", admin];
    assert_one_line(&run(&taken), &["cannot listen on", admin]);
}
