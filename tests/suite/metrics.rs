//! Each image is counted once, under its outcome.

use std::sync::atomic::Ordering::SeqCst;

use lfm_serve::{metrics::Outcome, model::RunError};
use proptest::{
    prelude::*,
    strategy::ValueTree,
    test_runner::{Config, TestRunner},
};

use crate::{
    fake::Fake,
    harness::{TestApp, picture},
};

async fn outcomes(app: &TestApp) -> [f64; 6] {
    let mut counts = [0.0; 6];
    for (count, outcome) in counts.iter_mut().zip(Outcome::ALL) {
        *count = app.metric(&format!("lfm_images_total{{outcome=\"{}\"}}", outcome.as_str())).await;
    }
    counts
}

/// Asserts that only `outcome` was counted, once.
async fn assert_only(app: &TestApp, outcome: Outcome) {
    let expected = Outcome::ALL.map(|other| if other == outcome { 1.0 } else { 0.0 });
    assert_eq!(outcomes(app).await, expected, "{outcome:?}");
}

/// Waits until a condition holds that the server reaches asynchronously.
async fn until(mut holds: impl AsyncFnMut() -> bool) {
    while !holds().await {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn an_image_increments_only_its_own_counter() {
    let app = TestApp::start(vec![Fake::instant()], &[]).await;
    assert_eq!(app.score(picture()).await.status(), 200);
    assert_only(&app, Outcome::Scored).await;

    let app = TestApp::start(vec![Fake::instant()], &[]).await;
    assert_eq!(app.score("no image").await.status(), 415);
    assert_only(&app, Outcome::Rejected).await;

    let app = TestApp::start(vec![Fake::instant()], &["--max-admitted-bytes", "1"]).await;
    assert_eq!(app.score(picture()).await.status(), 429);
    assert_only(&app, Outcome::Shed).await;

    let failing = Fake::new(1, async |_| Err(RunError("scripted failure".into())));
    let app = TestApp::start(vec![failing], &[]).await;
    assert_eq!(app.score(picture()).await.status(), 500);
    assert_only(&app, Outcome::Failed).await;

    let (model, _gate) = Fake::gated();
    let app = TestApp::start(vec![model], &["--request-timeout", "50ms"]).await;
    assert_eq!(app.score(picture()).await.status(), 504);
    assert_only(&app, Outcome::Expired).await;

    let (model, _gate) = Fake::gated();
    let app = TestApp::start(vec![model.clone()], &[]).await;
    let leaving = tokio::spawn(app.post("/v1/score").body(picture()).send());
    until(async || model.images.load(SeqCst) == 1).await;
    leaving.abort();
    until(async || outcomes(&app).await.iter().sum::<f64>() > 0.0).await;
    assert_only(&app, Outcome::Cancelled).await;
}

#[tokio::test]
async fn received_images_equal_outcomes_plus_in_flight_under_random_load() {
    let (model, gate) = Fake::gated();
    let app = TestApp::start(vec![model.clone()], &["--max-in-flight", "8"]).await;
    let mut runner = TestRunner::new(Config::default());
    // Per request: a picture or not, and whether its client disconnects.
    let loads = prop::collection::vec(prop::collection::vec((any::<bool>(), any::<bool>()), 1..16), 8);
    let mut images_in = 0.0;
    for load in loads.new_tree(&mut runner).expect("a load").current() {
        images_in += load.len() as f64;
        let mut sent: Vec<_> = load
            .iter()
            .map(|&(good, leaves)| {
                let body = if good { picture() } else { b"no image".to_vec() };
                (leaves, tokio::spawn(app.post("/v1/score").body(body).send()))
            })
            .collect();
        // Each is refused, or waits behind the gate.
        let settled = async || outcomes(&app).await.iter().sum::<f64>() + app.metric("lfm_images_in_flight").await;
        until(async || settled().await == images_in).await;
        let running = model.images.load(SeqCst);
        sent.iter().filter(|(leaves, _)| *leaves).for_each(|(_, request)| request.abort());
        // A started run is in flight until its end, also without its client: let all of them end.
        gate.add_permits(16);
        for (leaves, request) in &mut sent {
            let answered = request.await;
            assert!(*leaves || answered.is_ok_and(|answer| answer.is_ok()));
        }
        until(async || app.metric("lfm_images_in_flight").await == 0.0).await;
        assert_eq!(settled().await, images_in);
        assert!(model.images.load(SeqCst) >= running);
        gate.forget_permits(usize::MAX >> 3);
    }
}
