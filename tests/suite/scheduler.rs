//! The scheduler on a paused clock, with fake sessions.

use std::{
    num::NonZeroU32,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
        mpsc,
    },
    time::Duration,
};

use bytes::Bytes;
use futures_util::{FutureExt, future::join_all};
use lfm_serve::{
    app,
    config::JudgeConfig,
    error::{Code, Error},
    image::{ImageFacts, Limits, Pixels, Preprocessing, Regions},
    metrics::Metrics,
    model::{Manifest, Output, RunError},
    scheduler::{Assigned, Client, Job, Pool, RegionPlan, Scheduler, SchedulerConfig, Scored, ScoredRegion, Upload},
};
use proptest::prelude::*;
use tokio::{runtime::Builder, task::spawn_blocking, time::Instant};

use crate::{
    fake::{Fake, answer},
    harness::{paused, picture, pool, root},
};

fn config() -> SchedulerConfig {
    SchedulerConfig {
        max_in_flight: 1000,
        max_admitted_bytes: 1 << 30,
        max_queue_delay: Duration::ZERO,
        cpus: 2,
        limits: Limits::default(),
        hash_pixels: false,
        declared: None,
    }
}

fn scheduler(config: SchedulerConfig, sessions: Vec<Fake>) -> Arc<Scheduler> {
    of_pools(config, vec![pool(sessions)])
}

fn of_pools(config: SchedulerConfig, pools: Vec<Pool<Fake>>) -> Arc<Scheduler> {
    let manifest = Manifest::read(&root().join("tests/data/model")).expect("the manifest of the tests");
    let manifests = (0..pools.len()).map(|number| {
        let mut named = manifest.clone();
        named.name = number.to_string();
        Arc::new(named)
    });
    let routes: Vec<_> = (1..pools.len()).map(|number| format!("lossy={number}").parse().expect("a route")).collect();
    let served = app::models(manifests, &JudgeConfig::default(), &routes).expect("models");
    let metrics = Arc::new(Metrics::new(&app::identity(&served), app::series()).expect("metrics"));
    Arc::new(Scheduler::start(config, pools, metrics))
}

fn one(_: usize, _: &ImageFacts, _: &[ScoredRegion]) -> usize {
    1
}

/// Only the centre.
const ONE: RegionPlan<'static> = RegionPlan { assign: &|_| Ok(resized(Regions::One).into()), wanted: &one };

/// To the only model.
fn resized(most: Regions) -> Assigned {
    Assigned { model: 0, preprocessing: Preprocessing::Resize, most }
}

/// The same on the second of two models.
const SECOND: RegionPlan<'static> =
    RegionPlan { assign: &|_| Ok(Assigned { model: 1, ..resized(Regions::One) }.into()), wanted: &one };

/// A job as a request makes it.
fn job(scheduler: &Scheduler, bytes: Vec<u8>, patience: Duration) -> Result<Job<Upload>, Error> {
    job_of(&Client::LOCAL, scheduler, bytes, patience)
}

fn job_of(client: &Client, scheduler: &Scheduler, bytes: Vec<u8>, patience: Duration) -> Result<Job<Upload>, Error> {
    let permit = Arc::new(scheduler.admit_image(client)?);
    let held = Arc::new(scheduler.admit_bytes(bytes.len() as u64)?);
    let payload = Upload { bytes: Bytes::from(bytes), held };
    Ok(Job::new(payload, Instant::now() + patience, permit))
}

async fn score(scheduler: &Scheduler, patience: Duration) -> Result<Scored, Error> {
    score_for(&Client::LOCAL, scheduler, patience).await
}

async fn score_for(client: &Client, scheduler: &Scheduler, patience: Duration) -> Result<Scored, Error> {
    scheduler.score(job_of(client, scheduler, picture(), patience)?, ONE).await
}

fn client(name: &str) -> Client {
    Client::key(name, NonZeroU32::MIN)
}

