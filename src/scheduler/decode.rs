//! Decode workers: bytes become the pixels that enter the network, on blocking threads, each in its turn.

use std::{cell::RefCell, sync::Arc, time::Duration};

use bytes::Bytes;
use sha2::{Digest, Sha256};
use tokio::{task::spawn_blocking, time::Instant};

use super::{
    Job, Permit, SchedulerConfig, Upload,
    line::{Demand, Line, Turn},
};
use crate::{
    error::{Code, Error},
    image::{self, Header, ImageFacts, Pixels, Preprocessing, Scratch, View},
};

/// Headers of larger files are read on a blocking thread: some are found only after the whole file.
const INSPECT_HERE: usize = 64 << 10;

/// The stage.
#[derive(Debug)]
pub(super) struct Decoders {
    line: Arc<Line>,
    config: Arc<SchedulerConfig>,
}

thread_local! {
    /// Buffers of a decode thread, reused from image to image.
    static SCRATCH: RefCell<Scratch> = RefCell::new(Scratch::default());
}

/// The estimate of what a decode takes.
fn demand(header: &Header) -> Demand {
    let cost = Duration::from_micros(60) + Duration::from_nanos(header.pixels().saturating_mul(5));
    Demand { cost, memory: header.peak_bytes }
}

impl Decoders {
    pub(super) fn new(line: Arc<Line>, config: SchedulerConfig) -> Self {
        Self { line, config: Arc::new(config) }
    }

    /// Decodes and resizes one image; what it was decoded with is passed on, so that the run can have its CPU.
    /// Dropped while it waits, it leaves nothing behind; dropped while it decodes, the decode ends on its thread and
    /// returns its memory and the job's permit there.
    pub(super) async fn prepare(&self, job: Job<Upload>) -> Result<(ImageFacts, Job<Pixels>, Turn), Error> {
        let arrived = Instant::now();
        let config = Arc::clone(&self.config);
        let header = self.inspect(job.payload.bytes.clone()).await?;
        let (permit, deadline) = (Arc::clone(&job.permit), job.deadline);
        let decoded = self.in_turn(&permit, deadline, &header, move |turn| {
            let (facts, input) = decode(&job.payload, header, &config)?;
            let mut job = job.map(|_| input);
            job.timings.queue = (turn.began - arrived) + turn.paused;
            job.timings.decode = turn.began.elapsed() - turn.paused;
            job.timings.decode_began = Some(turn.began);
            Ok((facts, job))
        });
        let ((facts, job), turn) = decoded.await?;
        Ok((facts, job, turn))
    }

    /// How images become the network's input.
    pub(super) fn preprocessing(&self) -> Preprocessing {
        self.config.preprocessing
    }

    /// Decodes an image once more, to be looked at, and draws it where it was decoded.
    pub(super) async fn view<T: Send + 'static>(
        &self,
        permit: &Permit,
        upload: Upload,
        header: Header,
        longest: u32,
        deadline: Instant,
        draw: impl FnOnce(&View) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let preprocessing = self.config.preprocessing;
        let drawn = self.in_turn(permit, deadline, &header, move |_| {
            let view = SCRATCH
                .with_borrow_mut(|scratch| image::view(&upload.bytes, &header, preprocessing, longest, scratch))?;
            draw(&view)
        });
        drawn.await.map(|(drawn, _)| drawn)
    }

    async fn inspect(&self, bytes: Bytes) -> Result<Header, Error> {
        let limits = self.config.limits;
        if bytes.len() <= INSPECT_HERE {
            return Ok(image::inspect(&bytes, &limits)?);
        }
        let inspected = spawn_blocking(move || image::inspect(&bytes, &limits));
        Ok(inspected.await.map_err(|error| panicked(&error))??)
    }

    /// Runs `work` on a blocking thread when its turn comes.
    async fn in_turn<T: Send + 'static>(
        &self,
        permit: &Permit,
        deadline: Instant,
        header: &Header,
        work: impl FnOnce(&mut Turn) -> Result<T, Error> + Send + 'static,
    ) -> Result<(T, Turn), Error> {
        let mut turn = self.line.decode(permit, deadline, demand(header)).await?;
        let done = spawn_blocking(move || work(&mut turn).map(|done| (done, turn)));
        done.await.map_err(|error| panicked(&error))?
    }
}

/// A decoder that panics takes down its own image and nothing else.
fn panicked(error: &tokio::task::JoinError) -> Error {
    tracing::error!(%error, "a decoder panicked");
    Error::new(Code::UndecodableImage, "the decoder failed on this image")
}

fn decode(upload: &Upload, header: Header, config: &SchedulerConfig) -> Result<(ImageFacts, Pixels), Error> {
    let bytes = &upload.bytes;
    let pixels = SCRATCH.with_borrow_mut(|scratch| image::prepare(bytes, &header, config.preprocessing, scratch))?;
    let facts = ImageFacts {
        header,
        bytes: bytes.len(),
        sha256: Sha256::digest(bytes).into(),
        rgb256_sha256: config.hash_pixels.then(|| Sha256::digest(pixels.as_bytes()).into()),
        no_signal: image::no_signal(&pixels),
    };
    Ok((facts, pixels))
}
