//! A scored file as a line of JSON.

use serde::Serialize;

use super::scorer::{Explanation, FileScore};
use crate::{
    api::wire::{EvidenceInfo, ImageInfo, JudgedInfo},
    declared::Declared,
    error::Error,
    judge::{Verdict, Warning},
};

/// A file's line in JSON.
#[derive(Serialize)]
pub(super) struct Line<'a> {
    path: &'a str,
    #[serde(flatten)]
    outcome: LineOutcome,
}

#[derive(Serialize)]
#[serde(untagged)]
enum LineOutcome {
    Scored(Box<ScoredLine>),
    Failed { error: LineError },
}

#[derive(Serialize)]
struct ScoredLine {
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

#[derive(Serialize)]
struct LineError {
    code: &'static str,
    detail: String,
}

impl<'a> Line<'a> {
    /// The line of a file, and apart from it its explanation.
    pub(super) fn new(path: &'a str, result: Result<FileScore, Error>) -> (Option<Explanation>, Self) {
        let FileScore { image, declared, judgement, explanation } = match result {
            Ok(scored) => scored,
            Err(Error { code, detail, .. }) => {
                let error = LineError { code: code.as_str(), detail };
                return (None, Self { path, outcome: LineOutcome::Failed { error } });
            }
        };
        let line = ScoredLine {
            verdict: judgement.verdict,
            score: judgement.score,
            logit: judgement.logit,
            logit_raw: judgement.logit_raw,
            threshold: judgement.threshold,
            judged: JudgedInfo::new(&judgement, &image.header),
            evidence: judgement.evidence.as_ref().map(EvidenceInfo::from),
            declared,
            warnings: judgement.warnings,
            image: ImageInfo::from(&image),
        };
        (explanation, Self { path, outcome: LineOutcome::Scored(Box::new(line)) })
    }
}