/// A one-pixel image whose logit under the fake is its grey value.
fn grey(value: u8) -> Vec<u8> {
    let mut file = Vec::new();
    let mut encoder = png::Encoder::new(&mut file, 1, 1);
    encoder.set_color(png::ColorType::Rgb);
    encoder.write_header().and_then(|mut writer| writer.write_image_data(&[value; 3])).expect("a PNG");
    file
}

/// Waits until the model has received `images`, without advancing the paused clock.
async fn running(model: &Fake, images: usize) {
    while model.images.load(SeqCst) < images {
        tokio::task::yield_now().await;
    }
}

const LONG: Duration = Duration::from_secs(600);

#[test]
fn an_expired_image_is_answered_at_its_deadline_and_never_run() {
    paused().block_on(async {
        let model = Fake::slow(1, Duration::from_secs(10));
        let scheduler = scheduler(config(), vec![model.clone()]);
        let began = Instant::now();
        let (busy, late) = tokio::join!(score(&scheduler, LONG), async {
            // The first image holds the only session.
            running(&model, 1).await;
            let ended = score(&scheduler, Duration::from_secs(3)).await;
            (ended, began.elapsed())
        });
        assert!(busy.is_ok());
        assert_eq!(late.0.expect_err("it is late").code, Code::DeadlineExceeded);
        assert!(late.1 >= Duration::from_secs(3) && late.1 < Duration::from_millis(3100), "{:?}", late.1);
        assert_eq!(model.images.load(SeqCst), 1);
    });
}

#[test]
fn several_models_share_the_cpus_whatever_the_traffic() {
    let takes = |images: [usize; 2]| {
        paused().block_on(async {
            let at_once = Arc::new(AtomicUsize::new(0));
            let model = {
                let at_once = Arc::clone(&at_once);
                Fake::new(1, move |batch: Vec<Pixels>| {
                    let at_once = Arc::clone(&at_once);
                    async move {
                        // As many as there are CPUs.
                        assert!(at_once.fetch_add(1, SeqCst) < 2);
                        tokio::time::sleep(Duration::from_secs(1)).await;
                        at_once.fetch_sub(1, SeqCst);
                        Ok(batch.iter().map(answer).collect())
                    }
                })
            };
            let pools = [(); 2].map(|()| pool(vec![model.clone(), model.clone()])).into();
            let scheduler = of_pools(config(), pools);
            let began = Instant::now();
            let plans = [(ONE, images[0]), (SECOND, images[1])];
            let plans = plans.into_iter().flat_map(|(plan, images)| vec![plan; images]);
            let scored =
                join_all(plans.map(async |plan| scheduler.score(job(&scheduler, picture(), LONG)?, plan).await));
            assert!(scored.await.iter().all(Result::is_ok));
            began.elapsed().as_secs()
        })
    };
    assert_eq!([takes([8, 0]), takes([0, 8]), takes([4, 4]), takes([1, 7])], [4; 4]);
}

#[test]
fn waiting_images_are_split_among_free_sessions() {
    paused().block_on(async {
        let model = Fake::slow(8, Duration::from_secs(1));
        let scheduler = scheduler(config(), vec![model.clone(), model.clone()]);
        let began = Instant::now();
        let answers = join_all((0..2).map(|_| score(&scheduler, LONG))).await;
        assert!(answers.iter().all(Result::is_ok));
        // On one session each they run at the same time: one second, not two.
        assert!(began.elapsed() < Duration::from_millis(1500), "{:?}", began.elapsed());
    });
}

