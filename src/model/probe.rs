//! One graph of a model folder in its own session, to inspect it and compare it with another.

use super::{Execution, Output, RunError, SessionOptions, session::Runner};
use crate::{
    config::{Auto, ModelConfig},
    image::Pixels,
};

/// A graph in a session, for `doctor`.
pub struct GraphProbe {
    runner: Runner,
}

impl GraphProbe {
    /// Reads the graph `name` of the model folder and builds a session on the CPU.
    ///
    /// # Errors
    /// One line for the operator.
    pub fn start(config: &ModelConfig, name: &'static str) -> Result<Self, anyhow::Error> {
        let options = SessionOptions::read_graph(config, Auto::Fixed(1), name, Execution::CPU)?;
        Ok(Self { runner: Runner::new(&options)? })
    }

    /// Digest of the weights, from the graph's metadata.
    pub fn digest(&self) -> Option<String> {
        self.runner.session.metadata().ok()?.custom("lfm.digest")
    }

    /// Runs one image.
    ///
    /// # Errors
    /// If the graph does not run, or its outputs do not match the interface.
    pub fn run(&mut self, pixels: &Pixels) -> Result<Output, RunError> {
        let mut outputs = self.runner.run(std::slice::from_ref(pixels))?;
        outputs.pop().ok_or_else(|| RunError("the graph gave no output".into()))
    }
}
