//! One graph of a model folder in a session of its own, to be looked at and held against another.

use super::{Execution, Output, RunError, SessionOptions, session::Runner};
use crate::{
    config::{Auto, ModelConfig},
    image::Pixels,
};

/// A graph in a session: what `doctor` asks it.
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

    /// The digest of the weights that the graph says it was made from.
    pub fn digest(&self) -> Option<String> {
        self.runner.session.metadata().ok()?.custom("lfm.digest")
    }

    /// Runs one image.
    ///
    /// # Errors
    /// What keeps the graph from running, or outputs that are not those of the interface.
    pub fn run(&mut self, pixels: &Pixels) -> Result<Output, RunError> {
        let mut outputs = self.runner.run(std::slice::from_ref(pixels))?;
        outputs.pop().ok_or_else(|| RunError("the graph gave no output".into()))
    }
}