#[test]
fn a_batch_is_no_larger_than_its_tightest_deadline_allows() {
    paused().block_on(async {
        // One image takes 1 s, four take 4 s.
        let mut model = Fake::new(4, async |batch: Vec<_>| {
            tokio::time::sleep(Duration::from_secs(batch.len() as u64)).await;
            Ok(batch.iter().map(answer).collect())
        });
        model.costs = (1..=4).map(Duration::from_secs).collect();
        let scheduler = scheduler(config(), vec![model.clone()]);
        let holding = score(&scheduler, LONG);
        let others = async {
            running(&model, 1).await;
            // They wait for the first second; the second image then has 2.5 s left, so it runs with one
            // other image, not with three.
            let patience = [LONG, Duration::from_millis(3500), LONG, LONG];
            join_all(patience.map(|patience| score(&scheduler, patience))).await
        };
        let (first, others) = tokio::join!(holding, others);
        assert!(first.is_ok());
        let inference: Vec<_> =
            others.iter().map(|scored| scored.as_ref().expect("in time").timings.inference).collect();
        assert_eq!(inference.iter().map(Duration::as_secs).collect::<Vec<_>>(), [2, 2, 2, 2]);
    });
}

#[test]
fn without_a_queue_delay_a_free_session_takes_all_waiting_images() {
    paused().block_on(async {
        let model = Fake::slow(8, Duration::from_secs(1));
        let scheduler = scheduler(config(), vec![model]);
        let scored = score(&scheduler, LONG).await.expect("a score");
        assert_eq!(scored.timings.queue, Duration::ZERO);
    });
}

#[test]
fn with_a_queue_delay_a_free_session_waits_only_for_images_being_decoded() {
    // One thread for decodes, which the test holds until all images wait in the line.
    let runtime = Builder::new_current_thread().enable_all().start_paused(true).max_blocking_threads(1).build();
    runtime.expect("a runtime").block_on(async {
        let model = Fake::slow(8, Duration::from_secs(1));
        let delay = Duration::from_secs(5);
        let scheduler = scheduler(SchedulerConfig { max_queue_delay: delay, ..config() }, vec![model.clone()]);
        // No other image is being decoded: no waiting, whatever the delay.
        let alone = score(&scheduler, LONG).await.expect("a score");
        assert_eq!(alone.timings.queue, Duration::ZERO);
        // Four arrive together, two decoders: all of them run in one batch.
        let (go_on, held) = mpsc::channel();
        let holding = spawn_blocking(move || held.recv());
        let began = Instant::now();
        let mut answers = Box::pin(join_all((0..4).map(|_| score(&scheduler, LONG))));
        assert!(answers.as_mut().now_or_never().is_none());
        go_on.send(()).expect("the thread waits");
        assert!(answers.await.iter().all(Result::is_ok));
        assert_eq!(began.elapsed().as_secs(), 1, "one run for all four");
        holding.await.expect("no panic").expect("a word");
    });
}

