//! The server's scheduler without a server: what `score` and `evaluate` run files through, so that both give
//! the server's answer to the last bit.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use futures_util::{Stream, StreamExt, stream};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    task::spawn_blocking,
    time::{Instant, sleep},
};

use crate::{
    answer::{AttributionInfo, caption},
    app,
    config::{Auto, DeclaredConfig, JudgeConfig, LimitsConfig, ModelConfig, Switch},
    declared::Declared,
    error::{Code, Error},
    image::{self, ImageFacts},
    judge::{Asked, Judge, Judgement},
    metrics::Metrics,
    model::{self, Manifest, Model, OnnxModel, Provider, SessionOptions},
    scheduler::{Client, Job, Pool, Scheduler, SchedulerConfig, Scored, Upload},
    served::{Choice, Models, Served},
    server::judge_image,
};

/// Longer than any run: on the command line nobody waits with a deadline.
const NO_DEADLINE: Duration = Duration::from_secs(365 * 24 * 3600);

/// After which a file that the scheduler had no room for comes again.
const PAUSE: Duration = Duration::from_millis(50);

/// A model at work in this process, or several that judge together.
pub(super) struct Scorer {
    scheduler: Scheduler,
    models: Models,
    max_file_bytes: u64,
    limits: image::Limits,
    side_by_side: usize,
    /// Places of pictures from elsewhere that are worked on: as many as of files side by side.
    turns: Semaphore,
    /// Places of files that are read and not decoded yet: pixels that wait are small, files are not.
    undecoded: Arc<Semaphore>,
    explains: bool,
}

/// A file's judgement.
pub(super) struct FileScore {
    pub(super) image: ImageFacts,
    /// What it says of itself, where that is wanted.
    pub(super) declared: Option<Declared>,
    pub(super) judgement: Judgement,
    /// Where it was asked for.
    pub(super) explanation: Option<Explanation>,
}

/// Why a file got its logit.
pub(super) struct Explanation {
    pub(super) attribution: AttributionInfo,
    /// The overlay, a PNG.
    pub(super) overlay: Vec<u8>,
}

impl Scorer {
    /// Loads the model.
    pub(super) async fn start(
        model: &ModelConfig,
        judge: &JudgeConfig,
        limits: &LimitsConfig,
        declared: &DeclaredConfig,
    ) -> Result<Self, anyhow::Error> {
        let options = options(model)?;
        let models = app::models([Arc::clone(options.manifest())], judge, &[])?;
        Self::on(models, vec![load(options).await?], limits, declared)
    }

    /// Loads models that judge together by a combination's file.
    pub(super) async fn combined(
        models: &[ModelConfig],
        combination: &Path,
        judge: &JudgeConfig,
        limits: &LimitsConfig,
        declared: &DeclaredConfig,
    ) -> Result<Self, anyhow::Error> {
        let options = models.iter().map(options).collect::<Result<Vec<_>, _>>()?;
        let manifests = options.iter().map(|options| Arc::clone(options.manifest()));
        let models = app::combined(manifests, judge, combination)?;
        let mut pools = Vec::with_capacity(options.len());
        for options in options {
            pools.push(load(options).await?);
        }
        Self::on(models, pools, limits, declared)
    }

    fn on<M: Model>(
        models: Models,
        pools: Vec<Pool<M>>,
        limits: &LimitsConfig,
        declared: &DeclaredConfig,
    ) -> Result<Self, anyhow::Error> {
        let metrics = Arc::new(Metrics::new(&app::identity(&models), [])?);
        let sessions = pools.iter().flat_map(|pool| &pool.sessions);
        let at_once: usize = sessions.map(|model| model.costs().len()).sum();
        // Enough that neither the decoders nor the sessions, with whole batches, wait for the other.
        let side_by_side = 2 * (at_once + model::cpus());
        let config = SchedulerConfig {
            // Not what holds the files back.
            max_in_flight: 2 * side_by_side,
            max_admitted_bytes: u64::MAX,
            max_queue_delay: Duration::ZERO,
            cpus: model::cpus(),
            limits: any_time(limits),
            hash_pixels: true,
            declared: app::declared(declared)?,
        };
        Ok(Self {
            scheduler: Scheduler::start(config, pools, metrics),
            models,
            max_file_bytes: limits.max_body_bytes.as_u64(),
            limits: any_time(limits),
            side_by_side,
            turns: Semaphore::new(side_by_side),
            // One being decoded and the next one read, for each decoder.
            undecoded: Arc::new(Semaphore::new(2 * model::cpus())),
            explains: false,
        })
    }

