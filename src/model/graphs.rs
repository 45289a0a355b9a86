//! CUDA graphs: all launches of a run, captured once and replayed as one.
//!
//! A capture that fails may end the process: ONNX Runtime's destructor of captured graphs throws (microsoft/onnxruntime
//! 32081). So they are tried in a process of their own (`apart.rs`), on the model itself (`graphs_trial.rs`).

use std::fmt::{self, Display};

use super::{apart, runtime};
use crate::config::ModelConfig;

/// The subcommand of `lfm-serve` that tries them.
pub(crate) const COMMAND: &str = "try-cuda-graphs";

/// The largest batch that has one: of larger ones launches are a small part.
pub(super) const LARGEST: usize = 8;

/// Whether sessions run as CUDA graphs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CudaGraphs {
    /// Not asked for.
    Off,
    /// Asked for, and they passed the trial.
    On,
    /// Asked for, and not in use for this reason.
    Refused(String),
}

impl CudaGraphs {
    /// Itself, if it is worth a word.
    pub fn asked_for(&self) -> Option<&Self> {
        (*self != Self::Off).then_some(self)
    }
}

impl Display for CudaGraphs {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Off => formatter.write_str("off"),
            Self::On => write!(formatter, "on, for batches of up to {LARGEST}"),
            Self::Refused(reason) => write!(formatter, "not in use: {reason}"),
        }
    }
}

/// Runs the trial in a process of its own.
///
/// # Errors
/// Why they cannot be used.
pub fn try_apart(config: &ModelConfig) -> Result<(), String> {
    let runtime = &config.runtime;
    let library = runtime::find_library(runtime.ort_library.as_deref()).map_err(|error| error.to_string())?;
    let mut arguments = vec!["--ort-library".into(), library.into()];
    if let Some(folder) = &config.model {
        arguments.extend(["--model".into(), folder.into()]);
    }
    if let Some(limit) = runtime.gpu_memory_limit {
        arguments.extend(["--gpu-memory-limit".into(), limit.as_u64().to_string().into()]);
    }
    apart::run(COMMAND, arguments)
}
