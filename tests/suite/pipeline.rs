//! The pipeline on a paused clock, with fakes for sessions.

use std::{
    sync::{Arc, atomic::Ordering::SeqCst},
    time::Duration,
};

use bytes::Bytes;
use futures_util::future::join_all;
use lfm_serve::{
    error::{Code, Error},
    http::routes,
    image::{Limits, Preprocessing},
    metrics::{Identity, Metrics},
    model::Manifest,
    pipeline::{Job, Pipeline, PipelineConfig, Scored, Timings, Upload},
};
use proptest::prelude::*;
use tokio::time::Instant;

use crate::{
    fake::Fake,
    harness::{paused, picture, root},
};

fn pipeline(models: Vec<Fake>) -> Arc<Pipeline> {
    let manifest = Manifest::read(&root().join("models")).expect("the bundled manifest");
    let identity = Identity { manifest: &manifest, provider: "fake", ort_version: "none" };
    let metrics = Arc::new(Metrics::new(&identity, routes::series()).expect("metrics"));
    let config = PipelineConfig {
        max_in_flight: 1000,
        max_admitted_bytes: 1 << 30,
        decode_threads: 2,
        limits: Limits::default(),
        preprocessing: Preprocessing::Resize,
        hash_pixels: false,
    };
    let rebuild = models[0].rebuild();
    Arc::new(Pipeline::start(config, models, rebuild, metrics))
}

async fn score(pipeline: &Pipeline, patience: Duration) -> Result<Scored, Error> {
    let bytes = Bytes::from(picture());
    let share = pipeline.admit_image()?;
    let held = Arc::new(pipeline.admit_bytes(bytes.len() as u64)?);
    let deadline = Instant::now() + patience;
    pipeline.score(Job { payload: Upload { bytes, held }, deadline, share, timings: Timings::default() }).await
}

const LONG: Duration = Duration::from_secs(600);

#[test]
fn an_expired_image_is_answered_at_its_deadline_and_never_run() {
    paused().block_on(async {
        let model = Fake::slow(1, Duration::from_secs(10));
        let pipeline = pipeline(vec![model.clone()]);
        let began = Instant::now();
        let (busy, late) = tokio::join!(score(&pipeline, LONG), async {
            // The first image holds the only session.
            while model.images.load(SeqCst) == 0 {
                tokio::task::yield_now().await;
            }
            let ended = score(&pipeline, Duration::from_secs(3)).await;
            (ended, began.elapsed())
        });
        assert!(busy.is_ok());
        assert_eq!(late.0.expect_err("it is late").code, Code::DeadlineExceeded);
        assert!(late.1 >= Duration::from_secs(3) && late.1 < Duration::from_millis(3100), "{:?}", late.1);
        assert_eq!(model.images.load(SeqCst), 1);
    });
}

#[test]
fn what_waits_is_shared_among_free_sessions() {
    paused().block_on(async {
        let model = Fake::slow(8, Duration::from_secs(1));
        let pipeline = pipeline(vec![model.clone(), model.clone()]);
        let began = Instant::now();
        let answers = join_all((0..2).map(|_| score(&pipeline, LONG))).await;
        assert!(answers.iter().all(Result::is_ok));
        // On one session each they run at the same time: one second, not two.
        assert!(began.elapsed() < Duration::from_millis(1500), "{:?}", began.elapsed());
    });
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    /// Random arrivals, deadlines and departures: every image that stays is answered once, and at the end
    /// nothing is held.
    #[test]
    fn no_image_is_lost(
        sessions in 1..4usize,
        batch in 1..6usize,
        images in prop::collection::vec((0..500u64, 1..400u64, any::<bool>()), 1..40),
    ) {
        paused().block_on(async {
            let model = Fake::slow(batch, Duration::from_millis(50));
            let pipeline = pipeline(vec![model.clone(); sessions]);
            let callers = images.into_iter().map(|(arrival, patience, leaves)| {
                let pipeline = Arc::clone(&pipeline);
                async move {
                    tokio::time::sleep(Duration::from_millis(arrival)).await;
                    let patience = Duration::from_millis(patience);
                    if leaves {
                        let _ = tokio::time::timeout(patience / 2, score(&pipeline, patience)).await;
                        return None;
                    }
                    let began = Instant::now();
                    let ended = score(&pipeline, patience).await;
                    Some((ended, began.elapsed(), patience))
                }
            });
            for (ended, took, patience) in join_all(callers).await.into_iter().flatten() {
                match ended {
                    Ok(_) => assert!(took <= patience),
                    Err(error) => {
                        assert_eq!(error.code, Code::DeadlineExceeded);
                        assert!(took < patience + Duration::from_millis(5), "answered {took:?} after {patience:?}");
                    }
                }
            }
            pipeline.stop().await;
            // All shares are back: the whole budget can be taken again.
            let all: Vec<_> = (0..1000).map(|_| pipeline.admit_image()).collect();
            assert!(all.iter().all(Result::is_ok));
        });
    }
}