    /// The same, explaining each file.
    pub(super) fn explaining(self) -> Self {
        Self { explains: true, ..self }
    }

    /// What judges.
    pub(super) fn judge(&self) -> &Judge {
        &self.models.first().judge
    }

    /// The model's manifest.
    pub(super) fn manifest(&self) -> &Manifest {
        &self.models.first().manifest
    }

    /// How many files are worked on at a time.
    pub(super) fn side_by_side(&self) -> usize {
        self.side_by_side
    }

    /// The largest file that is read, in bytes.
    pub(super) fn max_file_bytes(&self) -> u64 {
        self.max_file_bytes
    }

    /// Scores files, several at a time, in their order; with `jpeg`, what is left of each after a JPEG of that
    /// quality.
    pub(super) fn score_all<'a>(
        &'a self,
        files: &'a [PathBuf],
        jpeg: Option<u8>,
    ) -> impl Stream<Item = (&'a Path, Result<FileScore, Error>)> + 'a {
        stream::iter(files)
            .map(move |file| async move { (file.as_path(), self.score(file, jpeg).await) })
            .buffered(self.side_by_side)
    }

    /// Scores a file.
    pub(super) async fn score_file(&self, file: &Path) -> Result<FileScore, Error> {
        let _turn = self.turns.acquire().await.map_err(|_| Error::inference_failed())?;
        self.score(file, None).await
    }

    /// Scores a picture that was read from elsewhere.
    pub(super) async fn score_bytes(&self, bytes: Bytes) -> Result<FileScore, Error> {
        let _turn = self.turns.acquire().await.map_err(|_| Error::inference_failed())?;
        when_there_is_room(async || self.score_read(bytes.clone(), self.place().await?).await).await
    }

    async fn score(&self, file: &Path, jpeg: Option<u8>) -> Result<FileScore, Error> {
        let (limit, limits) = (self.max_file_bytes, self.limits);
        when_there_is_room(async || {
            let (place, path) = (self.place().await?, file.to_path_buf());
            let load = move || {
                let bytes = read(&path, limit)?;
                jpeg.map_or(Ok(bytes.clone()), |quality| recompress(&bytes, &limits, quality))
            };
            let bytes = spawn_blocking(load).await.map_err(|_| Error::inference_failed())??;
            self.score_read(bytes, place).await
        })
        .await
    }

    async fn place(&self) -> Result<OwnedSemaphorePermit, Error> {
        Arc::clone(&self.undecoded).acquire_owned().await.map_err(|_| Error::inference_failed())
    }

    async fn score_read(&self, bytes: Bytes, place: OwnedSemaphorePermit) -> Result<FileScore, Error> {
        let permit = Arc::new(self.scheduler.admit_image(&Client::LOCAL)?);
        let held = Arc::new(self.scheduler.admit_bytes(bytes.len() as u64)?.with_place(place));
        let deadline = Instant::now() + NO_DEADLINE;
        let payload = Upload { bytes, held };
        let upload = self.explains.then(|| payload.clone());
        let job = Job::new(payload, deadline, permit);
        let asked = Asked { explained: self.explains, ..Asked::default() };
        let judging = judge_image(&self.models, Choice::ByClass, &self.scheduler, job, &asked);
        let (judgement, scored) = judging.await?;
        let explanation = match upload {
            Some(upload) => Some(self.explain(upload, &judgement, &scored, deadline).await?),
            None => None,
        };
        Ok(FileScore { image: scored.image, declared: scored.declared, judgement, explanation })
    }

    async fn explain(
        &self,
        upload: Upload,
        judgement: &Judgement,
        scored: &Scored,
        deadline: Instant,
    ) -> Result<Explanation, Error> {
        let attribution = scored.attribution(judgement.calibration.a, judgement.calibration.b)?;
        let wire = AttributionInfo::new(&attribution, &scored.image.header);
        let Served { manifest, judge } = self.models.first();
        let caption = caption(judgement, manifest, judge);
        let overlay = self.scheduler.overlay(upload, scored, attribution, caption, deadline).await?;
        Ok(Explanation { attribution: wire, overlay })
    }
}

