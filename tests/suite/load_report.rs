//! The ORCA load report, which a load balancer requests.

use reqwest::Response;
use serde_json::Value;

use crate::{
    fake::Fake,
    harness::{TestApp, picture},
};

async fn asked(app: &TestApp, format: &str, body: Vec<u8>) -> Response {
    let request = app.post("/v1/score").header("endpoint-load-metrics-format", format);
    request.body(body).send().await.expect("an answer")
}

fn report(response: &Response) -> Option<&str> {
    response.headers().get("endpoint-load-metrics").map(|value| value.to_str().expect("ASCII"))
}

#[tokio::test]
async fn it_reports_the_images_per_session() {
    let (model, gate) = Fake::gated();
    let app = TestApp::start(vec![model.clone(), model], &[]).await;
    // Two run, one waits.
    let busy: Vec<_> = (0..3).map(|_| tokio::spawn(app.post("/v1/score").body(picture()).send())).collect();
    while app.metric("lfm_queue_images").await < 1.0 {
        tokio::task::yield_now().await;
    }
    // A failed request has it too, and need not wait.
    let fails = asked(&app, "text", b"no image".to_vec()).await;
    assert_eq!(fails.status(), 415);
    assert_eq!(
        report(&fails),
        Some("TEXT application_utilization=2.000,rps_fractional=0.000,named_metrics.queue_images=1")
    );
    let fails = asked(&app, "json", b"no image".to_vec()).await;
    let json: Value =
        serde_json::from_str(report(&fails).and_then(|text| text.strip_prefix("JSON ")).expect("JSON")).expect("JSON");
    assert_eq!(json["application_utilization"], 2.0);
    assert_eq!(json["named_metrics"]["queue_images"], 1);
    gate.add_permits(3);
    for request in busy {
        assert_eq!(request.await.expect("no panic").expect("an answer").status(), 200);
    }
}

#[tokio::test]
async fn it_is_sent_only_on_request() {
    let app = TestApp::start(vec![Fake::instant()], &[]).await;
    assert_eq!(report(&app.score(picture()).await), None);
    assert_eq!(report(&asked(&app, "binary", picture()).await), None);
    let told = asked(&app, "text", picture()).await;
    assert!(report(&told).is_some_and(|text| text.starts_with("TEXT application_utilization=1.000,")));
}
