//! The library in one call: bytes of an image in, a judgement out.

use std::{path::PathBuf, sync::Arc};

use sha2::{Digest, Sha256};

use crate::{
    answer::{AttributionInfo, Scored, caption},
    config::ModelConfig,
    declared::{self, Declared},
    error::Error,
    explain::{
        Attribution, Terms,
        overlay::{self, Subject},
    },
    image::{self, Cancel, ImageFacts, Limits, Pixels, Regions, Scratch},
    judge::{Asked, Judge, Judgement, RegionLogit, Settings},
    model::{Manifest, Output, Runner, SessionOptions},
};

/// A model in one session of ONNX Runtime, with the buffers that it needs. One image at a time; for several threads,
/// open one detector a thread.
pub struct Detector {
    session: Runner,
    manifest: Arc<Manifest>,
    judge: Judge,
    limits: Limits,
    declared: Option<Arc<declared::Reader>>,
    scratch: Scratch,
}

/// What the detector says of one image.
#[derive(Debug, Clone)]
pub struct Answer {
    /// Score, verdict and warnings.
    pub judgement: Judgement,
    /// Format, size and hash of the image.
    pub image: ImageFacts,
    /// What the file says of itself, where [`Detector::with_declared`] asks for it.
    pub declared: Option<Declared>,
    outputs: Vec<([u32; 4], Output)>,
}

impl Detector {
    /// Opens a model folder; [`ModelConfig::default`] finds the bundled one and its ONNX Runtime.
    ///
    /// # Errors
    /// One line for the operator: no model, no ONNX Runtime, a graph that does not load.
    pub fn open(config: &ModelConfig) -> Result<Self, anyhow::Error> {
        let options = SessionOptions::read(config, crate::config::Auto::Fixed(1))?;
        let manifest = Arc::clone(options.manifest());
        let session = Runner::new(&options)?;
        let judge = Judge::new(manifest.rules.clone(), manifest.preprocessing, Settings::default());
        let judge = judge.map_err(anyhow::Error::msg)?;
        Ok(Self { session, manifest, judge, limits: Limits::default(), declared: None, scratch: Scratch::default() })
    }

    /// The same with other settings: how many regions are judged, and at which operating point.
    ///
    /// # Errors
    /// If the model cannot follow them.
    pub fn with_settings(self, settings: Settings) -> Result<Self, anyhow::Error> {
        let judge = Judge::new(self.manifest.rules.clone(), self.manifest.preprocessing, settings);
        Ok(Self { judge: judge.map_err(anyhow::Error::msg)?, ..self })
    }

    /// The same with other limits on what an image may be.
    #[must_use]
    pub fn with_limits(self, limits: Limits) -> Self {
        Self { limits, ..self }
    }

    /// The same, with the path of the program `lfm-serve`, which decodes AVIF and HEIC in a process of its own. Without, it is this
    /// process's own executable or lies beside that.
    #[must_use]
    pub fn with_program(self, program: PathBuf) -> Self {
        Self { scratch: Scratch::with_program(program), ..self }
    }

    /// The same, also reading what files say of themselves.
    #[must_use]
    pub fn with_declared(self, reader: Arc<declared::Reader>) -> Self {
        Self { declared: Some(reader), ..self }
    }

    /// The model's manifest.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Judges one image file: JPEG, PNG, WebP, GIF, BMP, TIFF or AVIF, told by its content; HEIC under
    /// [`Limits::heif`].
    ///
    /// # Errors
    /// What is wrong with the image; `inference_failed`.
    pub fn score(&mut self, bytes: &[u8]) -> Result<Answer, Error> {
        self.score_unless(bytes, &Cancel::default())
    }

