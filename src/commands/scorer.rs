//! The server's pipeline without a server: what `score` and `evaluate` run files through, so that both give
//! the server's answer to the last bit.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use futures_util::{Stream, StreamExt, stream};
use tokio::{task::spawn_blocking, time::Instant};

use crate::{
    app,
    config::{Auto, LimitsConfig, ModelConfig},
    error::{Code, Error},
    http::wire::AttributionInfo,
    image,
    metrics::{Identity, Metrics},
    model::{Manifest, runtime},
    pipeline::{ImageFacts, Job, Pipeline, PipelineConfig, Scored, Timings, Upload},
    verdict::{self, Judgement},
};

/// Longer than any run: on the command line nobody waits with a deadline.
const NO_DEADLINE: Duration = Duration::from_secs(365 * 24 * 3600);

/// A model at work in this process.
pub(super) struct Scorer {
    pipeline: Pipeline,
    manifest: Arc<Manifest>,
    max_file_bytes: u64,
    limits: image::Limits,
    side_by_side: usize,
    explains: bool,
}

/// A file's judgement.
pub(super) struct FileScore {
    pub(super) image: ImageFacts,
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
    pub(super) async fn start(model: &ModelConfig, limits: &LimitsConfig) -> Result<Self, anyhow::Error> {
        // One image a run: the command line asks for throughput, which batches do not raise on a CPU.
        let options = app::read_model(model, Auto::Fixed(1))?;
        let (build, config) = (options.clone(), model.clone());
        let sessions = spawn_blocking(move || app::start_sessions(&build, &config)).await??;
        let manifest = Arc::clone(options.manifest());
        let identity = Identity { manifest: &manifest, execution: options.execution(), ort_version: runtime::VERSION };
        let metrics = Arc::new(Metrics::new(&identity, [])?);
        // Enough that neither the decoders nor the sessions wait for the other.
        let side_by_side = 2 * (sessions.len() + app::cpus());
        let config = PipelineConfig {
            max_in_flight: side_by_side,
            max_admitted_bytes: u64::MAX,
            max_queue_delay: Duration::ZERO,
            decode_threads: app::cpus(),
            limits: limits.image(),
            preprocessing: manifest.preprocessing,
            hash_pixels: true,
        };
        let pipeline = Pipeline::start(config, sessions, app::rebuild(options), metrics);
        Ok(Self {
            pipeline,
            manifest,
            max_file_bytes: limits.max_body_bytes.as_u64(),
            limits: limits.image(),
            side_by_side,
            explains: false,
        })
    }

    /// The same, explaining each file.
    pub(super) fn explaining(self) -> Self {
        Self { explains: true, ..self }
    }

    /// The model's manifest.
    pub(super) fn manifest(&self) -> &Manifest {
        &self.manifest
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

    async fn score(&self, file: &Path, jpeg: Option<u8>) -> Result<FileScore, Error> {
        let (path, limit, limits) = (file.to_path_buf(), self.max_file_bytes, self.limits);
        let load = move || {
            let bytes = read(&path, limit)?;
            jpeg.map_or(Ok(bytes.clone()), |quality| recompress(&bytes, &limits, quality))
        };
        let bytes = spawn_blocking(load).await.map_err(|_| Error::inference_failed())??;
        let share = self.pipeline.admit_image()?;
        let held = Arc::new(self.pipeline.admit_bytes(bytes.len() as u64)?);
        let deadline = Instant::now() + NO_DEADLINE;
        let upload = Upload { bytes, held };
        let job = Job { payload: upload.clone(), deadline, share, timings: Timings::default() };
        let scored = self.pipeline.score(job).await?;
        let warnings = verdict::warnings(&self.manifest, &scored.image);
        let judgement = verdict::judge(&self.manifest, scored.output.logit, warnings, None);
        let explanation = if self.explains { Some(self.explain(upload, &scored, deadline).await?) } else { None };
        Ok(FileScore { image: scored.image, judgement, explanation })
    }

    async fn explain(&self, upload: Upload, scored: &Scored, deadline: Instant) -> Result<Explanation, Error> {
        let attribution = scored.attribution()?;
        let attribution = AttributionInfo::new(&attribution, self.manifest.preprocessing, &scored.image.header);
        Ok(Explanation { attribution, overlay: self.pipeline.overlay(upload, scored, deadline).await? })
    }
}

fn read(path: &Path, limit: u64) -> Result<Bytes, Error> {
    let unreadable = |error: std::io::Error| Error::new(Code::BadRequest, format!("the file cannot be read: {error}"));
    let size = std::fs::metadata(path).map_err(unreadable)?.len();
    if size > limit {
        let detail = format!("the file of {size} bytes is larger than the limit of {limit} bytes");
        return Err(Error::new(Code::BodyTooLarge, detail));
    }
    std::fs::read(path).map(Bytes::from).map_err(unreadable)
}

/// Saves a picture as a baseline JPEG with halved chroma, as Pillow does: a file that was passed on.
fn recompress(bytes: &[u8], limits: &image::Limits, quality: u8) -> Result<Bytes, Error> {
    let header = image::inspect(bytes, limits)?;
    let rgb = image::decode(bytes, &header)?;
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
