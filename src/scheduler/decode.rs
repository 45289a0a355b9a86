//! Decode workers: turn bytes into the network's input pixels, on blocking threads, when the line grants a CPU.

use std::{
    cell::RefCell,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use sha2::{Digest, Sha256};
use tokio::{task::spawn_blocking, time::Instant};

use super::{
    Job, Permit, SchedulerConfig, Scored, Upload,
    line::{Demand, Line, Paused, Turn},
    memory::DecodeMemory,
    regions::{Assigned, Assignment, Input, RegionPlan},
};
use crate::{
    declared::{self, Declared},
    error::{Code, Error},
    image::{self, Cancel, Header, ImageFacts, Preprocessing, Regions, Scratch, View},
};

/// Headers of larger files are read on a blocking thread: some formats need a scan of the whole file.
const INSPECT_HERE: usize = 64 << 10;

/// The decode stage.
#[derive(Debug)]
pub(super) struct Decoders {
    line: Arc<Line>,
    config: Arc<SchedulerConfig>,
}

/// What a decode worker learns of an image, besides its pixels.
pub(super) struct Seen {
    pub(super) assigned: Assignment,
    /// The regions for the models beside the first.
    pub(super) others: Vec<Vec<Input>>,
    pub(super) image: ImageFacts,
    /// What the file says of itself, where that is wanted.
    pub(super) declared: Option<Declared>,
}

thread_local! {
    /// Buffers of a decode thread, reused across images.
    static SCRATCH: RefCell<Scratch> = RefCell::new(Scratch::default());
}

impl Decoders {
    pub(super) fn new(line: Arc<Line>, config: SchedulerConfig) -> Self {
        Self { line, config: Arc::new(config) }
    }

    /// Decodes one image for the models that the plan assigns it to. Also returns the decode's [`Turn`], so that the run
    /// can take over its CPU. Dropping the future stops the decode; its memory and the job's permit are returned once it stops.
    pub(super) async fn prepare(
        &self,
        job: Job<Upload>,
        plan: RegionPlan<'_>,
    ) -> Result<(Seen, Job<Vec<Input>>, Turn), Error> {
        let arrived = Instant::now();
        let config = Arc::clone(&self.config);
        let (header, reading) = self.inspect(job.payload.bytes.clone()).await?;
        let assigned = (plan.assign)(&header)?;
        self.line.assign(&job.permit, assigned.numbers());
        // One after the other.
        let demand = Demand {
            cost: image::cost_for_each(&header, inputs(&assigned)) + reading.cost,
            memory: header.peak_bytes.max(reading.peak_bytes),
        };
        let (permit, deadline) = (Arc::clone(&job.permit), job.deadline);
        let decoded = self.in_turn(&permit, deadline, demand, move |cancel| {
            let (seen, input) = decode(&job.payload, header, assigned, &config, cancel)?;
            Ok((seen, job.map(|_| input)))
        });
        let ((seen, mut job), spent, turn) = decoded.await?;
        job.timings.queue = (turn.began - arrived) + turn.paused;
        job.timings.decode = spent;
        job.timings.decode_began = Some(turn.began);
        Ok((seen, job, turn))
    }

    /// Decodes a scored image again for display and runs `draw` on the same blocking thread.
    pub(super) async fn view<T: Send + 'static>(
        &self,
        scored: &Scored,
        upload: Upload,
        longest: u32,
        deadline: Instant,
        draw: impl FnOnce(&View) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let (header, preprocessing) = (scored.image.header, scored.assigned.first.preprocessing);
        let demand = Demand { cost: header.cost, memory: header.peak_bytes };
        let drawn = self.in_turn(&scored.permit, deadline, demand, move |cancel| {
            let view = SCRATCH.with_borrow_mut(|scratch| {
                image::view(&upload.bytes, &header, preprocessing, Regions::One, longest, scratch, cancel)
            })?;
            draw(&view)
        });
        drawn.await.map(|(drawn, ..)| drawn)
    }

    /// The header, and what reading what the file says of itself takes.
    async fn inspect(&self, bytes: Bytes) -> Result<(Header, declared::Needs), Error> {
        if bytes.len() <= INSPECT_HERE {
            return inspect(&bytes, &self.config);
        }
        let config = Arc::clone(&self.config);
        let inspected = spawn_blocking(move || inspect(&bytes, &config));
        inspected.await.map_err(|error| panicked(&error))?
    }

    /// Runs `work` on a blocking thread once a CPU is granted. Also returns the time it took, without pauses.
    async fn in_turn<T: Send + 'static>(
        &self,
        permit: &Permit,
        deadline: Instant,
        demand: Demand,
        work: impl FnOnce(&Cancel) -> Result<T, Error> + Send + 'static,
    ) -> Result<(T, Duration, Turn), Error> {
        let turn = self.line.decode(permit, deadline, demand).await?;
        let place = turn.place();
        let turn = Arc::new(Mutex::new(Some(turn)));
        let cancel = Cancel::pausing({
            let turn = Arc::clone(&turn);
            move || give_way(&turn)
        });
        let _stop = Stop { line: &self.line, place, cancel: cancel.clone() };
        let done = spawn_blocking(move || {
            let done = work(&cancel);
            // Taken out here because `cancel`, which also holds the turn, outlives this closure: on error the CPU must
            // be returned at once.
            let turn = turn.lock().unwrap_or_else(PoisonError::into_inner).take();
            done.map(|done| (done, turn))
        });
        let (done, turn) = done.await.map_err(|error| panicked(&error))??;
        let turn = turn.ok_or_else(Error::inference_failed)?;
        Ok((done, turn.spent(), turn))
    }
}

