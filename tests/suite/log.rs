//! The log of a real server.

use std::{
    io::{BufRead, Write},
    net::TcpStream,
};

use serde_json::{Value, json};

use crate::harness::{Server, picture};

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";

#[test]
fn a_request_is_one_line_with_its_outcome_and_without_its_content() {
    let mut server = Server::start(&["--sessions", "1", "--log-level", "info", "--request-timeout", "5s"]);
    let mut log = server.log().lines().map(|line| serde_json::from_str::<Value>(&line.expect("UTF-8")).expect("JSON"));
    let mut next = || log.find(|line| line["message"] == "request").expect("an access line");
    let client = reqwest::blocking::Client::new();
    let post = |id: &str| {
        let request = client.post(format!("{}/v1/score?external_id=hidden-query", server.url));
        request.header("x-request-id", id).header("user-agent", "hidden-agent").header("x-other", "hidden-header")
    };

    let trace = format!("00-{TRACE}-b7ad6b7169203331-01");
    let answer = post("good").header("traceparent", trace).body(picture()).send().expect("an answer");
    assert_eq!(answer.status(), 200);
    let answered = answer.bytes().expect("a body").len();
    let line = next();
    assert_eq!(line["bytes_out"], answered, "{line}");
    for (field, value) in [
        ("request_id", json!("good")),
        ("trace_id", json!(TRACE)),
        ("route", json!("/v1/score")),
        ("method", json!("POST")),
        ("status", json!(200)),
        ("outcome", json!("scored")),
        ("client", json!("127.0.0.1")),
        ("protocol", json!("HTTP/1.1")),
        ("bytes_in", json!(picture().len())),
    ] {
        assert_eq!(line[field], value, "{line}");
    }
    for stage in ["read_ms", "decode_ms", "queue_ms", "inference_ms", "duration_ms"] {
        assert!(line[stage].as_f64().is_some_and(|time| time >= 0.0), "{stage} in {line}");
    }
    assert!(!line.to_string().contains("hidden"), "{line}");

    for trace in [
        "",
        "00-0-0-0",
        &format!("00-{}-b7ad6b7169203331-01", "0".repeat(32)),
        &format!("ff-{TRACE}-b7ad6b7169203331-01"),
    ] {
        assert_eq!(post("bad").header("traceparent", trace).body("no image").send().expect("an answer").status(), 415);
        let line = next();
        assert_eq!(line["outcome"], "rejected");
        assert_eq!(line["code"], "unsupported_format");
        assert!(line.get("trace_id").is_none(), "{line}");
    }

    // A client that disconnects while sending: its line is the next, so each earlier request had exactly one.
    let mut socket = TcpStream::connect(server.url.trim_start_matches("http://")).expect("a connection");
    socket
        .write_all(b"POST /v1/score HTTP/1.1\r\nhost: x\r\nx-request-id: left\r\ncontent-length: 9\r\n\r\n")
        .expect("sent");
    drop(socket);
    let line = next();
    assert_eq!(line["request_id"], "left", "{line}");
}

