//! A row of the result: what `score` says of a picture, and by whom it was said.

use serde::Serialize;
use serde_json::Value;

use crate::commands::line::Line;

/// A picture's row, in JSON as it stands here. `columns.rs` has the same in columns.
#[derive(Serialize)]
pub(super) struct Row<'a> {
    #[serde(flatten)]
    pub(super) line: Line<'a>,
    /// The object's version that was read.
    pub(super) etag: Option<&'a str>,
    /// Digest of the model's weights.
    pub(super) model: &'a str,
    /// Digest of the rules of judging.
    pub(super) rules: &'a str,
}

/// What a run needs of the rows that are there already.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Known {
    pub(super) path: String,
    pub(super) etag: Option<String>,
    pub(super) model: String,
    pub(super) rules: String,
    /// Of a picture that could not be scored.
    pub(super) error: Option<String>,
    pub(super) verdict: Option<String>,
    pub(super) class: Option<String>,
    pub(super) regions: usize,
    pub(super) logit: Option<f64>,
}

impl Known {
    /// The same of a row in JSON.
    pub(super) fn of(row: &Value) -> Self {
        let text = |place: &str| row.pointer(place).and_then(Value::as_str).map(str::to_owned);
        Self {
            path: text("/path").unwrap_or_default(),
            etag: text("/etag"),
            model: text("/model").unwrap_or_default(),
            rules: text("/rules").unwrap_or_default(),
            error: text("/error/code"),
            verdict: text("/verdict"),
            class: text("/evidence/class"),
            regions: row.pointer("/judged/regions").and_then(Value::as_array).map_or(0, Vec::len),
            logit: row.get("logit").and_then(Value::as_f64),
        }
    }
}
