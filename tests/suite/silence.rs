//! Clients that say nothing, stop in the middle or take nothing: each connection has an end, and costs little until then.

use std::time::Duration;

use reqwest::Client;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{Instant, timeout},
};

use crate::{
    fake::Fake,
    harness::{PATIENCE, Server, TestApp},
};

/// Sends `request`, reads until what it answers contains `until`, lets the clock run, and returns how long the server then
/// held the connection.
async fn held(app: &TestApp, request: &[u8], until: &str) -> Duration {
    let mut socket = TcpStream::connect(app.address).await.expect("a connection");
    socket.write_all(request).await.expect("sent");
    let mut answer = Vec::new();
    while !String::from_utf8_lossy(&answer).contains(until) {
        assert_ne!(socket.read_buf(&mut answer).await.expect("an answer"), 0, "closed before {until}");
    }
    tokio::time::pause();
    let began = Instant::now();
    // The end may be a reset.
    let _ = timeout(PATIENCE * 10, socket.read_to_end(&mut answer)).await.expect("the connection is closed");
    tokio::time::resume();
    began.elapsed()
}

async fn closed(app: &TestApp, reason: &str) -> f64 {
    app.metric(&format!("lfm_connections_closed_total{{reason=\"{reason}\"}}")).await
}

#[tokio::test]
async fn a_connection_that_says_nothing_is_closed() {
    let app = TestApp::start(vec![Fake::instant()], &[]).await;
    let held = held(&app, b"", "").await;
    assert!((25..=35).contains(&held.as_secs()), "{held:?}");
    assert_eq!(closed(&app, "first_byte_timeout").await, 1.0);
}

#[tokio::test]
async fn a_head_that_does_not_end_is_closed() {
    let app = TestApp::start(vec![Fake::instant()], &[]).await;
    let held = held(&app, b"GET /livez HTTP/1.1\r\nhost: x\r\nx-a", "").await;
    assert!((10..=20).contains(&held.as_secs()), "{held:?}");
    assert_eq!(closed(&app, "head_timeout").await, 1.0);
}

#[tokio::test]
async fn a_connection_that_asks_nothing_more_is_closed_later_than_load_balancers_do_it() {
    let app = TestApp::start(vec![Fake::instant()], &[]).await;
    let held = held(&app, b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n", "\r\n\r\n").await;
    assert!((61..=90).contains(&held.as_secs()), "{held:?}");
    assert_eq!(closed(&app, "idle_timeout").await, 1.0);
}

// ---- HTTP/2 with a window of zero ----

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const END_STREAM_AND_HEADERS: u8 = 5;

/// Streams that a connection may have at once.
const STREAMS: u32 = 256;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = (payload.len() as u32).to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// A connection that asks for the API document on every stream it may have, and takes none: the answers' heads have come
/// when this returns.
async fn ask_and_take_nothing(address: &str) -> TcpStream {
    let mut socket = TcpStream::connect(address).await.expect("a connection");
    // SETTINGS_INITIAL_WINDOW_SIZE (4) is 0.
    let mut asking = [PREFACE, &frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0])].concat();
    // HPACK: GET, http, then `:path` and `:authority` as literals.
    let path = b"/openapi.json";
    let head = [&[0x82, 0x86, 0x04, path.len() as u8][..], path, &[0x01, 1, b'x']].concat();
    (0..STREAMS).for_each(|i| asking.extend(frame(HEADERS, END_STREAM_AND_HEADERS, 2 * i + 1, &head)));
    socket.write_all(&asking).await.expect("sent");
    let mut heads = 0;
    while heads < STREAMS {
        let mut start = [0; 9];
        socket.read_exact(&mut start).await.expect("a frame");
        let length = u32::from_be_bytes([0, start[0], start[1], start[2]]);
        let mut payload = vec![0; length as usize];
        socket.read_exact(&mut payload).await.expect("a frame");
        heads += u32::from(start[3] == HEADERS);
    }
    socket
}

#[tokio::test]
async fn answers_that_nobody_takes_cost_little() {
    let server = Server::start(&["--sessions", "1"]);
    let address = server.url.trim_start_matches("http://");
    let first = ask_and_take_nothing(address).await;
    let document = reqwest::get(format!("{}/openapi.json", server.url)).await.expect("an answer");
    let document = document.bytes().await.expect("a body").len() as u64;
    let before = server.resident_bytes();
    let mut connections = vec![first];
    for _ in 0..31 {
        connections.push(ask_and_take_nothing(address).await);
    }
    let (grown, all) = (server.resident_bytes().saturating_sub(before), document * 31 * u64::from(STREAMS));
    // A stream has its own state, of some kilobytes.
    assert!(grown < all / 4 && grown < 128 << 20, "{grown} bytes for answers of {all}");
    let alive = Client::new().get(format!("{}/livez", server.url)).send().await.expect("an answer");
    assert_eq!(alive.status(), 200);
}

#[tokio::test]
async fn a_client_that_takes_no_answer_is_closed() {
    let app = TestApp::start(vec![Fake::instant()], &[]).await;
    let mut socket = ask_and_take_nothing(&app.address.to_string()).await;
    tokio::time::pause();
    let _ = timeout(PATIENCE * 10, socket.read_to_end(&mut Vec::new())).await.expect("the connection is closed");
    tokio::time::resume();
    assert_eq!(closed(&app, "write_timeout").await, 1.0);
}
