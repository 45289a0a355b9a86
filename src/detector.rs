//! The library in one call: bytes of an image in, a judgement out.

use sha2::{Digest, Sha256};

use crate::{
    config::ModelConfig,
    error::Error,
    explain::Attribution,
    image::{self, Cancel, ImageFacts, Limits, Scratch},
    judge::{self, Judgement},
    model::{Manifest, Output, Runner, SessionOptions},
};

/// A model in one session of ONNX Runtime, with the buffers that it needs. One image at a time; for several threads,
/// open one detector a thread.
pub struct Detector {
    session: Runner,
    manifest: std::sync::Arc<Manifest>,
    limits: Limits,
    scratch: Scratch,
}

/// What the detector says of one image.
#[derive(Debug, Clone)]
pub struct Answer {
    /// Score, verdict and warnings.
    pub judgement: Judgement,
    /// Format, size and hash of the image.
    pub image: ImageFacts,
    output: Output,
}

impl Detector {
    /// Opens a model folder; [`ModelConfig::default`] finds the bundled one and its ONNX Runtime.
    ///
    /// # Errors
    /// One line for the operator: no model, no ONNX Runtime, a graph that does not load.
    pub fn open(config: &ModelConfig) -> Result<Self, anyhow::Error> {
        let options = SessionOptions::read(config, crate::config::Auto::Fixed(1))?;
        let manifest = std::sync::Arc::clone(options.manifest());
        Ok(Self { session: Runner::new(&options)?, manifest, limits: Limits::default(), scratch: Scratch::default() })
    }

    /// The same with other limits on what an image may be.
    #[must_use]
    pub fn with_limits(self, limits: Limits) -> Self {
        Self { limits, ..self }
    }

    /// The model's manifest.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Judges one image file: JPEG, PNG, WebP, GIF, BMP or TIFF, told by its content.
    ///
    /// # Errors
    /// What is wrong with the image; `inference_failed`.
    pub fn score(&mut self, bytes: &[u8]) -> Result<Answer, Error> {
        let header = image::inspect(bytes, &self.limits)?;
        let pixels =
            image::prepare(bytes, &header, self.manifest.preprocessing, &mut self.scratch, &Cancel::default())?;
        let image = ImageFacts {
            header,
            bytes: bytes.len(),
            sha256: Sha256::digest(bytes).into(),
            rgb256_sha256: None,
            no_signal: image::no_signal(&pixels),
        };
        let mut outputs = self.session.run(std::slice::from_ref(&pixels)).map_err(|error| {
            tracing::error!(%error, "a run failed");
            Error::inference_failed()
        })?;
        let output = outputs.pop().ok_or_else(Error::inference_failed)?;
        let rules = &self.manifest.rules;
        let judgement = judge::judge(rules, output.logit, judge::warnings(rules, &image), None);
        Ok(Answer { judgement, image, output })
    }
}

impl Answer {
    /// The logit split into contributions of image places.
    ///
    /// # Errors
    /// `inference_failed` when the graph's outputs do not fit its last layer.
    pub fn attribution(&self) -> Result<Attribution, Error> {
        let (output, linear) = (&self.output, &self.output.linear);
        Attribution::new(linear.bias, &linear.weight, &output.topk_values, &output.topk_indices).map_err(|error| {
            tracing::error!(%error, "the model's outputs cannot be explained");
            Error::inference_failed()
        })
    }
}