#[test]
fn a_line_says_what_the_client_speaks_and_what_passed() {
    let mut server = Server::start(&[
        "--sessions",
        "1",
        "--log-level",
        "info",
        "--grpc-listen",
        "127.0.0.1:0",
        "--trusted-proxies",
        "1",
    ]);
    let mut log = server.log().lines().map(|line| serde_json::from_str::<Value>(&line.expect("UTF-8")).expect("JSON"));
    let ready = log.find(|line| line["message"] == "ready").expect("a line");
    let grpc = format!(
        "http://{}/inference.GRPCInferenceService/ModelMetadata",
        ready["grpc_address"].as_str().expect("text")
    );
    let mut next = || log.find(|line| line["message"] == "request").expect("an access line");
    let http2 = reqwest::blocking::Client::builder().http2_prior_knowledge().build().expect("a client");

    // A page that is compressed or not, a call, an answer to what was not read: the bytes of bodies as they pass.
    let page = http2.get(format!("{}/docs", server.url)).header("x-forwarded-for", "2001:db8::7").send().expect("sent");
    let length = page.bytes().expect("a body").len();
    let line = next();
    assert_eq!((&line["protocol"], &line["client"]), (&json!("HTTP/2"), &json!("2001:db8::/64")), "{line}");
    assert_eq!((&line["bytes_in"], &line["bytes_out"]), (&json!(0), &json!(length)), "{line}");

    let call = http2.post(grpc).header("content-type", "application/grpc").header("te", "trailers").body(vec![0; 5]);
    let length = call.send().expect("sent").bytes().expect("a body").len();
    let line = next();
    assert_eq!((&line["protocol"], &line["bytes_in"]), (&json!("gRPC"), &json!(5)), "{line}");
    assert_eq!(line["bytes_out"], length, "{line}");

    let mut socket = TcpStream::connect(server.url.trim_start_matches("http://")).expect("a connection");
    socket.write_all(b"GET /nowhere HTTP/1.0\r\n\r\n").expect("sent");
    let line = next();
    assert_eq!((&line["protocol"], &line["status"]), (&json!("HTTP/1.0"), &json!(404)), "{line}");
}

/// What a day brings an idle server: a probe every 5 s, a scrape every 15 s.
#[test]
fn a_day_of_probes_and_scrapes_leaves_under_a_hundred_lines() {
    const PROBES: usize = 24 * 3600 / 5;
    const SCRAPES: usize = 24 * 3600 / 15;
    let server = Server::start(&["--sessions", "1", "--log-level", "info"]);
    let client = reqwest::blocking::Client::new();
    let ask = |paths: &[&str], times: usize| {
        for path in paths.iter().cycle().take(times) {
            let answer = client.get(format!("{}{path}", server.url)).send().expect("an answer");
            assert_eq!(answer.status(), 200);
            // The connection is used again once its answer has been read.
            answer.bytes().expect("a body");
        }
    };
    std::thread::scope(|scope| {
        scope.spawn(|| ask(&["/readyz", "/livez", "/startupz", "/v2/health/ready"], PROBES));
        scope.spawn(|| ask(&["/metrics"], SCRAPES));
    });
    let metrics = client.get(format!("{}/metrics", server.url)).send().and_then(|answer| answer.text()).expect("text");
    // A line that nobody read in time would not be a line that was not written.
    assert!(metrics.lines().any(|line| line == "lfm_log_lines_dropped_total 0"), "{metrics}");
    let asked = metrics.lines().filter(|line| line.starts_with("lfm_http_requests_total{"));
    let asked: f64 = asked.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum();
    assert_eq!(asked, (PROBES + SCRAPES) as f64);
    let (ended, log) = server.terminate();
    assert!(ended.success());
    assert!(log.lines().count() < 100, "{} lines:\n{log}", log.lines().count());
}

#[test]
fn sigusr1_turns_debug_on_and_off() {
    let mut server = Server::start(&["--sessions", "1", "--log-level", "info"]);
    let mut log = server.log().lines().map(|line| serde_json::from_str::<Value>(&line.expect("UTF-8")).expect("JSON"));
    for debug in [true, false] {
        server.signal("USR1");
        let line = log.find(|line| line["message"] == "SIGUSR1: log level").expect("a line");
        assert_eq!(line["debug"], debug);
    }
}

#[test]
fn text_is_for_people() {
    let mut server = Server::start(&["--sessions", "1", "--log-level", "info", "--log-format", "text"]);
    // Successful probes and scrapes are not logged at this level.
    for route in ["livez", "metrics", "v2/health/ready", "docs"] {
        assert_eq!(reqwest::blocking::get(format!("{}/{route}", server.url)).expect("an answer").status(), 200);
    }
    let line =
        server.log().lines().map(|line| line.expect("UTF-8")).find(|line| line.contains(" request ")).expect("a line");
    assert!(line.contains("route=\"/docs\"") && line.contains("status=200"), "{line}");
}
