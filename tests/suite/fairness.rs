//! Fairness between clients: how HTTP requests are assigned to clients, and protection of clients from each other.

use std::{io::Write, num::NonZeroU32};

use reqwest::Response;
use tempfile::NamedTempFile;
use tokio::task::JoinHandle;

use crate::{
    fake::Fake,
    harness::{TestApp, assert_problem, golden, picture},
};

/// A request of the client at an address behind one proxy.
fn send(app: &TestApp, address: &str) -> JoinHandle<reqwest::Result<Response>> {
    tokio::spawn(app.post("/v1/score").header("x-forwarded-for", address).body(picture()).send())
}

#[tokio::test]
async fn behind_a_trusted_proxy_clients_are_distinguished() {
    let (model, gate) = Fake::gated();
    let app = TestApp::start(vec![model], &["--max-in-flight", "16", "--trusted-proxies", "1"]).await;
    // The first address is forged by the client.
    let crowd: Vec<_> = (0..15).map(|n| send(&app, &format!("203.0.113.{n}, 198.51.100.1"))).collect();
    while app.metric("lfm_images_in_flight").await < 15.0 {
        tokio::task::yield_now().await;
    }
    let more = send(&app, "198.51.100.1").await.expect("no panic").expect("an answer");
    assert_problem(more, 429, "overloaded").await;
    let other = send(&app, "198.51.100.2");
    while app.metric("lfm_images_in_flight").await < 16.0 {
        tokio::task::yield_now().await;
    }
    gate.add_permits(16);
    for request in crowd.into_iter().chain([other]) {
        assert_eq!(request.await.expect("no panic").expect("an answer").status(), 200);
    }
}

#[tokio::test]
async fn without_trusted_proxies_the_connection_identifies_the_client() {
    let (model, gate) = Fake::gated();
    let app = TestApp::start(vec![model], &["--max-in-flight", "16"]).await;
    let crowd: Vec<_> = (0..15).map(|n| send(&app, &format!("198.51.100.{n}"))).collect();
    while app.metric("lfm_images_in_flight").await < 15.0 {
        tokio::task::yield_now().await;
    }
    let other = send(&app, "192.0.2.1").await.expect("no panic").expect("an answer");
    assert_problem(other, 429, "overloaded").await;
    gate.add_permits(15);
    for request in crowd {
        assert_eq!(request.await.expect("no panic").expect("an answer").status(), 200);
    }
}

#[tokio::test]
async fn metrics_name_the_keys_with_the_most_work() {
    let made = lfm_serve::keys::NewKey::make("alice", None, NonZeroU32::new(2)).expect("a key");
    let mut file = NamedTempFile::new().expect("a file");
    writeln!(file, "{}", made.line).expect("written");
    let app = TestApp::start(vec![Fake::instant()], &["--api-keys-file", &file.path().to_string_lossy()]).await;
    let answer = app.post("/v1/score").bearer_auth(&made.key).body(picture()).send().await.expect("an answer");
    assert_eq!(answer.status(), 200);
    assert_eq!(app.metric("lfm_key_work_share{key=\"alice\"}").await, 1.0);
}

/// A progressive arithmetic-coded JPEG of some hundred bytes whose frame claims 8000 x 8000 pixels.
fn expensive() -> Vec<u8> {
    let mut file = golden("variants/c17x33_420_progarith_q30.jpg");
    // SOF10: marker, length, precision, height, width.
    let frame = file.windows(2).position(|bytes| bytes == [0xff, 0xca]).expect("a frame");
    file[frame + 5..frame + 9].copy_from_slice(&[0x1f, 0x40, 0x1f, 0x40]);
    file
}

#[tokio::test]
async fn an_image_that_cannot_be_decoded_in_time_is_refused_before_decoding() {
    let app = TestApp::start(vec![Fake::instant()], &[]).await;
    let request = app.post("/v1/score").header("x-request-timeout-ms", "200").body(expensive());
    let detail = assert_problem(request.send().await.expect("an answer"), 504, "deadline_exceeded").await;
    assert!(detail.contains("decoding is estimated to take"), "{detail}");
    assert_eq!(app.metric("lfm_stage_duration_seconds_count{stage=\"decode\"}").await, 0.0);
}
