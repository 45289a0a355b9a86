//! Input of a session: the model folder, the execution provider, the settings.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{Execution, Manifest, Provider, gpu, op::Layers};
use crate::{
    config::{Auto, ModelConfig},
    conv,
};

/// Input of a session: read and checked once, shared by all sessions and their rebuilds.
#[derive(Debug, Clone)]
pub struct SessionOptions {
    /// The graph's name in the folder, for errors.
    pub(super) graph_name: &'static str,
    pub(super) graph: Arc<[u8]>,
    pub(super) manifest: Arc<Manifest>,
    pub(super) config: ModelConfig,
    pub(super) max_batch_size: Auto<usize>,
    pub(super) execution: Arc<Execution>,
    /// TensorRT's engine cache.
    pub(super) engine_cache: Option<PathBuf>,
    /// Transformed weights.
    pub(super) layers: Layers,
}

impl SessionOptions {
    /// Reads the model folder and chooses the execution provider.
    ///
    /// # Errors
    /// One line for the operator: the folder, the manifest or a graph is missing or wrong, there is no ONNX Runtime,
    /// or the requested provider cannot run.
    pub fn read(config: &ModelConfig, max_batch_size: Auto<usize>) -> Result<Self, anyhow::Error> {
        let folder = find_folder(config.model.as_deref())?;
        // Checked before the provider, whose check takes longer.
        Manifest::read(&folder)?;
        Self::on(Execution::choose(config)?, config, max_batch_size)
    }

    /// Reads the model folder for the chosen provider, or for the next best if the folder does not support it.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub fn on(execution: Execution, config: &ModelConfig, max_batch_size: Auto<usize>) -> Result<Self, anyhow::Error> {
        let manifest = Manifest::read(&find_folder(config.model.as_deref())?)?;
        let graph = execution.provider.graph(&manifest);
        let read = Self::read_graph(config, max_batch_size, graph, execution.clone());
        read.or_else(|error| Self::on(execution.step_down(config, error)?, config, max_batch_size))
    }

    /// The options for the next best provider, after this one failed with `error`.
    ///
    /// # Errors
    /// `error`, if the provider was requested by name or is the last.
    pub fn step_down(&self, error: anyhow::Error) -> Result<Self, anyhow::Error> {
        let next = Execution::clone(&self.execution).step_down(&self.config, error)?;
        Self::on(next, &self.config, self.max_batch_size)
    }

    /// The same options with the convolutions of `kernel`.
    #[must_use]
    pub fn on_kernel(self, kernel: conv::Kernel) -> Self {
        let layers = Layers::new(kernel, self.config.runtime.intra_threads.or_else(|| 1));
        Self { layers, ..self }
    }

    /// The same options with batches of one image.
    #[must_use]
    pub fn one_by_one(self) -> Self {
        Self { max_batch_size: Auto::Fixed(1), ..self }
    }

    /// Reads the model folder for one of its graphs.
    ///
    /// # Errors
    /// One line for the operator: the folder, the manifest or a graph is missing or wrong.
    pub fn read_graph(
        config: &ModelConfig,
        max_batch_size: Auto<usize>,
        graph_name: &'static str,
        execution: Execution,
    ) -> Result<Self, anyhow::Error> {
        let folder = find_folder(config.model.as_deref())?;
        let manifest = Arc::new(Manifest::read(&folder)?);
        let graph = manifest.read_file(&folder, graph_name)?.into();
        let largest = max_batch_size.or_else(|| execution.provider.largest_tried());
        let engine_cache = match &config.runtime.engine_cache_dir {
            Some(dir) if execution.provider == Provider::TensorRt => {
                Some(gpu::engine_cache(dir, &manifest, execution.precision, largest)?)
            }
            _ => None,
        };
        let (config, execution) = (config.clone(), Arc::new(execution));
        let layers = Layers::default();
        let read = Self { graph_name, graph, manifest, config, max_batch_size, execution, engine_cache, layers };
        Ok(read.on_kernel(conv::Kernel::fastest()))
    }

    /// Number of parallel sessions.
    pub fn sessions(&self, cpus: usize) -> usize {
        self.config.runtime.sessions.or_else(|| self.execution.sessions(cpus))
    }

    /// The folder and the runtime.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// What the sessions run on.
    pub fn execution(&self) -> &Execution {
        &self.execution
    }

    /// The largest batch, or the largest that the warm-up tries.
    pub(super) fn largest(&self) -> usize {
        self.max_batch_size.or_else(|| self.execution.provider.largest_tried())
    }

    /// The model's manifest.
    pub fn manifest(&self) -> &Arc<Manifest> {
        &self.manifest
    }
}

/// The model folder: the given one, else beside the executable, else the checkout's.
pub(crate) fn find_folder(given: Option<&Path>) -> Result<PathBuf, anyhow::Error> {
    if let Some(folder) = given {
        return Ok(folder.to_path_buf());
    }
    let beside = crate::beside_executable("../share/lfm-serve/model");
    let checkout = Path::new(env!("CARGO_MANIFEST_DIR")).join("models");
    let places: Vec<_> = beside.into_iter().chain([checkout]).collect();
    places.iter().find(|folder| folder.join("manifest.json").is_file()).cloned().ok_or_else(|| {
        let places = places.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ");
        anyhow::anyhow!("no model found: looked at {places}. Give --model DIR (LFM_MODEL)")
    })
}
