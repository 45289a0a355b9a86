//! The decode pool: bytes become the pixels that enter the network, on blocking threads, a bounded number
//! at a time.

use std::{cell::RefCell, sync::Arc, time::Duration};

use sha2::{Digest, Sha256};
use tokio::{sync::Semaphore, task::spawn_blocking, time::Instant};

use super::{Budget, Job, SchedulerConfig, Share, Upload, regions::Input};
use crate::{
    error::{Code, Error},
    image::{self, Cancel, Header, ImageFacts, Regions, Scratch, View},
    metrics::Metrics,
};

/// Images of the largest size that are decoded at the same time: at 3 bytes a pixel they are what a decoder
/// can hold in all.
const LARGEST_AT_ONCE: usize = 4;

/// The stage.
#[derive(Debug)]
pub(super) struct DecodePool {
    slots: Arc<Semaphore>,
    pixels: Arc<Budget>,
    config: Arc<SchedulerConfig>,
}

thread_local! {
    /// Buffers of a decode thread, reused from image to image.
    static SCRATCH: RefCell<Scratch> = RefCell::new(Scratch::default());
}

impl DecodePool {
    pub(super) fn new(config: SchedulerConfig, metrics: &Metrics) -> Self {
        let largest_at_once = config.decode_threads.min(LARGEST_AT_ONCE) as u64;
        let most = config.limits.max_pixels.saturating_mul(largest_at_once);
        Self {
            slots: Arc::new(Semaphore::new(config.decode_threads)),
            pixels: Budget::new(most, metrics.decode_pixels_in_flight.clone()),
            config: Arc::new(config),
        }
    }

    /// Decodes one image and cuts its regions, at most `most`. Dropped while it waits, it leaves nothing behind; dropped while it
    /// decodes, the decode ends on its thread and the job's share is given back there.
    pub(super) async fn prepare(
        &self,
        job: Job<Upload>,
        most: Regions,
    ) -> Result<(ImageFacts, Job<Vec<Input>>), Error> {
        let arrived = Instant::now();
        let (config, pixels) = (Arc::clone(&self.config), Arc::clone(&self.pixels));
        self.on_a_slot(job.deadline, move || {
            let began = Instant::now();
            let (facts, input) = decode(&job.payload, most, &config, &pixels)?;
            let mut job = job.map(|_| input);
            job.timings.queue = began - arrived;
            job.timings.decode = began.elapsed();
            job.timings.decode_began = Some(began);
            Ok((facts, job))
        })
        .await
    }

    /// Decodes an image once more, to be looked at, and draws it where it was decoded.
    pub(super) async fn view<T: Send + 'static>(
        &self,
        upload: Upload,
        header: Header,
        regions: Regions,
        longest: u32,
        deadline: Instant,
        draw: impl FnOnce(&View) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let (preprocessing, pixels) = (self.config.preprocessing, Arc::clone(&self.pixels));
        self.on_a_slot(deadline, move || {
            let _pixels = set_aside(&header, &pixels)?;
            let view = SCRATCH.with_borrow_mut(|scratch| {
                image::view(&upload.bytes, &header, preprocessing, regions, longest, scratch, &Cancel::default())
            })?;
            draw(&view)
        })
        .await
    }

    /// Runs `work` on a blocking thread, as one of a bounded number.
    async fn on_a_slot<T: Send + 'static>(
        &self,
        deadline: Instant,
        work: impl FnOnce() -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let slot = Arc::clone(&self.slots).acquire_owned().await;
        let done = spawn_blocking(move || {
            let _slot = slot;
            if deadline <= Instant::now() {
                return Err(Error::deadline_exceeded());
            }
            work()
        });
        done.await.unwrap_or_else(|error| {
            // A decoder that panics takes down its own image and nothing else.
            tracing::error!(%error, "a decoder panicked");
            Err(Error::new(Code::UndecodableImage, "the decoder failed on this image"))
        })
    }
}

/// An image's pixels, taken from the budget before any is decoded.
fn set_aside(header: &Header, budget: &Arc<Budget>) -> Result<Share, Error> {
    Budget::take(budget, header.pixels()).ok_or_else(|| {
        Error::retry(Code::Overloaded, "the server decodes as many pixels as it may hold", Duration::from_secs(1))
    })
}

fn decode(
    upload: &Upload,
    most: Regions,
    config: &SchedulerConfig,
    budget: &Arc<Budget>,
) -> Result<(ImageFacts, Vec<Input>), Error> {
    let bytes = &upload.bytes;
    let header = image::inspect(bytes, &config.limits)?;
    let _pixels = set_aside(&header, budget)?;
    let regions = SCRATCH.with_borrow_mut(|scratch| {
        image::prepare_regions(bytes, &header, config.preprocessing, most, scratch, &Cancel::default())
    })?;
    let first = regions.first().map(|region| &region.pixels);
    let facts = ImageFacts {
        header,
        bytes: bytes.len(),
        sha256: Sha256::digest(bytes).into(),
        rgb256_sha256: first.filter(|_| config.hash_pixels).map(|pixels| Sha256::digest(pixels.as_bytes()).into()),
    };
    let input = |region: image::Region| Input { no_signal: image::no_signal(&region.pixels), region };
    Ok((facts, regions.into_iter().map(input).collect()))
}
