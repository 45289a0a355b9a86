//! Properties of the line, with test workers on a paused clock.

use std::{cell::RefCell, num::NonZeroU32, rc::Rc};

use futures_util::future::join_all;
use proptest::prelude::*;
use tokio::task::LocalSet;

use super::*;
use crate::{
    app,
    config::JudgeConfig,
    model::{Linear, Manifest},
};

const MS: Duration = Duration::from_millis(1);
const LONG: Duration = Duration::from_secs(600);

fn line(models: usize, cpus: usize, runs_take_cpu: bool, memory: DecodeMemory) -> Arc<Line> {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/model");
    let manifest = Manifest::read(&folder).expect("the bundled manifest");
    let served = app::models([manifest.into()], &JudgeConfig::default(), &[]).expect("a model");
    let metrics = Arc::new(Metrics::new(&app::identity(&served), []).expect("metrics"));
    let runs_take_cpu = vec![runs_take_cpu; models];
    let bounds = Bounds { cpus, runs_take_cpu, memory, images: 10_000, delay: Duration::ZERO };
    Line::new(bounds, metrics)
}

fn paused<T>(test: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build();
    runtime.expect("a runtime").block_on(LocalSet::new().run_until(test))
}

/// Pixels that encode the image's number.
fn pixels(id: usize) -> Pixels {
    let mut data = vec![0; Pixels::LEN];
    data[..4].copy_from_slice(&u32::try_from(id).expect("small").to_le_bytes());
    Pixels::new(data).expect("of the right length")
}

fn id(pixels: &Pixels) -> f32 {
    u32::from_le_bytes(pixels.as_bytes()[..4].try_into().expect("four bytes")) as f32
}

fn output(logit: f32) -> Output {
    Output { logit, topk_values: Box::default(), topk_indices: Box::default(), linear: Arc::new(Linear::default()) }
}

/// One interval of work for a client.
#[derive(Debug, Clone, Copy)]
struct Served {
    client: usize,
    from: Instant,
    to: Instant,
    /// Images that shared the run.
    among: u32,
}

#[derive(Debug, Clone)]
struct Image {
    client: usize,
    model: usize,
    arrives: Duration,
    /// Time of the decode, and the error of its estimate.
    decode: Duration,
    estimate: f64,
    run: Duration,
    fails: bool,
    patience: Duration,
    leaves: bool,
}

/// A session that runs each batch for as long as its slowest image takes.
async fn session(line: Arc<Line>, model: usize, images: Rc<Vec<Image>>, served: Rc<RefCell<Vec<Served>>>, most: usize) {
    let costs = vec![10 * MS; most];
    let _up = line.join(model, costs.first().copied());
    while let Some(mut batch) = line.next_batch(model, &costs).await {
        let jobs = std::mem::take(&mut batch.jobs);
        let of = |run: &WaitingRun| &images[id(&run.job.payload) as usize];
        assert!(jobs.iter().all(|run| of(run).model == model), "another model's image");
        let takes = jobs.iter().map(|run| of(run).run).max().expect("no batch is empty");
        tokio::time::sleep(takes).await;
        batch.went_well = !jobs.iter().any(|run| of(run).fails);
        for run in jobs {
            let image = of(&run).clone();
            let among = u32::try_from(batch.clients.len()).expect("few");
            let (from, to) = (batch.started, Instant::now());
            served.borrow_mut().push(Served { client: image.client, from, to, among });
            let logit = id(&run.job.payload);
            run.answer(if image.fails { Err(Error::inference_failed()) } else { Ok(output(logit)) }, batch.started);
        }
    }
}

