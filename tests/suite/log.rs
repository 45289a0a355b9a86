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
    assert_eq!(post("good").header("traceparent", trace).body(picture()).send().expect("an answer").status(), 200);
    let line = next();
    for (field, value) in [
        ("request_id", json!("good")),
        ("trace_id", json!(TRACE)),
        ("route", json!("/v1/score")),
        ("method", json!("POST")),
        ("status", json!(200)),
        ("outcome", json!("scored")),
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
