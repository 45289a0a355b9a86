//! One image's job: a detector, opened by the thread that runs it.

use std::{any::Any, borrow::Cow, path::PathBuf, sync::Arc};

use lfm_serve::{
    Detector,
    answer::{AttributionInfo, Scored},
    config::{Auto, ModelConfig, Precision, ProviderChoice, RuntimeConfig, Switch},
    declared::Reader,
    error::{Code, Error},
    image::{Cancel, ImageError, Limits},
    judge::{RegionChoice, Settings},
};
use pyo3::pybacked::PyBackedBytes;
use serde::Serialize;

use crate::{gate, pool::Work};

/// What every thread opens its detector with.
pub(crate) struct Detecting {
    pub(crate) model: PathBuf,
    pub(crate) ort_library: PathBuf,
    pub(crate) program: PathBuf,
    pub(crate) regions: RegionChoice,
    pub(crate) limits: Limits,
    pub(crate) max_file_bytes: u64,
    pub(crate) declared: Arc<Reader>,
}

/// An image as it comes from Python.
pub(crate) enum Image {
    /// A file's bytes.
    Bytes(PyBackedBytes),
    /// A file.
    File(PathBuf),
    /// RGB, row by row.
    Pixels { rgb: PyBackedBytes, width: u32, height: u32 },
}

/// What is asked for.
pub(crate) struct Job {
    pub(crate) image: Image,
    pub(crate) explain: bool,
    pub(crate) overlay: bool,
    pub(crate) cancel: Cancel,
}

/// What is said of an image.
pub(crate) struct Answer {
    /// JSON.
    pub(crate) text: String,
    /// A PNG, where it is wanted.
    pub(crate) overlay: Option<Vec<u8>>,
}

/// Why nothing is.
pub(crate) enum Failure {
    /// The image.
    Image(Error),
    /// The model or ONNX Runtime, in words for whoever installed them.
    Setup(String),
}

#[derive(Serialize)]
struct Document {
    #[serde(flatten)]
    scored: Scored,
    #[serde(skip_serializing_if = "Option::is_none")]
    attribution: Option<AttributionInfo>,
}

impl Work for Detecting {
    type Job = Job;
    type Reply = Result<Answer, Failure>;
    type State = Detector;

    fn run(&self, state: &mut Option<Detector>, job: Job) -> Self::Reply {
        let Job { image, explain, overlay, cancel } = job;
        // Outside the gate: a file on a disk that hangs must not keep the process from forking or ending.
        let read = match &image {
            Image::File(path) => self.read(path).map_err(Failure::Image)?,
            Image::Bytes(_) | Image::Pixels { .. } => Vec::new(),
        };
        let _inside = gate::enter();
        // Dropped before that: dropping what belongs to Python takes a lock.
        let image = image;
        if cancel.is_cancelled() {
            return Err(Failure::Image(ImageError::Cancelled.into()));
        }
        let detector = match state {
            Some(detector) => detector,
            None => state.insert(self.open().map_err(|error| Failure::Setup(format!("{error:#}")))?),
        };
        let bytes = match &image {
            Image::Bytes(bytes) => Cow::Borrowed(&**bytes),
            Image::File(_) => Cow::Owned(read),
            Image::Pixels { rgb, width, height } => Cow::Owned(bmp(rgb, *width, *height).map_err(Failure::Image)?),
        };
        answer(detector, &bytes, explain, overlay, &cancel).map_err(Failure::Image)
    }

    fn end(&self, state: Option<Detector>) {
        let _inside = gate::enter();
        drop(state);
    }

    fn panicked(&self, _: &(dyn Any + Send)) -> Self::Reply {
        // The panic itself was printed.
        Err(Failure::Image(Error::new(
            Code::InferenceFailed,
            "scoring this image panicked, which is a bug of lfm-serve",
        )))
    }
}

impl Detecting {
    fn open(&self) -> Result<Detector, Box<dyn std::error::Error + Send + Sync>> {
        // One session of one thread for each of ours: the layout with the highest throughput.
        let runtime = RuntimeConfig {
            ort_library: Some(self.ort_library.clone()),
            provider: ProviderChoice::Cpu,
            tensorrt_rtx_library: None,
            precision: Precision::Fp32,
            cuda_graphs: Switch::Off,
            engine_cache_dir: None,
            gpu_memory_limit: None,
            sessions: Auto::Fixed(1),
            intra_threads: Auto::Fixed(1),
        };
        let detector = Detector::open(&ModelConfig { model: Some(self.model.clone()), runtime })?;
        let settings = Settings { regions: self.regions, ..Settings::default() };
        let detector = detector.with_settings(settings)?;
        let detector = detector.with_limits(self.limits).with_program(self.program.clone());
        Ok(detector.with_declared(Arc::clone(&self.declared)))
    }

    fn read(&self, path: &PathBuf) -> Result<Vec<u8>, Error> {
        let unreadable =
            |error: std::io::Error| Error::new(Code::Unreadable, format!("the file cannot be read: {error}"));
        let (size, limit) = (std::fs::metadata(path).map_err(unreadable)?.len(), self.max_file_bytes);
        if size > limit {
            let detail = format!("the file of {size} bytes is larger than the limit of {limit} bytes");
            return Err(Error::new(Code::BodyTooLarge, detail));
        }
        std::fs::read(path).map_err(unreadable)
    }
}

fn answer(
    detector: &mut Detector,
    bytes: &[u8],
    explain: bool,
    overlay: bool,
    cancel: &Cancel,
) -> Result<Answer, Error> {
    let answer = detector.score_unless(bytes, cancel)?;
    let attribution = explain.then(|| answer.attribution_info()).transpose()?;
    let overlay = overlay.then(|| detector.overlay(bytes, &answer, cancel)).transpose()?;
    let document = Document { scored: answer.scored(), attribution };
    let text = serde_json::to_string(&document).map_err(|_| Error::inference_failed())?;
    Ok(Answer { text, overlay })
}

/// Pixels as the file that stores them as they are, so that they pass the same limits and the same code as any file.
fn bmp(rgb: &[u8], width: u32, height: u32) -> Result<Vec<u8>, Error> {
    const HEAD: usize = 54;
    let too_large = || Error::from(ImageError::TooLarge { width, height, max_pixels: u64::from(u32::MAX) / 4 });
    let row = (width as usize).checked_mul(3).ok_or_else(too_large)?;
    let stride = row.next_multiple_of(4);
    let size = stride.checked_mul(height as usize).and_then(|pixels| pixels.checked_add(HEAD)).ok_or_else(too_large)?;
    let size32 = u32::try_from(size).map_err(|_| too_large())?;
    let (width, height) =
        (i32::try_from(width).map_err(|_| too_large())?, i32::try_from(height).map_err(|_| too_large())?);
    let mut file = Vec::new();
    file.try_reserve_exact(size).map_err(|_| Error::from(ImageError::OutOfMemory))?;
    file.extend(b"BM");
    for field in [size32, 0, HEAD as u32, 40] {
        file.extend(field.to_le_bytes());
    }
    // A negative height: the first row is the upper one.
    for field in [width, -height] {
        file.extend(field.to_le_bytes());
    }
    for field in [1_u16, 24] {
        file.extend(field.to_le_bytes());
    }
    file.resize(HEAD, 0);
    let padding = stride - row;
    for row in rgb.chunks_exact(row.max(1)) {
        file.extend(row.chunks_exact(3).flat_map(|pixel| pixel.iter().rev()));
        file.extend(std::iter::repeat_n(0, padding));
    }
    Ok(file)
}
