//! Results of the checks, as text and JSON.

use serde::Serialize;

use super::super::VERSION;
use crate::model::{AssignedNode, placement_summary};

/// How a check ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Status {
    /// Nothing to do.
    Ok,
    /// It works, but not optimally.
    Warn,
    /// Something is wrong.
    Fail,
    /// Could not be checked, because of a failure above.
    Skip,
}

impl Status {
    fn label(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warn => "warn",
            Self::Fail => "FAIL",
            Self::Skip => "skip",
        }
    }
}

/// The outcome of one check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Finding {
    pub(super) status: Status,
    /// What was found, or the cause; one line.
    pub(super) detail: String,
    /// Nodes by provider, for the check of providers.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) nodes: Vec<AssignedNode>,
    /// The numbers of `detail`, where the check is about memory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) bytes: Option<Bytes>,
}

/// Memory in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(super) struct Bytes {
    /// What `serve` needs to be ready.
    pub(super) at_start: u64,
    /// The most that it takes.
    pub(super) most: u64,
    /// The smallest limit, null if none is known.
    pub(super) limit: Option<u64>,
    /// What could be had now without swapping.
    pub(super) available: Option<u64>,
}

impl Finding {
    pub(super) fn ok(detail: impl Into<String>) -> Self {
        Self::new(Status::Ok, detail)
    }

    pub(super) fn warn(detail: impl Into<String>) -> Self {
        Self::new(Status::Warn, detail)
    }

    pub(super) fn fail(detail: impl Into<String>) -> Self {
        Self::new(Status::Fail, detail)
    }

    /// The execution provider of each node.
    pub(super) fn placement(nodes: Vec<AssignedNode>) -> Self {
        let shown = Self::ok(placement_summary(&nodes));
        Self { nodes, ..shown }
    }

    /// Not checked, because the check `missing` did not pass.
    pub(super) fn skip(missing: &str) -> Self {
        Self::new(Status::Skip, format!("not checked, see {missing}"))
    }

    /// The same, of which more is said first.
    pub(super) fn after(self, said: &str) -> Self {
        Self { detail: format!("{said}; {}", self.detail), ..self }
    }

    /// The same, with its numbers.
    pub(super) fn with_bytes(self, bytes: Bytes) -> Self {
        Self { bytes: Some(bytes), ..self }
    }

    fn new(status: Status, detail: impl Into<String>) -> Self {
        Self { status, detail: detail.into(), nodes: Vec::new(), bytes: None }
    }
}

/// An error is the check's finding.
impl<E: Into<anyhow::Error>> From<Result<Self, E>> for Finding {
    fn from(result: Result<Self, E>) -> Self {
        result.unwrap_or_else(|error| Self::fail(format!("{:#}", error.into())))
    }
}

/// All checks, in the order in which they ran.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    /// Whether nothing is wrong.
    ok: bool,
    version: &'static str,
    checks: Vec<Check>,
}

#[derive(Debug, Serialize)]
struct Check {
    name: &'static str,
    /// The model's folder, where there are several.
    #[serde(skip_serializing_if = "Option::is_none")]
    model: Option<String>,
    #[serde(flatten)]
    finding: Finding,
}

impl Report {
    pub(super) fn new() -> Self {
        Self { ok: true, version: VERSION, checks: Vec::new() }
    }

    /// Adds a check; returns whether dependent checks can run.
    pub(super) fn add(&mut self, name: &'static str, finding: impl Into<Finding>) -> bool {
        self.add_of(None, name, finding)
    }

    /// The same, of one of several models.
    pub(super) fn add_of(&mut self, model: Option<String>, name: &'static str, finding: impl Into<Finding>) -> bool {
        let finding = finding.into();
        let holds = matches!(finding.status, Status::Ok | Status::Warn);
        self.ok &= finding.status != Status::Fail;
        self.checks.push(Check { name, model, finding });
        holds
    }

    /// Whether nothing is wrong.
    pub(super) fn is_ok(&self) -> bool {
        self.ok
    }

    /// A line per check, and a summary.
    pub(super) fn text(&self) -> String {
        let mut lines = vec![format!("lfm-serve {}", self.version)];
        for Check { name, model, finding } in &self.checks {
            let model = model.as_ref().map_or(String::new(), |model| format!("{model}: "));
            lines.push(format!("{:<5} {name:<10} {model}{}", finding.status.label(), finding.detail));
        }
        let failed: Vec<_> =
            self.checks.iter().filter(|check| check.finding.status == Status::Fail).map(|check| check.name).collect();
        lines.push(if failed.is_empty() {
            "Nothing is wrong.".into()
        } else {
            format!("Something is wrong: {}.", failed.join(", "))
        });
        lines.join("\n")
    }
}
