//! A scored file as a line of JSON.

use serde::Serialize;

use super::scorer::{Explanation, FileScore};
use crate::{answer::Scored, error::Error};

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
    Scored(Box<Scored>),
    Failed { error: LineError },
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
        let line = Scored::new(&judgement, &image, declared);
        (explanation, Self { path, outcome: LineOutcome::Scored(Box::new(line)) })
    }
}