/// An image's caller: waits for its decode, then for its run.
async fn call(
    line: &Arc<Line>,
    client: &Client,
    number: usize,
    image: &Image,
    served: &RefCell<Vec<Served>>,
) -> Result<f32, Error> {
    let permit = Arc::new(line.admit(client)?);
    let deadline = Instant::now() + image.patience;
    let demand = Demand { cost: image.decode.mul_f64(image.estimate), memory: 1 };
    let mut turn = line.decode(&permit, deadline, demand).await?;
    let mut left = image.decode;
    while !left.is_zero() {
        let step = left.min(MS);
        let from = Instant::now();
        tokio::time::sleep(step).await;
        served.borrow_mut().push(Served { client: image.client, from, to: Instant::now(), among: 1 });
        left -= step;
        if let Some(go_on) = turn.give_way() {
            turn.resume(go_on.await.expect("nobody withdraws it"));
        }
    }
    let job = Job::new(pixels(number), deadline, permit);
    line.run(image.model, job, Some(turn)).await.map(|job| job.payload.logit)
}

/// Time of the work within a window.
fn within(served: &[Served], from: Instant, to: Instant) -> Duration {
    let part = |served: &Served| served.to.min(to).saturating_duration_since(served.from.max(from)) / served.among;
    served.iter().map(part).sum()
}

fn images(clients: usize) -> impl Strategy<Value = Vec<Image>> {
    let image =
        ((0..clients, 0..2usize), 0..2000u64, prop_oneof![9 => 0..30u64, 1 => 100..400u64], 0.8..1.2f64, 5..25u64);
    let ends =
        (prop::bool::weighted(0.03), prop_oneof![5 => Just(600_000u64), 1 => 1..3000u64], prop::bool::weighted(0.1));
    let image =
        (image, ends).prop_map(|(((client, model), arrives, decode, estimate, run), (fails, patience, leaves))| {
            Image {
                client,
                model,
                arrives: arrives as u32 * MS,
                decode: decode as u32 * MS,
                estimate,
                run: run as u32 * MS,
                fails,
                patience: patience as u32 * MS,
                leaves,
            }
        });
    prop::collection::vec(image, 1..300)
}

/// What all images of one client have in common.
#[derive(Debug, Clone)]
struct Habits {
    weight: u32,
    /// How much longer its decodes take than others'.
    work: u32,
    /// Its estimates, as a multiple of the time: whoever is charged what it promised would gain or lose by it.
    estimate: f64,
}

