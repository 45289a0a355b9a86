//! What is said of one image, as JSON: the fields that the API's answers, the lines of `lfm-serve score` and the Python
//! module have in common.

mod attribution;
mod caption;
mod image;
mod judged;

use serde::Serialize;

pub use attribution::AttributionInfo;
pub use caption::caption;
pub use image::ImageInfo;
pub use judged::{EvidenceInfo, JudgedInfo};

use crate::{
    declared::Declared,
    image::ImageFacts,
    judge::{Judgement, Verdict, Warning},
};

/// The judgement of one image: `POST /v1/score`'s answer without what belongs to a request or to the model.
#[derive(Debug, Serialize)]
pub struct Scored {
    verdict: Verdict,
    score: Option<f64>,
    logit: Option<f32>,
    logit_raw: f32,
    threshold: Option<f64>,
    warnings: Vec<Warning>,
    judged: JudgedInfo,
    evidence: Option<EvidenceInfo>,
    declared: Option<Declared>,
    image: ImageInfo,
}

impl Scored {
    /// The JSON's form of a judgement of this image.
    pub fn new(judgement: &Judgement, image: &ImageFacts, declared: Option<Declared>) -> Self {
        Self {
            verdict: judgement.verdict,
            score: judgement.score,
            logit: judgement.logit,
            logit_raw: judgement.logit_raw,
            threshold: judgement.threshold,
            warnings: judgement.warnings.clone(),
            judged: JudgedInfo::new(judgement, &image.header),
            evidence: judgement.evidence.as_ref().map(EvidenceInfo::from),
            declared,
            image: image.into(),
        }
    }
}
