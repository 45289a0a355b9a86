//! Probes, metrics, OpenAPI, and the phases from start to stop.

use std::collections::BTreeSet;

use lfm_serve::{
    app::{routes, series},
    error::Code,
};
use serde_json::{Value, json};

use crate::{
    fake::Fake,
    harness::{Server, TestApp, assert_problem, picture, pool},
};

#[tokio::test]
async fn before_the_model_is_loaded_only_liveness_passes() {
    let app = TestApp::starting(&[]).await;
    assert_eq!(app.get("/livez").await.status(), 200);
    assert_problem(app.get("/readyz").await, 503, "not_ready").await;
    assert_problem(app.get("/startupz").await, 503, "not_ready").await;
    assert_problem(app.score(picture()).await, 503, "not_ready").await;
    let model = Fake::instant();
    app.app.start(vec![pool(vec![model.clone()])]);
    for probe in ["/livez", "/startupz"] {
        assert_eq!(app.get(probe).await.status(), 200, "{probe}");
    }
    while app.get("/readyz").await.status() != 200 {
        tokio::task::yield_now().await;
    }
    let ready: Value = app.get("/readyz").await.json().await.expect("JSON");
    assert_eq!(ready["model"]["digest"], app.app.state.models.first().manifest.digest);
    assert_eq!(app.score(picture()).await.status(), 200);
}

#[tokio::test]
async fn probes_answer_while_every_session_is_busy() {
    let (model, _gate) = Fake::gated();
    let app = TestApp::start(vec![model], &["--max-in-flight", "1"]).await;
    let busy = tokio::spawn(app.post("/v1/score").body(picture()).send());
    while app.metric("lfm_images_in_flight").await < 1.0 {
        tokio::task::yield_now().await;
    }
    for probe in ["/livez", "/readyz", "/startupz", "/metrics"] {
        assert_eq!(app.get(probe).await.status(), 200, "{probe}");
    }
    busy.abort();
}

#[tokio::test]
async fn while_draining_work_is_served_and_readiness_is_off() {
    let mut app = TestApp::start(vec![Fake::instant()], &["--drain-delay", "1h", "--drain-timeout", "2h"]).await;
    assert!(app.score(picture()).await.headers().get("connection").is_none());
    app.begin_stop();
    while app.get("/readyz").await.status() == 200 {
        tokio::task::yield_now().await;
    }
    assert_problem(app.get("/readyz").await, 503, "draining").await;
    assert_eq!(app.get("/livez").await.status(), 200);
    let served = app.score(picture()).await;
    assert_eq!(served.status(), 200);
    assert_eq!(served.headers()["connection"], "close");
}

#[tokio::test]
async fn a_stop_finishes_images_in_flight_and_refuses_new_ones() {
    let (model, gate) = Fake::gated();
    let mut app = TestApp::start(vec![model.clone()], &[]).await;
    let accepted = tokio::spawn(app.post("/v1/score").body(picture()).send());
    // Running, not only admitted: the gate's single permit is for this image.
    while model.images.load(std::sync::atomic::Ordering::SeqCst) < 1 {
        tokio::task::yield_now().await;
    }
    app.begin_stop();
    while app.get("/readyz").await.status() == 200 {
        tokio::task::yield_now().await;
    }
    let refused = loop {
        // A request that is still admitted must not wait for the gate.
        let hurried = app.post("/v1/score").header("x-request-timeout-ms", "50").body(picture());
        let response = hurried.send().await.expect("an answer");
        if response.status() == 503 {
            break response;
        }
        tokio::task::yield_now().await;
    };
    assert!(refused.headers().contains_key("retry-after"));
    assert_problem(refused, 503, "draining").await;
    gate.add_permits(1);
    assert_eq!(accepted.await.expect("no panic").expect("an answer").status(), 200);
    app.stopped().await;
}

#[tokio::test]
async fn a_stop_does_not_wait_for_work_beyond_the_drain_timeout() {
    let (model, _gate) = Fake::gated();
    let app = TestApp::start(vec![model], &["--drain-timeout", "100ms"]).await;
    let stuck = tokio::spawn(app.post("/v1/score").body(picture()).send());
    while app.metric("lfm_images_in_flight").await < 1.0 {
        tokio::task::yield_now().await;
    }
    app.stopped().await;
    stuck.abort();
}

