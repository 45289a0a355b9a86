//! Incidents: a hostile client, log reader or proxy, after which the service must continue. Named by what happened.

use std::{
    fs::File,
    io::{BufRead, Write as _},
    net::Ipv4Addr,
    time::Duration,
};

use flate2::{Compression, write::GzEncoder};
use lfm_serve::{keys::NewKey, model::Manifest};
use reqwest::{Client, Method};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use crate::{
    fake::Fake,
    harness::{PATIENCE, Server, TestApp, assert_problem, picture, root, run},
};

const INFER: &str = "/v2/models/lfm/infer";

async fn app(flags: &[&str]) -> TestApp {
    TestApp::start(vec![Fake::instant()], flags).await
}

async fn connect(app: &TestApp) -> TcpStream {
    TcpStream::connect(app.address).await.expect("a connection")
}

/// Everything the server sends until it closes the connection.
async fn to_the_end(socket: &mut TcpStream) -> String {
    let mut answer = Vec::new();
    // The end may be a reset.
    let _ = timeout(PATIENCE * 10, socket.read_to_end(&mut answer)).await.expect("the connection is closed");
    String::from_utf8_lossy(&answer).into_owned()
}

async fn exchange(app: &TestApp, request: &[u8]) -> String {
    let mut socket = connect(app).await;
    socket.write_all(request).await.expect("sent");
    to_the_end(&mut socket).await
}

async fn closed(app: &TestApp, reason: &str) -> f64 {
    app.metric(&format!("lfm_connections_closed_total{{reason=\"{reason}\"}}")).await
}

async fn until_closed(app: &TestApp, reason: &str, count: f64) {
    while closed(app, reason).await < count {
        tokio::task::yield_now().await;
    }
}

fn gzip(data: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(data).expect("in memory");
    encoder.finish().expect("in memory")
}

// ---- the log ----

fn ask(server: &Server, times: usize) {
    let client = reqwest::blocking::Client::new();
    for _ in 0..times {
        assert_eq!(client.get(format!("{}/v2", server.url)).send().expect("an answer").status(), 200);
    }
}

#[test]
fn nobody_read_the_log_and_every_request_was_answered() {
    let mut server = Server::start(&["--sessions", "1", "--log-level", "info", "--log-format", "json"]);
    let mut log = server.log();
    // More lines than a pipe and the queue hold.
    ask(&server, 9500);
    let metrics = reqwest::blocking::get(format!("{}/metrics", server.url)).expect("an answer").text().expect("text");
    let dropped = metrics.lines().find_map(|line| line.strip_prefix("lfm_log_lines_dropped_total "));
    let dropped: f64 = dropped.expect("the counter").parse().expect("a number");
    assert!(dropped > 0.0, "{dropped}");
    // A reader that resumes gets a report of the loss.
    let mut line = String::new();
    while !line.contains("log lines were dropped") {
        line.clear();
        assert!(log.read_line(&mut line).expect("UTF-8") > 0);
    }
    let line: Value = serde_json::from_str(&line).expect("JSON");
    assert!(line["lines"].as_f64().expect("a number") >= dropped, "{line}");
    // And one that does not resume does not block the end of the process.
    ask(&server, 600);
    assert!(server.terminate().0.success());
}

#[test]
fn the_logs_reader_was_gone_and_the_service_drained_normally() {
    let mut server = Server::start(&["--sessions", "1", "--log-level", "info"]);
    drop(server.log());
    ask(&server, 600);
    assert!(server.terminate().0.success());
}

#[test]
fn the_service_started_on_a_full_disk_and_without_standard_error() {
    let full = File::options().write(true).open("/dev/full").expect("/dev/full");
    let gone = {
        let (reader, writer) = std::io::pipe().expect("a pipe");
        drop(reader);
        writer
    };
    for stderr in [std::process::Stdio::from(full), gone.into()] {
        let server = Server::start_logging_to(stderr, &["--sessions", "1", "--log-level", "info"]);
        ask(&server, 100);
        assert!(server.terminate().0.success());
    }
    // A closed descriptor must not become a socket.
    let url = Server::start_by("exec 0<&- 2>&-; exec \"$@\"", &["--sessions", "1", "--log-level", "info"]);
    ask(&url, 100);
    assert!(url.terminate().0.success());
}