fn habits() -> impl Strategy<Value = Vec<Habits>> {
    let one =
        (prop_oneof![1..4u32, Just(6)], prop_oneof![Just(1), Just(6)], prop_oneof![Just(0.2), Just(1.0), Just(4.0)]);
    let one = one.prop_map(|(weight, work, estimate)| Habits { weight, work, estimate });
    prop::collection::vec(one, 1..5)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Random arrivals, models, costs, wrong estimates, deadlines, disconnects and failures: no image is lost, answered
    /// twice or run by another model, nothing is held at the end, and no waiting client gets less than half its fair share in any second.
    #[test]
    fn every_image_is_answered_once_and_every_client_gets_its_share(
        models in 1..3usize,
        cpus in 1..4usize,
        most in 1..4usize,
        habits in habits(),
        runs_take_cpu in prop::bool::weighted(0.8),
        images in images(4),
    ) {
        let clients = habits.len();
        let weights: Vec<_> = habits.iter().map(|habits| habits.weight).collect();
        let images: Vec<_> = images
            .into_iter()
            .map(|image| {
                let client = image.client % clients;
                let Habits { work, estimate, .. } = habits[client];
                Image { client, model: image.model % models, decode: image.decode * work, estimate: image.estimate * estimate, ..image }
            })
            .collect();
        paused(async move {
            let line = line(models, cpus, runs_take_cpu, DecodeMemory::new(1_000_000));
            let began = Instant::now();
            let served = Rc::new(RefCell::new(Vec::new()));
            let images = Rc::new(images);
            let of = |client: usize| {
                Client::key(format!("client {client}"), NonZeroU32::new(weights[client]).expect("above 0"))
            };
            let sessions: Vec<_> = (0..cpus * models)
                .map(|number| {
                    let (line, images, served) = (Arc::clone(&line), Rc::clone(&images), Rc::clone(&served));
                    tokio::task::spawn_local(session(line, number % models, images, served, most))
                })
                .collect();
            // Which clients have work that waits, every 10 ms.
            let waits = Rc::new(RefCell::new(Vec::new()));
            let sampler = {
                let (line, waits) = (Arc::clone(&line), Rc::clone(&waits));
                let ids: Vec<_> = (0..clients).map(|client| of(client).id).collect();
                tokio::task::spawn_local(async move {
                    loop {
                        let waiting: Vec<_> = ids.iter().map(|id| line.lock().waits(id)).collect();
                        waits.borrow_mut().push((Instant::now(), waiting));
                        tokio::time::sleep(10 * MS).await;
                    }
                })
            };
            let answers = join_all(images.iter().enumerate().map(async |(number, image)| {
                tokio::time::sleep_until(began + image.arrives).await;
                let (came, client) = (Instant::now(), of(image.client));
                let patience = if image.leaves { image.patience.min(500 * MS) / 2 } else { image.patience };
                let ended = tokio::time::timeout(patience, call(&line, &client, number, image, &served)).await;
                (ended, came.elapsed(), patience)
            }));
            for (number, (ended, took, patience)) in answers.await.into_iter().enumerate() {
                let image = &images[number];
                match ended {
                    // It disconnected, or its deadline passed.
                    Err(_) => assert!(took >= patience),
                    Ok(Ok(logit)) => assert!(logit == number as f32 && !image.fails, "another's answer"),
                    Ok(Err(error)) => match error.code {
                        Code::InferenceFailed => assert!(image.fails),
                        // It could not be decoded in time.
                        Code::DeadlineExceeded => assert!(!image.patience.is_zero() && image.patience < LONG),
                        code => assert_eq!(code, Code::Overloaded),
                    },
                }
            }
            sampler.abort();
            line.close();
            for session in sessions {
                session.await.expect("no panic");
            }
            line.lock().assert_nothing_is_held();
            let runs: std::collections::BTreeSet<_> =
                served.borrow().iter().map(|served| (served.from, served.client, served.to)).collect();
            assert!(!runs.is_empty() || images.iter().all(|image| image.patience < LONG || image.leaves));

            let (served, waits) = (served.borrow(), waits.borrow());
            let total: u32 = weights.iter().sum();
            for window in waits.windows(101).step_by(10) {
                let (from, to) = (window[0].0, window[100].0);
                let all = within(&served, from, to);
                for client in 0..clients {
                    if window.iter().all(|(_, waiting)| waiting[client]) {
                        let own: Vec<_> = served.iter().copied().filter(|served| served.client == client).collect();
                        let share = all * weights[client] / total;
                        let own = within(&own, from, to);
                        // Give or take a slice.
                        assert!((own + 10 * MS) * 2 >= share.min(to - from), "client {client} of {weights:?} got {own:?} of {all:?}");
                    }
                }
            }
        });
    }
}

/// A decode that holds its turn until it is dropped.
async fn held(line: &Arc<Line>, client: &str, memory: u64) -> Turn {
    let client = Client::key(client, NonZeroU32::MIN);
    let permit = Box::leak(Box::new(line.admit(&client).expect("admitted")));
    let demand = Demand { cost: MS, memory };
    line.decode(permit, Instant::now() + LONG, demand).await.expect("its turn")
}

#[test]
fn memory_is_waited_for_in_order_and_small_images_pass_large_ones() {
    paused(async {
        // 12 MB for large images, 1.5 MB more for small ones.
        let line = line(1, 8, true, DecodeMemory::new(1_000_000));
        let first = held(&line, "a", 10_000_000).await;
        let mut large = Box::pin(held(&line, "b", 8_000_000));
        let mut next = Box::pin(held(&line, "c", 3_000_000));
        assert!(futures_util::poll!(&mut large).is_pending());
        assert!(futures_util::poll!(&mut next).is_pending(), "it would fit, but an earlier one waits");
        let small = held(&line, "d", 50_000).await;
        assert_eq!(line.metrics.decode_bytes.get(), 10_050_000);
        drop(first);
        let (large, next) = tokio::join!(large, next);
        drop((large, next, small));
        assert_eq!(line.metrics.decode_bytes.get(), 0);
    });
}

