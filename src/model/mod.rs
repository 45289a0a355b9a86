//! The model: its manifest, its session in ONNX Runtime, the custom operator. Only this module knows `ort`.

mod gpu;
mod manifest;
mod node;
mod onnx_model;
pub mod op;
mod options;
mod placement;
mod probe;
pub mod provider;
pub mod runtime;
mod session;
mod sessions;
mod warmup;

use std::{future::Future, sync::Arc, time::Duration};

pub use manifest::{CPU_GRAPH, GRAPH, Manifest, ManifestError, STANDARD_GRAPH};
pub use node::{TopK, TopKNode};
pub use onnx_model::OnnxModel;
pub use options::SessionOptions;
#[cfg(feature = "server")]
pub(crate) use options::find_folder;
pub use placement::{AssignedNode, summary as placement_summary};
pub use probe::GraphProbe;
pub use provider::{Availability, Execution, Provider};
pub use session::{MAPS, Runner};
pub use sessions::{cpus, start_sessions};

use crate::image::Pixels;

/// What the network says of one image.
#[derive(Debug, Clone, PartialEq)]
pub struct Output {
    /// Log-odds of fake.
    pub logit: f32,
    /// The Top-K values, (64, K) row-major, descending in each row.
    pub topk_values: Box<[f32]>,
    /// Where they stand in the 30x30 map (row * 30 + column), (64, K) row-major.
    pub topk_indices: Box<[i64]>,
    /// The layer that made the logit from the values; the model's outputs share it.
    pub linear: Arc<Linear>,
}

/// The network's last layer: logit = bias + the sum of weight * value over the Top-K values. A calibration is
/// folded in.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Linear {
    /// (64, K) row-major, as [`Output::topk_values`].
    pub weight: Box<[f32]>,
    /// In logit units.
    pub bias: f32,
}

/// Why a run failed, for the log: a client is only told that it did.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{0}")]
pub struct RunError(pub String);

/// Something that judges batches of pixels, one batch at a time.
///
/// The scheduler knows no more of the model than this, so that a fake takes its place in tests.
pub trait Model: Send + 'static {
    /// The cost curve: how long a run of n images takes, at place n - 1, as the warm-up measured it. Its
    /// length is the most images that one run takes.
    fn costs(&self) -> &[Duration];

    /// Whether its runs take a CPU, and not a device of their own.
    fn takes_cpu(&self) -> bool {
        true
    }

    /// Runs one batch; the outputs come in its order. The future may be awaited for long but never
    /// blocks its thread.
    fn run(&mut self, batch: Vec<Pixels>) -> impl Future<Output = Result<Vec<Output>, RunError>> + Send;
}