fn options(model: &ModelConfig) -> Result<SessionOptions, anyhow::Error> {
    anyhow::ensure!(
        model.runtime.cuda_graphs == Switch::Off,
        "--cuda-graphs on is for `serve` and `bench`: files are run in larger batches than it is for"
    );
    let options = SessionOptions::read(model, Auto::Auto)?;
    Ok(match options.execution().provider {
        // Batches give a CPU no more images a second, and measuring that takes longer than to score a few files.
        Provider::Cpu => options.one_by_one(),
        Provider::Cuda | Provider::TensorRt | Provider::TensorRtRtx => options,
    })
}

async fn load(options: SessionOptions) -> Result<Pool<OnnxModel>, anyhow::Error> {
    let (options, sessions) = spawn_blocking(move || model::start_sessions(options)).await??;
    Ok(Pool { sessions, rebuild: app::rebuild(options) })
}

/// Tries again while the scheduler has no room: callers can go elsewhere, files wait.
async fn when_there_is_room<T>(attempt: impl AsyncFn() -> Result<T, Error>) -> Result<T, Error> {
    loop {
        match attempt().await {
            Err(Error { code: Code::Overloaded, .. }) => sleep(PAUSE).await,
            ended => return ended,
        }
    }
}

/// The limits on one image, without one on the time: nobody else waits.
fn any_time(limits: &LimitsConfig) -> image::Limits {
    image::Limits { max_cost: NO_DEADLINE, ..limits.image() }
}

fn read(path: &Path, limit: u64) -> Result<Bytes, Error> {
    let unreadable = |error: std::io::Error| Error::new(Code::Unreadable, format!("the file cannot be read: {error}"));
    check_size(std::fs::metadata(path).map_err(unreadable)?.len(), limit)?;
    std::fs::read(path).map(Bytes::from).map_err(unreadable)
}

/// # Errors
/// `body_too_large` where a file of this size is not read.
pub(super) fn check_size(size: u64, limit: u64) -> Result<(), Error> {
    if size > limit {
        let detail = format!("the file of {size} bytes is larger than the limit of {limit} bytes");
        return Err(Error::new(Code::BodyTooLarge, detail));
    }
    Ok(())
}

