//! The model: its manifest, its sessions in ONNX Runtime, the custom operators. Only this module uses `ort`.

mod apart;
mod binding;
#[cfg(feature = "server")]
mod combination;
mod gpu;
pub(crate) mod graphs;
#[cfg(feature = "server")]
pub(crate) mod graphs_trial;
mod histogram;
mod input;
mod manifest;
mod node;
mod onnx_model;
pub mod op;
mod options;
mod placement;
mod probe;
#[cfg(feature = "server")]
mod profile;
pub mod provider;
pub(crate) mod rtx;
pub mod runtime;
mod session;
mod sessions;
mod trial;
mod warmup;

use std::{future::Future, sync::Arc, time::Duration};

#[cfg(feature = "server")]
pub use combination::{Combination, CombinedModel};
pub use graphs::{CudaGraphs, try_apart as try_cuda_graphs};
pub use histogram::ScoreHistogram;
pub use input::Input;
pub use manifest::{CPU_GRAPH, FOREIGN, FOREIGN_GRAPH, GRAPH, Manifest, ManifestError, STANDARD_GRAPH};
pub use node::{TopK, TopKNode};
pub use onnx_model::OnnxModel;
pub use options::SessionOptions;
#[cfg(feature = "server")]
pub(crate) use options::find_folder;
pub use placement::{AssignedNode, summary as placement_summary};
pub use probe::GraphProbe;
#[cfg(feature = "server")]
pub use profile::NodeRun;
pub use provider::{Availability, Execution, Provider};
pub use session::{MAPS, Runner};
pub use sessions::{cpus, start_sessions};

use crate::image::Pixels;

/// The network's output for one image.
#[derive(Debug, Clone, PartialEq)]
pub struct Output {
    /// Log-odds of fake.
    pub logit: f32,
    /// The Top-K values, (64, K) row-major, descending in each row; empty for a graph that has none.
    pub topk_values: Box<[f32]>,
    /// Their positions in the 30x30 map (row * 30 + column), (64, K) row-major.
    pub topk_indices: Box<[i64]>,
    /// The layer that computed the logit from the values; shared by all outputs of the model.
    pub linear: Arc<Linear>,
}

impl Output {
    /// Itself if it can be judged. The graph of another detector may overflow on an image, and its session still works.
    pub fn finite(self) -> Option<Self> {
        if self.logit.is_finite() {
            return Some(self);
        }
        tracing::error!(logit = self.logit, "the graph's logit for an image is no finite number");
        None
    }
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

/// Why a run failed, for the log only: a client sees just `inference_failed`.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{0}")]
pub struct RunError(pub String);

/// A model that scores batches of pixels, one batch at a time.
///
/// The scheduler uses only this trait, so that tests can substitute a fake.
pub trait Model: Send + 'static {
    /// The cost curve measured at warm-up: element n - 1 is the time of a run of n images. Its length is the
    /// largest batch.
    fn costs(&self) -> &[Duration];

    /// Whether its runs occupy a CPU, not a separate device.
    fn takes_cpu(&self) -> bool {
        true
    }

    /// Runs one batch; the outputs are in its order. The future may take long but never blocks its thread.
    fn run(&mut self, batch: Vec<Pixels>) -> impl Future<Output = Result<Vec<Output>, RunError>> + Send;
}