// ---- connections ----

#[tokio::test]
async fn silent_connections_reached_the_limit_and_were_closed_for_new_ones() {
    let app = app(&["--max-connections", "20"]).await;
    let mut silent = Vec::new();
    for _ in 0..100 {
        silent.push(connect(&app).await);
        assert_eq!(app.get("/livez").await.status(), 200);
    }
    assert_eq!(app.score(picture()).await.status(), 200);
    assert!(closed(&app, "evicted").await >= 80.0);
    assert_eq!(closed(&app, "refused").await, 0.0);
}

#[tokio::test]
async fn busy_connections_reached_the_limit_and_the_probes_still_answered() {
    let (model, gate) = Fake::gated();
    let app = TestApp::start(vec![model], &["--max-connections", "3"]).await;
    let busy: Vec<_> = (0..3).map(|_| tokio::spawn(app.post("/v1/score").body(picture()).send())).collect();
    // Not over HTTP: another connection would affect those that are counted.
    while app.app.state.metrics.images_in_flight.get() < 3 {
        tokio::task::yield_now().await;
    }
    assert_eq!(app.get("/livez").await.status(), 200);
    assert_problem(app.get("/openapi.json").await, 429, "overloaded").await;
    gate.add_permits(3);
    for request in busy {
        assert_eq!(request.await.expect("no panic").expect("an answer").status(), 200);
    }
}

#[tokio::test]
async fn a_client_sent_requests_without_reading_and_was_closed() {
    let app = app(&[]).await;
    let mut socket = connect(&app).await;
    let asking = b"GET /openapi.json HTTP/1.1\r\nhost: x\r\n\r\n".repeat(100);
    // Until the server stops reading, because it cannot write.
    while timeout(Duration::from_millis(300), socket.write_all(&asking)).await.is_ok_and(|sent| sent.is_ok()) {}
    tokio::time::pause();
    tokio::time::sleep(Duration::from_secs(120)).await;
    tokio::time::resume();
    until_closed(&app, "write_timeout", 1.0).await;
}

#[tokio::test]
async fn an_endless_or_malformed_head_was_refused_and_counted() {
    let app = app(&[]).await;
    let endless = [b"GET /livez HTTP/1.1\r\nhost: x\r\nx: ".as_slice(), &[b'a'; 100_000]].concat();
    assert!(exchange(&app, &endless).await.starts_with("HTTP/1.1 431 "));
    assert!(exchange(&app, b"GET /livez HTTP/9.9\r\n\r\n").await.starts_with("HTTP/1.1 "));
    assert!(exchange(&app, b"G\x01T / HTTP/1.1\r\n\r\n").await.starts_with("HTTP/1.1 400 "));
    until_closed(&app, "head_too_large", 1.0).await;
    until_closed(&app, "bad_head", 2.0).await;
}