/// Saves a picture as a baseline JPEG with halved chroma, as Pillow does: a file that was passed on.
fn recompress(bytes: &[u8], limits: &image::Limits, quality: u8) -> Result<Bytes, Error> {
    let header = image::inspect(bytes, limits)?;
    let rgb = image::decode(bytes, &header, &image::Cancel::default())?;
    let (width, height) = (rgb.width as usize, rgb.height as usize);
    let view = turbojpeg::Image {
        pixels: rgb.data.as_slice(),
        width,
        height,
        pitch: 3 * width,
        format: turbojpeg::PixelFormat::RGB,
    };
    // JPEG ends at 65,535 pixels a side; other formats do not.
    turbojpeg::compress(view, i32::from(quality), turbojpeg::Subsamp::Sub2x2)
        .map(|jpeg| Bytes::copy_from_slice(&jpeg))
        .map_err(|error| Error::new(Code::UnsupportedFormat, format!("it cannot be saved as JPEG: {error}")))
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use bytesize::ByteSize;

    use super::*;
    use crate::{
        config::Pixels as MaxPixels,
        declared::Detail,
        image::Pixels,
        model::{Output, RunError},
    };

    /// An image's logit is its first byte.
    struct Slow {
        /// All alike.
        costs: Vec<Duration>,
        /// Images in each run.
        runs: Arc<Mutex<Vec<usize>>>,
    }

    impl Model for Slow {
        fn costs(&self) -> &[Duration] {
            &self.costs
        }

        async fn run(&mut self, batch: Vec<Pixels>) -> Result<Vec<Output>, RunError> {
            self.runs.lock().expect("no run panics").push(batch.len());
            sleep(self.costs[0]).await;
            let logit = |pixels: &Pixels| f32::from(pixels.as_bytes()[0]);
            let output = |logit| Output {
                logit,
                topk_values: Box::default(),
                topk_indices: Box::default(),
                linear: Arc::default(),
            };
            Ok(batch.iter().map(logit).map(output).collect())
        }
    }

    /// Scores files of one pixel each, whose greys are 0, 1, 2 and so on, on a model that takes `time` a run; gives its
    /// runs.
    fn score(files: u8, max_batch_size: usize, time: Duration) -> Vec<usize> {
        let folder = tempfile::tempdir().expect("a folder");
        let grey = |value: u8| {
            let path = folder.path().join(format!("{value}.png"));
            let mut encoder = png::Encoder::new(std::fs::File::create(&path).expect("a file"), 1, 1);
            encoder.set_color(png::ColorType::Rgb);
            encoder.write_header().and_then(|mut writer| writer.write_image_data(&[value; 3])).expect("a PNG");
            path
        };
        let files: Vec<_> = (0..files).map(grey).collect();
        let model = Slow { costs: vec![time; max_batch_size], runs: Arc::default() };
        let runs = Arc::clone(&model.runs);
        let limits =
            LimitsConfig { max_body_bytes: ByteSize::mib(1), max_pixels: MaxPixels(1), min_side: 0, heif: Switch::Off };
        let silent = DeclaredConfig { declared: Switch::Off, declared_detail: Detail::Brief, c2pa_trust: None };
        let paused = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build();
        let scored: Vec<_> = paused.expect("a runtime").block_on(async {
            let manifest =
                Manifest::read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/model")).expect("a manifest");
            let pool = Pool { sessions: vec![model], rebuild: Arc::new(|| Err("it never fails".into())) };
            let judge = JudgeConfig::default();
            let models = app::models([manifest.into()], &judge, &[]).expect("a model");
            let scorer = Scorer::on(models, vec![pool], &limits, &silent).expect("a scorer");
            scorer.score_all(&files, None).map(|(path, scored)| (path.to_path_buf(), scored)).collect().await
        });
        for (index, (path, scored)) in scored.iter().enumerate() {
            assert_eq!(path, &files[index]);
            assert_eq!(scored.as_ref().expect("a score").judgement.logit_raw, index as f32);
        }
        assert_eq!(scored.len(), files.len());
        let runs = runs.lock().expect("no run panics").clone();
        assert_eq!(runs.iter().sum::<usize>(), files.len());
        runs
    }

    #[test]
    fn what_waits_runs_in_whole_batches_and_comes_in_order() {
        let runs = score(50, 8, Duration::from_millis(100));
        // The first takes what is there, the last what is left.
        assert!(runs.len() > 3 && runs[1..runs.len() - 1].iter().all(|&images| images == 8), "{runs:?}");
    }

    /// They wait for so long that a server would refuse the next ones.
    #[test]
    fn files_wait_for_a_model_that_cannot_keep_up() {
        assert_eq!(score(30, 1, Duration::from_secs(1)), [1; 30]);
    }
}
