//! One graph of a model folder in a session of its own, to be looked at and held against another.

use ort::{ep, session::Session};

use super::{
    AssignedNode, Output, RunError,
    placement::assigned_nodes,
    runtime,
    session::{Runner, SessionOptions},
};
use crate::{
    config::{Auto, ModelConfig},
    image::Pixels,
};

/// A graph in a session: what `doctor` asks it.
pub struct GraphProbe {
    runner: Runner,
}

impl GraphProbe {
    /// Reads the graph `name` of the model folder and builds a session as `serve` does.
    ///
    /// # Errors
    /// One line for the operator.
    pub fn start(config: &ModelConfig, name: &'static str) -> Result<Self, anyhow::Error> {
        let options = SessionOptions::read_graph(config, Auto::Fixed(1), name)?;
        Ok(Self { runner: Runner::new(&options)? })
    }

    /// The digest of the weights that the graph says it was made from.
    pub fn digest(&self) -> Option<String> {
        self.runner.session.metadata().ok()?.custom("lfm.digest")
    }

    /// Which execution provider got which node.
    ///
    /// # Errors
    /// Those of ONNX Runtime, none of which is expected.
    pub fn nodes(&self) -> Result<Vec<AssignedNode>, RunError> {
        assigned_nodes(&self.runner.session).map_err(|error| RunError(runtime::one_line(&error)))
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

/// The GPU providers, by the names of `--provider`, each with the reason why it cannot be loaded, if so. The
/// environment must have been created.
///
/// # Errors
/// If the environment cannot be created.
pub fn gpu_providers(config: &ModelConfig) -> Result<Vec<(&'static str, Option<String>)>, anyhow::Error> {
    let environment = runtime::environment(config.ort_library.as_deref())?;
    let mut providers = Vec::new();
    for (name, provider) in [("cuda", ep::CUDA::default().build()), ("tensorrt", ep::TensorRT::default().build())] {
        // Only registering tells: `is_available` means "compiled in".
        let registered = Session::builder(environment)?.with_execution_providers([provider.error_on_failure()]);
        providers.push((name, registered.err().map(|error| runtime::one_line(&error))));
    }
    Ok(providers)
}