#[tokio::test]
async fn metrics_have_every_series_from_the_start() {
    let app = TestApp::start(vec![Fake::instant()], &[]).await;
    let text = app.get("/metrics").await.text().await.expect("text");
    for (route, method, statuses) in series() {
        for status in statuses {
            let series =
                format!("lfm_http_requests_total{{method=\"{method}\",route=\"{route}\",status=\"{status}\"}} 0");
            assert!(text.contains(&series), "{series} is missing");
        }
    }
    for code in Code::ALL {
        assert!(text.contains(&format!("lfm_errors_total{{code=\"{}\"}} 0", code.as_str())), "{code:?}");
    }
    for name in [
        "lfm_build_info",
        "lfm_model_info",
        "lfm_judge_info{",
        "lfm_verdicts_total",
        "lfm_warnings_total",
        "lfm_images_total",
        "lfm_score_bucket",
        "lfm_stage_duration_seconds_bucket",
        "lfm_batch_size_bucket",
        "lfm_batches_total",
        "lfm_queue_images",
        "lfm_images_in_flight",
        "lfm_admitted_bytes",
        "lfm_decode_bytes",
        "lfm_sessions",
        "lfm_execution_provider_available{provider=\"cpu\"}",
        "lfm_score_reference_bucket{class=\"real\",le=\"0.05\"}",
        "lfm_session_busy_seconds_total",
        "lfm_log_lines_dropped_total",
        "lfm_connections_closed_total{reason=\"evicted\"}",
        "process_resident_memory_bytes",
    ] {
        assert!(text.lines().any(|line| line.starts_with(name)), "{name} is missing");
    }
}

#[tokio::test]
async fn an_operators_threshold_is_shown_and_decides() {
    let app = TestApp::start(vec![Fake::instant()], &["--threshold", "0.9", "--regions", "5"]).await;
    let model: Value = app.get("/v1/model").await.json().await.expect("JSON");
    assert_eq!((&model["threshold"], &model["operating_point"]), (&json!(0.9), &Value::Null));
    let series = r#"lfm_judge_info{false_alarms="",misses="",regions="5",threshold="0.9"}"#;
    assert_eq!(app.metric(series).await, 1.0);
    let answer: Value = app.score(picture()).await.json().await.expect("JSON");
    assert_eq!(answer["threshold"], 0.9);
}

#[test]
fn an_operating_point_is_shown() {
    let server = Server::start(&["--sessions", "1", "--operating-point", "false_alarms=0.02,misses=0.2"]);
    let get = |path: &str| reqwest::blocking::get(format!("{}{path}", server.url)).expect("an answer");
    let model: Value = get("/v1/model").json().expect("JSON");
    assert_eq!(model["operating_point"], json!({"false_alarms": 0.02, "misses": 0.2}));
    let metrics = get("/metrics").text().expect("text");
    let series = r#"lfm_judge_info{false_alarms="0.02",misses="0.2",regions="auto",threshold=""} 1"#;
    assert!(metrics.lines().any(|line| line == series), "{metrics}");
}

#[tokio::test]
async fn requests_are_counted_by_route_template() {
    let app = TestApp::start(vec![Fake::instant()], &[]).await;
    app.score(picture()).await;
    app.score("no image").await;
    app.get("/no/such/place").await;
    app.get("/nor/this").await;
    let count = async |route: &str, method: &str, status: u16| {
        app.metric(&format!("lfm_http_requests_total{{method=\"{method}\",route=\"{route}\",status=\"{status}\"}}"))
            .await
    };
    assert_eq!(count("/v1/score", "POST", 200).await, 1.0);
    assert_eq!(count("/v1/score", "POST", 415).await, 1.0);
    assert_eq!(count("unmatched", "GET", 404).await, 2.0);
    assert_eq!(app.metric("lfm_errors_total{code=\"not_found\"}").await, 2.0);
    assert_eq!(app.metric("lfm_stage_duration_seconds_count{stage=\"decode\"}").await, 1.0);
    assert_eq!(app.metric("lfm_score_count").await, 1.0);
    assert_eq!(app.metric("lfm_batches_total{reason=\"idle\"}").await, 1.0);
}

#[tokio::test]
async fn the_openapi_document_lists_every_route_with_every_status() {
    let app = TestApp::start(vec![Fake::instant()], &[]).await;
    let document: Value = app.get("/openapi.json").await.json().await.expect("JSON");
    assert_eq!(document["openapi"], "3.1.0");
    for route in routes().filter(|route| !is_described_elsewhere(route.path)) {
        let responses = &document["paths"][route.path][route.method.to_lowercase()]["responses"];
        let listed: BTreeSet<u16> = responses
            .as_object()
            .unwrap_or_else(|| panic!("{} is missing", route.path))
            .keys()
            .filter_map(|key| key.parse().ok())
            .collect();
        let statuses: BTreeSet<u16> = route.statuses(&lfm_serve::server::ProblemJson).into_iter().collect();
        assert_eq!(listed, statuses, "{}", route.path);
    }
}

/// The HTML pages, and the Open Inference Protocol, which has its own specification.
fn is_described_elsewhere(path: &str) -> bool {
    ["/", "/docs", "/errors", "/assets/{file}"].contains(&path) || path.starts_with("/v2")
}