#[tokio::test]
async fn a_proxy_and_the_service_read_one_request_in_two_ways() {
    let app = app(&[]).await;
    for head in [
        "GET /livez HTTP/1.1\r\n\r\n",
        "GET /livez HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n",
        "POST /v1/score HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        "POST /v1/score HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    ] {
        let answer = exchange(&app, head.as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 400 "), "{head}\n{answer}");
        assert!(answer.to_ascii_lowercase().contains("connection: close"), "{head}\n{answer}");
    }
    let old = exchange(&app, b"GET /livez HTTP/1.0\r\n\r\n").await;
    assert!(old.starts_with("HTTP/1.0 200 "), "{old}");
}

// ---- bodies ----

#[tokio::test]
async fn bodies_were_announced_and_never_sent_and_others_were_served() {
    let app = app(&["--max-admitted-bytes", "64MiB"]).await;
    let head = b"POST /v1/score HTTP/1.1\r\nhost: x\r\ncontent-length: 33554432\r\n\r\n";
    let mut announced = Vec::new();
    for _ in 0..16 {
        let mut socket = connect(&app).await;
        socket.write_all(head).await.expect("sent");
        announced.push(socket);
    }
    while app.metric("lfm_images_in_flight").await < 16.0 {
        tokio::task::yield_now().await;
    }
    assert_eq!(app.metric("lfm_admitted_bytes").await, 0.0);
    for _ in 0..10 {
        assert_eq!(app.score(picture()).await.status(), 200);
    }
}

#[tokio::test]
async fn an_upload_stalled_and_was_cut_off_before_the_body_timeout() {
    let app = app(&["--body-timeout", "1h", "--request-timeout", "2h"]).await;
    let mut socket = connect(&app).await;
    let head = b"POST /v1/score HTTP/1.1\r\nhost: x\r\ncontent-length: 100000\r\n\r\n0123456789";
    socket.write_all(head).await.expect("sent");
    while app.metric("lfm_images_in_flight").await < 1.0 {
        tokio::task::yield_now().await;
    }
    tokio::time::pause();
    let before = tokio::time::Instant::now();
    let answer = to_the_end(&mut socket).await;
    assert!(before.elapsed() < Duration::from_secs(60), "{:?}", before.elapsed());
    assert!(answer.starts_with("HTTP/1.1 408 ") && answer.contains("more slowly than 1024 bytes"), "{answer}");
}

#[tokio::test]
async fn one_address_filled_its_share_of_bytes_and_another_was_still_admitted() {
    let app = app(&["--max-admitted-bytes", "1MiB", "--max-body-bytes", "1MiB"]).await;
    let mut greedy = connect(&app).await;
    let head = b"POST /v1/score HTTP/1.1\r\nhost: x\r\ncontent-length: 1000000\r\n\r\n";
    greedy.write_all(&[head.as_slice(), &vec![0; 700_000]].concat()).await.expect("sent");
    let answer = to_the_end(&mut greedy).await;
    assert!(answer.starts_with("HTTP/1.1 429 ") && answer.contains("from one address"), "{answer}");
    let other = Client::builder().local_address(std::net::IpAddr::from(Ipv4Addr::new(127, 0, 0, 2)));
    let other = other.build().expect("a client");
    let response = other.post(app.url("/v1/score")).body(picture()).send().await.expect("an answer");
    assert_eq!(response.status(), 200);
}

#[tokio::test]
async fn a_compressed_image_was_judged_and_an_unknown_encoding_named() {
    let app = app(&["--max-body-bytes", "1MiB"]).await;
    let send = async |encoding: &str, body: Vec<u8>| {
        app.post("/v1/score").header("content-encoding", encoding).body(body).send().await.expect("an answer")
    };
    assert_eq!(send("gzip", gzip(&picture())).await.status(), 200);
    assert_problem(send("gzip", gzip(&vec![0; 100 << 20])).await, 413, "body_too_large").await;
    assert_problem(send("gzip", picture()).await, 400, "bad_request").await;
    let detail = assert_problem(send("br", picture()).await, 415, "unsupported_media_type").await;
    assert!(detail.contains("`br`"), "{detail}");
    assert_eq!(app.metric("lfm_admitted_bytes").await, 0.0);
}

// ---- contents ----

#[tokio::test]
async fn a_small_message_claimed_millions_of_elements_and_was_refused_before_it_was_decoded() {
    let app = app(&[]).await;
    let client = Client::builder().http2_prior_knowledge().build().expect("a client");
    // ModelInferRequest: empty `inputs`; one input of empty strings in its typed contents.
    let strings = [0x42, 0].repeat(1 << 20);
    let varint = |number: usize| (0..4).map(move |i| (number >> (7 * i)) as u8 & 0x7f | if i < 3 { 0x80 } else { 0 });
    let contents: Vec<u8> = [0x2a].into_iter().chain(varint(strings.len())).chain(strings).collect();
    let input: Vec<u8> = [0x2a].into_iter().chain(varint(contents.len())).chain(contents).collect();
    for (message, what) in [([0x2a, 0].repeat(12 << 20), "more inputs"), (input, "more strings")] {
        let packed = gzip(&message);
        assert!(packed.len() < 40_000);
        let body = [&[1], &(packed.len() as u32).to_be_bytes()[..], &packed].concat();
        let call = client.post(format!("http://{}/inference.GRPCInferenceService/ModelInfer", app.grpc));
        let call =
            call.header("content-type", "application/grpc").header("te", "trailers").header("grpc-encoding", "gzip");
        let response = call.body(body).send().await.expect("an answer");
        assert_eq!(response.headers()["grpc-status"], "3");
        let message = response.headers()["grpc-message"].to_str().expect("ASCII").replace("%20", " ");
        assert!(message.contains(what), "{message}");
    }
    assert_eq!(app.metric("lfm_admitted_bytes").await, 0.0);
}

#[tokio::test]
async fn a_small_json_body_claimed_millions_of_elements_and_was_refused_while_parsing() {
    let app = app(&[]).await;
    let input = r#"{"name":"","shape":[],"datatype":""}"#;
    let strings =
        format!(r#"{{"name":"image","shape":[1],"datatype":"BYTES","data":[{}""]}}"#, r#""","#.repeat(1 << 20));
    let parameters = (0..100_000).map(|i| format!(r#""{i}":1"#)).collect::<Vec<_>>().join(",");
    for (body, what) in [
        (format!(r#"{{"inputs":[{}{input}]}}"#, format!("{input},").repeat(300_000)), "more than 16 elements"),
        (format!(r#"{{"inputs":[{strings}]}}"#), "more strings than"),
        (format!(r#"{{"parameters":{{{parameters}}},"inputs":[]}}"#), "more than 64 parameters"),
        (
            format!(r#"{{"parameters":{{"a":{}{}}},"inputs":[]}}"#, "[".repeat(100), "]".repeat(100)),
            "a string, a number",
        ),
        (
            format!(r#"{{"inputs":[{{"name":"x","datatype":"x","shape":[{}1]}}]}}"#, "1,".repeat(1 << 20)),
            "more than 16",
        ),
    ] {
        let request = app.post(INFER).header("content-encoding", "gzip").body(gzip(body.as_bytes()));
        let response = request.send().await.expect("an answer");
        assert_eq!(response.status(), 400);
        let error: Value = response.json().await.expect("JSON");
        assert!(error["error"].as_str().is_some_and(|text| text.contains(what)), "{what}: {error}");
    }
    assert_eq!(app.metric("lfm_admitted_bytes").await, 0.0);
}

#[tokio::test]
async fn an_answer_repeated_what_a_client_sent_and_was_cut() {
    let app = app(&[]).await;
    let long = "x".repeat(100_000);
    let input = |name: &str, datatype: &str| json!({"name": name, "shape": [1], "datatype": datatype, "data": [1]});
    let bodies = [
        json!({"inputs": [input(&long, "UINT8")]}),
        json!({"inputs": [input("image", &long)]}),
        json!({"inputs": [input("image", "BYTES")], "outputs": [{"name": long}]}),
        json!({"inputs": [input("\u{1b}[31m\nname", "UINT8")]}),
        json!({"id": long, "inputs": [input("image", "BYTES")]}),
    ];
    for body in bodies {
        let text = app.post(INFER).json(&body).send().await.expect("an answer").text().await.expect("text");
        let error: Value = serde_json::from_str(&text).expect("JSON");
        let shown = error["error"].as_str().expect("a text");
        assert!(shown.chars().count() <= 200 && !shown.contains(char::is_control), "{shown}");
    }
    for (name, value) in [("content-type", &long[..20_000]), ("content-encoding", &long[..20_000])] {
        let response = app.post("/v1/score").header(name, value).body(picture()).send().await.expect("an answer");
        let text = response.text().await.expect("text");
        assert!(text.len() < 1000, "{text}");
    }
    let id = app.post(&format!("/v1/score?external_id={}", &long[..201])).body(picture()).send().await;
    assert_problem(id.expect("an answer"), 400, "bad_request").await;
}

// ---- browsers ----

#[tokio::test]
async fn a_foreign_page_reached_the_service_under_its_own_name_and_read_nothing() {
    let app = app(&["--allowed-hosts", "judge.example,127.0.0.1"]).await;
    let ask = async |path: &str, host: &str| {
        app.client.request(Method::GET, app.url(path)).header("host", host).send().await.expect("an answer")
    };
    for path in ["/", "/openapi.json", "/v2", "/assets/page.js"] {
        assert_eq!(ask(path, "judge.example:8080").await.status(), 200, "{path}");
        assert_eq!(ask(path, "JUDGE.example").await.status(), 200, "{path}");
        assert_eq!(ask(path, "evil.example").await.status(), 400, "{path}");
    }
    assert_eq!(ask("/livez", "10.0.0.7").await.status(), 200);
    for path in ["/", "/livez", "/openapi.json", "/metrics", "/nowhere"] {
        assert_eq!(app.get(path).await.headers()["x-content-type-options"], "nosniff", "{path}");
    }
}

// ---- the operator ----

#[test]
fn invalid_settings_were_refused_in_one_line() {
    for (flags, what) in [
        (&["--request-timeout", "0s"][..], "--request-timeout 0"),
        (&["--max-body-bytes", "0"], "--max-body-bytes 0"),
        (&["--max-batch-images", "0"], "--max-batch-images 0"),
        (&["--drain-timeout", "300years"], "--drain-timeout is longer than a day"),
        (&["--max-admitted-bytes", "9EB"], "--max-admitted-bytes is larger than 1 TiB"),
        (&["--max-admitted-bytes", "1MiB"], "--max-admitted-bytes is smaller than --max-body-bytes"),
        (&["--max-queue-delay", "11s"], "--max-queue-delay is not shorter than --request-timeout"),
        (&["--drain-delay", "30s"], "--drain-delay is longer than --drain-timeout"),
        (&["--min-side", "9000"], "--min-side asks for more pixels"),
        (&["--listen", "127.0.0.1:9", "--admin-listen", "127.0.0.1:9"], "are the same address"),
    ] {
        let (code, out, log) = run(&[&["serve"], flags].concat());
        assert_eq!((code, &*out, log.lines().count()), (Some(2), "", 1), "{flags:?}: {log}");
        assert!(log.contains(what), "{flags:?}: {log}");
    }
}

#[test]
fn the_terminal_closed_and_the_service_drained_or_read_its_keys_again() {
    let server = Server::start(&["--sessions", "1"]);
    let (status, log) = server.end("HUP");
    assert!(status.success(), "{log}");

    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("keys");
    let key = NewKey::make("alice", None, None).expect("a key");
    std::fs::write(&file, &key.line).expect("written");
    let mut server =
        Server::start(&["--sessions", "1", "--log-level", "info", "--api-keys-file", &file.to_string_lossy()]);
    let mut log = server.log().lines();
    server.signal("HUP");
    log.find(|line| line.as_ref().expect("UTF-8").contains("the API keys were read again"))
        .expect("a line")
        .expect("UTF-8");
    assert_eq!(reqwest::blocking::get(format!("{}/livez", server.url)).expect("an answer").status(), 200);
    std::thread::spawn(move || log.for_each(drop));
    assert!(server.terminate().0.success());
}

#[test]
fn a_manifest_with_huge_counts_was_refused_and_did_not_stall_the_start() {
    let text = std::fs::read_to_string(root().join("models/manifest.json")).expect("the manifest");
    let manifest: Value = serde_json::from_str(&text).expect("JSON");
    let refused = |change: &dyn Fn(&mut Value)| {
        let folder = tempfile::tempdir().expect("a folder");
        let mut changed = manifest.clone();
        change(&mut changed);
        std::fs::write(folder.path().join("manifest.json"), changed.to_string()).expect("written");
        Manifest::read(folder.path()).expect_err("refused").to_string()
    };
    let huge = refused(&|manifest| manifest["val_score_histogram"]["real"][0] = json!(u32::MAX));
    assert!(huge.contains("pictures, more than 1000000"), "{huge}");
    let short = refused(&|manifest| manifest["val_score_histogram"]["real"] = json!([1]));
    assert!(short.contains("bins"), "{short}");
    let outside = refused(&|manifest| manifest["files"]["../../etc/passwd"] = json!({"sha256": ""}));
    assert!(outside.contains("outside the folder"), "{outside}");
    let long = refused(&|manifest| manifest["name"] = json!("n".repeat(10_000)));
    assert!(long.contains("more than 256"), "{long}");
}