#[test]
fn a_standing_queue_sheds_until_it_drains() {
    paused().block_on(async {
        let model = Fake::slow(1, Duration::from_millis(100));
        let scheduler = scheduler(config(), vec![model.clone()]);
        // Forty at once are a burst of 4 s: all are admitted; later ones, while the queue stands, are not.
        // Answered images return their permits.
        let burst = join_all((0..40).map(async |_| score(&scheduler, LONG).await.map(drop)));
        let late = async {
            // In steps: the paused clock could jump to the end of a single long sleep between two decodes.
            while model.images.load(SeqCst) < 26 {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            score(&scheduler, LONG).await
        };
        let (burst, late) = tokio::join!(burst, late);
        assert!(burst.iter().all(Result::is_ok));
        let refused = late.expect_err("the queue stands");
        assert_eq!(refused.code, Code::Overloaded);
        // 15 images are in flight, at 100 ms each.
        assert_eq!(refused.retry_after.map(|wait| wait.as_millis() / 100), Some(15));
        assert!(score(&scheduler, LONG).await.is_ok(), "the queue has moved");
    });
}

#[test]
fn a_disconnecting_client_does_not_affect_its_batch() {
    paused().block_on(async {
        let model = Fake::slow(4, Duration::from_secs(1));
        let scheduler = scheduler(config(), vec![model.clone()]);
        let mates = join_all((0..3).map(|_| score(&scheduler, LONG)));
        let leaving = tokio::time::timeout(Duration::from_millis(500), score(&scheduler, LONG));
        let (mates, left) = tokio::join!(mates, leaving);
        assert!(left.is_err());
        assert!(mates.iter().all(Result::is_ok));
    });
}

#[test]
fn one_poisoned_image_fails_alone() {
    paused().block_on(async {
        let model = Fake::new(4, async |batch: Vec<_>| {
            tokio::time::sleep(Duration::from_millis(10)).await;
            let outputs: Vec<_> = batch.iter().map(answer).collect();
            if outputs.iter().any(|output| output.logit == 66.0) { Err(RunError("poison".into())) } else { Ok(outputs) }
        });
        let scheduler = scheduler(config(), vec![model.clone()]);
        let images = [1, 2, 66, 3, 4, 5].map(|value| {
            let job = job(&scheduler, grey(value), LONG).expect("admitted");
            let scheduler = &scheduler;
            async move { scheduler.score(job, ONE).await.map(|scored| scored.regions[0].output.logit) }
        });
        let logits = join_all(images).await;
        let codes: Vec<_> = logits.into_iter().map(|logit| logit.map_err(|error| error.code)).collect();
        assert_eq!(codes, [Ok(1.0), Ok(2.0), Err(Code::InferenceFailed), Ok(3.0), Ok(4.0), Ok(5.0)]);
        while model.rebuilt.load(SeqCst) == 0 {
            tokio::task::yield_now().await;
        }
    });
}

#[test]
fn an_image_without_a_finite_logit_fails_alone_and_its_session_stays() {
    paused().block_on(async {
        let model = Fake::new(4, async |batch: Vec<_>| {
            tokio::time::sleep(Duration::from_millis(10)).await;
            let outputs = batch.iter().map(answer).map(|output| match output.logit {
                66.0 => Output { logit: f32::NAN, ..output },
                77.0 => Output { logit: f32::INFINITY, ..output },
                _ => output,
            });
            Ok(outputs.collect())
        });
        let scheduler = scheduler(config(), vec![model.clone()]);
        let images = [1, 66, 2, 77, 3].map(|value| {
            let job = job(&scheduler, grey(value), LONG).expect("admitted");
            let scheduler = &scheduler;
            async move { scheduler.score(job, ONE).await.map(|scored| scored.regions[0].output.logit) }
        });
        let logits = join_all(images).await;
        let codes: Vec<_> = logits.into_iter().map(|logit| logit.map_err(|error| error.code)).collect();
        let failed = Err(Code::InferenceFailed);
        assert_eq!(codes, [Ok(1.0), failed, Ok(2.0), failed, Ok(3.0)]);
        assert_eq!((model.images.load(SeqCst), model.rebuilt.load(SeqCst)), (5, 0));
    });
}

#[test]
fn a_run_that_hangs_is_noticed() {
    paused().block_on(async {
        let (model, gate) = Fake::gated();
        let scheduler = scheduler(config(), vec![model.clone()]);
        let limit = Duration::from_secs(60);
        let (ended, ()) = tokio::join!(score(&scheduler, LONG), async {
            running(&model, 1).await;
            assert!(!scheduler.is_stuck(limit));
            tokio::time::sleep(limit + Duration::from_secs(1)).await;
            assert!(scheduler.is_stuck(limit));
            gate.add_permits(1);
        });
        assert!(ended.is_ok());
        assert!(!scheduler.is_stuck(limit));
    });
}

/// Latency of a client that sends one image after another, beside a client with many waiting.
#[test]
fn a_client_with_many_images_does_not_hold_up_one_with_few() {
    paused().block_on(async {
        let model = Fake::slow(1, Duration::from_millis(100));
        let scheduler = scheduler(config(), vec![model]);
        let many = client("many");
        let crowd = join_all((0..40).map(|_| score_for(&many, &scheduler, LONG)));
        let few = async {
            let mut waits = Vec::new();
            for _ in 0..10 {
                let began = Instant::now();
                score_for(&client("few"), &scheduler, LONG).await.expect("a score");
                waits.push(began.elapsed());
            }
            waits
        };
        let (crowd, waits) = tokio::join!(crowd, few);
        assert!(crowd.iter().all(Result::is_ok));
        // One run of the other client and its own, on average; with equal clocks, one more of the other.
        assert!(waits.iter().all(|wait| *wait <= Duration::from_millis(305)), "{waits:?}");
        assert!(waits.iter().sum::<Duration>() <= Duration::from_millis(10 * 200 + 105), "{waits:?}");
    });
}

#[test]
fn a_weight_is_a_share() {
    paused().block_on(async {
        let model = Fake::slow(1, Duration::from_millis(10));
        let scheduler = scheduler(config(), vec![model.clone()]);
        let answered = async |client: Client| {
            let mut ends = join_all((0..60).map(async |_| {
                score_for(&client, &scheduler, LONG).await.expect("a score");
                Instant::now()
            }))
            .await;
            ends.sort();
            ends
        };
        let three = NonZeroU32::new(3).expect("not zero");
        let (one, three) = tokio::join!(answered(client("one")), answered(Client::key("three", three)));
        // When the heavy client has all its 60, the light one has a third of them.
        let then = one.iter().filter(|end| **end <= three[59]).count();
        assert!((18..=22).contains(&then), "{then}");
    });
}

#[test]
fn a_standing_queue_sheds_the_client_that_caused_it() {
    paused().block_on(async {
        let model = Fake::slow(1, Duration::from_millis(100));
        let scheduler = scheduler(config(), vec![model.clone()]);
        let many = client("many");
        let crowd = join_all((0..40).map(|_| score_for(&many, &scheduler, LONG)));
        let later = async {
            while model.images.load(SeqCst) < 26 {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            (score_for(&many, &scheduler, LONG).await, score_for(&client("few"), &scheduler, LONG).await)
        };
        let (_, (culprit, victim)) = tokio::join!(crowd, later);
        assert_eq!(culprit.expect_err("its queue stands").code, Code::Overloaded);
        assert!(victim.is_ok());
    });
}

#[test]
fn one_client_cannot_take_every_permit() {
    paused().block_on(async {
        let scheduler = scheduler(SchedulerConfig { max_in_flight: 64, ..config() }, vec![Fake::instant()]);
        let (many, few) = (client("many"), client("few"));
        let taken: Vec<_> = std::iter::from_fn(|| scheduler.admit_image(&many).ok()).collect();
        assert_eq!(taken.len(), 60);
        let kept: Vec<_> = std::iter::from_fn(|| scheduler.admit_image(&few).ok()).collect();
        assert_eq!(kept.len(), 4);
        drop(taken);
        assert!(scheduler.admit_image(&many).is_ok());
    });
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    /// Random arrivals, deadlines and disconnects: every remaining image is answered once, and at the end nothing
    /// is held.
    #[test]
    fn no_image_is_lost(
        sessions in 1..4usize,
        batch in 1..6usize,
        images in prop::collection::vec((0..500u64, 1..400u64, any::<bool>()), 1..40),
    ) {
        paused().block_on(async {
            let model = Fake::slow(batch, Duration::from_millis(50));
            let scheduler = scheduler(config(), vec![model.clone(); sessions]);
            let callers = images.into_iter().map(|(arrival, patience, leaves)| {
                let scheduler = Arc::clone(&scheduler);
                async move {
                    tokio::time::sleep(Duration::from_millis(arrival)).await;
                    let patience = Duration::from_millis(patience);
                    if leaves {
                        let _ = tokio::time::timeout(patience / 2, score(&scheduler, patience)).await;
                        return None;
                    }
                    let began = Instant::now();
                    let ended = score(&scheduler, patience).await;
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
            scheduler.stop().await;
            // All permits are returned: a client can acquire as many as at the start.
            let all = (0..1000).map_while(|_| scheduler.admit_image(&Client::LOCAL).ok());
            assert_eq!(all.collect::<Vec<_>>().len(), 1000 - 1000 / 16);
        });
    }
}