    /// The same, and stops soon after `cancel` is cancelled.
    ///
    /// # Errors
    /// As [`score`](Self::score); `deadline_exceeded` when it was cancelled.
    pub fn score_unless(&mut self, bytes: &[u8], cancel: &Cancel) -> Result<Answer, Error> {
        let header = image::inspect(bytes, &self.limits)?;
        let asked = Asked::default();
        let (preprocessing, scratch) = (self.manifest.preprocessing, &mut self.scratch);
        let most = self.judge.most(&asked);
        let regions = image::prepare_regions(bytes, &header, preprocessing, most, scratch, cancel)?;
        let image =
            ImageFacts { header, bytes: bytes.len(), sha256: Sha256::digest(bytes).into(), rgb256_sha256: None };
        let (mut logits, mut outputs) = (Vec::new(), Vec::new());
        let mut wanted = 0;
        for region in regions {
            if logits.len() >= wanted {
                wanted = self.judge.wanted(&asked, &header, &logits);
            }
            if logits.len() >= wanted {
                break;
            }
            if cancel.is_cancelled() {
                return Err(image::ImageError::Cancelled.into());
            }
            let output = self.run(&region.pixels)?;
            let no_signal = preprocessing.no_signal(&region.pixels);
            logits.push(RegionLogit { bounds: region.bounds, logit: output.logit, no_signal });
            outputs.push((region.bounds, output));
        }
        let size = [header.width, header.height];
        let declared = self.declared.as_ref().map(|reader| reader.read(bytes, header.format, size, cancel));
        Ok(Answer { judgement: self.judge.judge(&asked, Some(&header), &logits), image, declared, outputs })
    }

    /// The answer's attribution drawn on the picture, as PNG. `bytes` are those that it was given for.
    ///
    /// # Errors
    /// As [`score_unless`](Self::score_unless).
    pub fn overlay(&mut self, bytes: &[u8], answer: &Answer, cancel: &Cancel) -> Result<Vec<u8>, Error> {
        let (header, preprocessing) = (&answer.image.header, self.manifest.preprocessing);
        let scratch = &mut self.scratch;
        let view = image::view(bytes, header, preprocessing, Regions::One, overlay::LONGEST, scratch, cancel)?;
        let caption = caption(&answer.judgement, &self.manifest, &self.judge);
        let subject = Subject { view: &view, header, attribution: &answer.attribution()?, caption: &caption };
        overlay::draw(&subject).map_err(|error| {
            tracing::error!(%error, "the overlay cannot be written");
            Error::inference_failed()
        })
    }

    fn run(&mut self, pixels: &Pixels) -> Result<Output, Error> {
        let mut outputs = self.session.run(std::slice::from_ref(pixels)).map_err(|error| {
            tracing::error!(%error, "a run failed");
            Error::inference_failed()
        })?;
        outputs.pop().and_then(Output::finite).ok_or_else(Error::inference_failed)
    }
}

impl Answer {
    /// As JSON has it.
    pub fn scored(&self) -> Scored {
        Scored::new(&self.judgement, &self.image, self.declared.clone())
    }

    /// [`attribution`](Self::attribution) as JSON has it.
    ///
    /// # Errors
    /// As [`attribution`](Self::attribution).
    pub fn attribution_info(&self) -> Result<AttributionInfo, Error> {
        Ok(AttributionInfo::new(&self.attribution()?, &self.image.header))
    }

    /// The logit split into contributions of image places.
    ///
    /// # Errors
    /// `not_explainable` for a graph without Top-K places; `inference_failed` when the graph's outputs do not fit its last
    /// layer.
    pub fn attribution(&self) -> Result<Attribution, Error> {
        if self.outputs.iter().any(|(_, output)| output.topk_values.is_empty()) {
            return Err(Error::not_explainable());
        }
        let terms = self.outputs.iter().map(|(bounds, output)| {
            let (weight, values, indices) = (&output.linear.weight, &output.topk_values, &output.topk_indices);
            Terms { bounds: *bounds, bias: output.linear.bias, weight, values, indices }
        });
        let calibration = self.judgement.calibration;
        Attribution::new(terms, calibration.a, calibration.b).map_err(|error| {
            tracing::error!(%error, "the model's outputs cannot be explained");
            Error::inference_failed()
        })
    }
}