/// Yields the CPU to other clients' work between two steps of a decode.
fn give_way(turn: &Mutex<Option<Turn>>) {
    let mut turn = turn.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(turn) = turn.as_mut()
        && let Some(go_on) = turn.give_way()
        // An error means that the caller has disconnected; the decode is then cancelled.
        && let Ok(cpu) = go_on.blocking_recv()
    {
        turn.resume(cpu);
    }
}

/// Stops a decode when its caller disconnects.
struct Stop<'a> {
    line: &'a Arc<Line>,
    place: Paused,
    cancel: Cancel,
}

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.cancel.cancel();
        self.line.forget_paused(&self.place);
    }
}

/// A decoder panic fails its own image only.
fn panicked(error: &tokio::task::JoinError) -> Error {
    tracing::error!(%error, "a decoder panicked");
    Error::new(Code::UndecodableImage, "the decoder failed on this image")
}

fn inspect(bytes: &[u8], config: &SchedulerConfig) -> Result<(Header, declared::Needs), Error> {
    let header = image::inspect(bytes, &config.limits)?;
    if config.declared.is_none() {
        return Ok((header, declared::Needs::default()));
    }
    let needs = declared::needs(bytes, header.format);
    // An image is not refused for what its file says beside it.
    let largest = DecodeMemory::new(config.limits.max_pixels).largest();
    Ok((header, declared::Needs { peak_bytes: needs.peak_bytes.min(largest), ..needs }))
}

fn decode(
    upload: &Upload,
    header: Header,
    assigned: Assignment,
    config: &SchedulerConfig,
    cancel: &Cancel,
) -> Result<(Seen, Vec<Input>), Error> {
    let bytes = &upload.bytes;
    let Assigned { preprocessing, most, .. } = assigned.first;
    let (regions, others) = SCRATCH.with_borrow_mut(|scratch| {
        if assigned.others.is_empty() {
            let regions = image::prepare_regions(bytes, &header, preprocessing, most, scratch, cancel)?;
            return Ok((regions, Vec::new()));
        }
        let inputs: Vec<_> = inputs(&assigned).collect();
        let mut each = image::prepare_for_each(bytes, &header, &inputs, scratch, cancel)?;
        let others = each.split_off(1);
        Ok::<_, Error>((each.pop().unwrap_or_default(), others))
    })?;
    let first = regions.first().map(|region| &region.pixels);
    let image = ImageFacts {
        header,
        bytes: bytes.len(),
        sha256: Sha256::digest(bytes).into(),
        rgb256_sha256: first.filter(|_| config.hash_pixels).map(|pixels| Sha256::digest(pixels.as_bytes()).into()),
    };
    let declared =
        config.declared.as_ref().map(|reader| reader.read(bytes, header.format, [header.width, header.height], cancel));
    let others = others.into_iter().zip(&assigned.others);
    let others = others.map(|(regions, other)| examined(regions, other.preprocessing)).collect();
    Ok((Seen { assigned, others, image, declared }, examined(regions, preprocessing)))
}

/// What each of an image's models is given of it.
fn inputs(assigned: &Assignment) -> impl Iterator<Item = (Preprocessing, Regions)> + Clone {
    std::iter::once(&assigned.first).chain(&assigned.others).map(|model| (model.preprocessing, model.most))
}

fn examined(regions: Vec<image::Region>, preprocessing: Preprocessing) -> Vec<Input> {
    let input = |region: image::Region| Input { no_signal: preprocessing.no_signal(&region.pixels), region };
    regions.into_iter().map(input).collect()
}