#[test]
fn an_image_that_needs_more_memory_than_there_is_is_refused() {
    paused(async {
        let line = line(1, 1, true, DecodeMemory::new(1_000_000));
        let permit = line.admit(&Client::LOCAL).expect("admitted");
        let demand = Demand { cost: MS, memory: 12_000_001 };
        let refused = line.decode(&permit, Instant::now() + LONG, demand).await.expect_err("too much");
        assert_eq!(refused.code, Code::ImageTooLarge);
        assert!(refused.detail.contains("12 MiB of memory, more than the limit of 11 MiB"), "{}", refused.detail);
    });
}

#[test]
fn a_decode_that_cannot_end_in_time_does_not_begin() {
    paused(async {
        let line = line(1, 1, true, DecodeMemory::new(1_000_000));
        let permit = line.admit(&Client::LOCAL).expect("admitted");
        let demand = Demand { cost: Duration::from_millis(3800), memory: 1 };
        let refused = line.decode(&permit, Instant::now() + 500 * MS, demand).await.expect_err("too slow");
        assert_eq!(refused.code, Code::DeadlineExceeded);
        assert!(refused.detail.contains("3.8 s"), "{}", refused.detail);
    });
}

#[test]
fn a_long_decode_gives_way_and_goes_on() {
    paused(async {
        let line = line(1, 1, true, DecodeMemory::new(1_000_000));
        let mut long = held(&line, "a", 1).await;
        tokio::time::sleep(20 * MS).await;
        assert!(long.give_way().is_none(), "nobody waits");
        let mut short = Box::pin(held(&line, "b", 1));
        assert!(futures_util::poll!(&mut short).is_pending());
        assert!(long.give_way().is_none(), "its slice has just begun");
        tokio::time::sleep(20 * MS).await;
        let go_on = long.give_way().expect("another client waits");
        drop(short.await);
        long.resume(go_on.await.expect("a CPU"));
        assert_eq!(long.paused, Duration::ZERO, "the other took no time");
        drop(long);
    });
}

#[test]
fn retry_after_counts_what_waits_to_be_decoded() {
    paused(async {
        let line = line(1, 1, true, DecodeMemory::new(1_000_000));
        let _held = held(&line, "a", 1).await;
        assert_eq!(line.retry_after(), Duration::from_secs(1));
        let permit = line.admit(&Client::LOCAL).expect("admitted");
        let demand = Demand { cost: Duration::from_secs(7), memory: 1 };
        let mut waiting = Box::pin(line.decode(&permit, Instant::now() + LONG, demand));
        assert!(futures_util::poll!(&mut waiting).is_pending());
        assert_eq!(line.retry_after().as_secs(), 7);
        drop(waiting);
        assert_eq!(line.retry_after().as_secs(), 1);
    });
}

/// Of two models, one of which takes a hundred times as long, and of images that both judge.
#[test]
fn retry_after_counts_what_images_take_on_their_own_models() {
    paused(async {
        let line = line(2, 1, true, DecodeMemory::new(1_000_000));
        let _up = [(0, 100 * MS), (1, 10_000 * MS)].map(|(model, cost)| line.join(model, Some(cost)));
        let to = |models: &[usize]| {
            let permit = line.admit(&Client::LOCAL).expect("admitted");
            line.assign(&permit, models.iter().copied());
            permit
        };
        let mut permits: Vec<_> = (0..20).map(|_| to(&[0])).collect();
        assert_eq!(line.retry_after().as_secs(), 2);
        permits.push(to(&[1]));
        assert_eq!(line.retry_after().as_secs(), 12);
        permits.push(to(&[0, 1]));
        assert_eq!(line.retry_after().as_millis(), 22_100);
        drop(permits);
        assert_eq!(line.retry_after().as_secs(), 1);
    });
}
