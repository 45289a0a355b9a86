//! An ONNX Runtime session: pixels in, outputs out.

use std::sync::Arc;

use base64::{Engine, prelude::BASE64_STANDARD};
use ort::{
    ep,
    memory::Allocator,
    session::{RunOptions, Session, SessionInputValue, builder::GraphOptimizationLevel},
    value::{Tensor, TensorRef},
};

use super::{
    AssignedNode, CudaGraphs, Linear, Output, Provider, RunError, SessionOptions,
    binding::{self, Bound, Memory, Raw, failed},
    gpu, graphs, manifest, op,
    placement::assigned_nodes,
    rtx, runtime,
};
use crate::image::Pixels;

/// Feature maps that the network pools, `k` values each.
pub const MAPS: usize = 64;

/// The session and its input buffer.
pub struct Runner {
    pub(super) session: Session,
    linear: Arc<Linear>,
    k: usize,
    /// Width and height of an image.
    size: [u32; 2],
    input: Vec<u8>,
    /// Pinned host memory, with CUDA.
    pinned: Option<Allocator>,
    /// The batch sizes that run at fixed addresses, from 1 image on.
    pub(super) bound: Vec<Bound>,
    /// Options of all others.
    options: RunOptions,
    nodes: Vec<AssignedNode>,
}

impl Runner {
    /// Builds the session.
    ///
    /// # Errors
    /// One line for the operator: no ONNX Runtime, a graph that does not load.
    pub fn new(options: &SessionOptions) -> Result<Self, anyhow::Error> {
        let environment = runtime::environment(options.config.runtime.ort_library.as_deref())?;
        let session = build(environment, options).map_err(|error| {
            anyhow::anyhow!(
                "ONNX Runtime cannot load the model's {}: {}",
                options.graph_name,
                runtime::one_line(&error)
            )
        })?;
        let k = options.manifest.k;
        let linear = if options.manifest.explains() { read_linear(&session, k) } else { Ok(Linear::default()) };
        let linear = linear
            .map_err(|reason| anyhow::anyhow!("the model's {} cannot be explained: {reason}", manifest::GRAPH))?;
        let provider = options.execution.provider;
        let nodes = assigned_nodes(&session).map_err(|error| anyhow::anyhow!(runtime::one_line(&error)))?;
        // The session itself refuses to place a node on the CPU.
        anyhow::ensure!(
            nodes.iter().any(|node| node.provider == provider.ort_name()),
            "{} takes no node of the model's {}",
            provider.name(),
            options.graph_name
        );
        let with_cuda = matches!(provider, Provider::Cuda | Provider::TensorRt);
        let pinned = with_cuda.then(|| binding::pinned(&session)).transpose().unwrap_or_else(|error| {
            tracing::warn!(error = runtime::one_line(&error), "no pinned memory: copies to the GPU are slower");
            None
        });
        let size = options.manifest.preprocessing.input();
        let (bound, run_options) = if options.execution.graphs == CudaGraphs::On {
            let largest = options.largest().min(graphs::LARGEST);
            (Bound::up_to(largest, size, &session, &Memory::gpu(&session)?)?, binding::without_graph()?)
        } else {
            (Vec::new(), RunOptions::new()?)
        };
        let (linear, input, options) = (Arc::new(linear), Vec::new(), run_options);
        Ok(Self { session, linear, k, size, input, pinned, bound, options, nodes })
    }

    /// Width and height of an image of a batch.
    pub(super) fn input(&self) -> [u32; 2] {
        self.size
    }

    /// The execution provider of each node.
    pub(super) fn nodes(&self) -> &[AssignedNode] {
        &self.nodes
    }

    /// Runs one batch; blocks.
    ///
    /// # Errors
    /// Those of ONNX Runtime, or outputs that do not match the interface.
    pub fn run(&mut self, batch: &[Pixels]) -> Result<Vec<Output>, RunError> {
        let [width, height] = self.size;
        if batch.iter().any(|pixels| pixels.as_bytes().len() != width as usize * height as usize * 3) {
            return Err(RunError(format!("an input does not have {width} x {height} pixels")));
        }
        match batch.len().checked_sub(1).and_then(|place| self.bound.get_mut(place)) {
            Some(bound) => outputs(bound.run(&mut self.session, batch)?, batch.len(), self.k, &self.linear),
            None => self.run_unbound(batch),
        }
    }

    /// The same at whatever addresses; the images have the graph's size.
    pub(super) fn run_unbound(&mut self, batch: &[Pixels]) -> Result<Vec<Output>, RunError> {
        let [width, height] = self.size.map(|side| side as usize);
        let shape = [batch.len(), height, width, 3];
        let input: SessionInputValue<'_> = match &self.pinned {
            Some(memory) => {
                let mut tensor = Tensor::<u8>::new(memory, shape).map_err(failed)?;
                let (_, bytes) = tensor.try_extract_tensor_mut::<u8>().map_err(failed)?;
                binding::fill(bytes, batch);
                tensor.into()
            }
            None => {
                self.input.clear();
                batch.iter().for_each(|pixels| self.input.extend_from_slice(pixels.as_bytes()));
                TensorRef::from_array_view((shape, self.input.as_slice())).map_err(failed)?.into()
            }
        };
        let run = self.session.run_with_options(ort::inputs!["pixels" => input], &self.options).map_err(failed)?;
        let get = |name: &str| run.get(name).ok_or_else(|| RunError(format!("the graph has no output {name}")));
        let (_, logits) = get("logit")?.try_extract_tensor::<f32>().map_err(failed)?;
        let topk = if self.k == 0 {
            None
        } else {
            let (_, values) = get("topk_values")?.try_extract_tensor::<f32>().map_err(failed)?;
            let (_, indices) = get("topk_indices")?.try_extract_tensor::<i64>().map_err(failed)?;
            Some((values, indices))
        };
        outputs(Raw { logits, topk }, batch.len(), self.k, &self.linear)
    }
}

/// Splits what a run gave by image.
fn outputs(raw: Raw<'_>, images: usize, k: usize, linear: &Arc<Linear>) -> Result<Vec<Output>, RunError> {
    let Raw { logits, topk } = raw;
    if k == 0 {
        if logits.len() != images {
            return Err(RunError(format!("the graph gives {} logits for {images} images", logits.len())));
        }
        let output = |&logit| Output {
            logit,
            topk_values: Box::default(),
            topk_indices: Box::default(),
            linear: Arc::clone(linear),
        };
        return Ok(logits.iter().map(output).collect());
    }
    let (values, indices) = topk.unwrap_or_default();
    let per_image = MAPS * k;
    if logits.len() != images || values.len() != images * per_image || indices.len() != values.len() {
        return Err(RunError("the graph's outputs do not have the shapes of the interface".into()));
    }
    let rows = values.chunks_exact(per_image).zip(indices.chunks_exact(per_image));
    Ok(logits
        .iter()
        .zip(rows)
        .map(|(&logit, (values, indices))| Output {
            logit,
            topk_values: values.into(),
            topk_indices: indices.into(),
            linear: Arc::clone(linear),
        })
        .collect())
}

fn build(environment: &ort::environment::Environment, options: &SessionOptions) -> ort::Result<Session> {
    let builder = Session::builder(environment)?
        .with_optimization_level(GraphOptimizationLevel::All)?
        .with_intra_threads(options.config.runtime.intra_threads.or_else(|| 1))?
        .with_inter_threads(1)?
        // A memory pattern allocates one block per batch size: a third more memory and no higher throughput.
        .with_memory_pattern(false)?
        // Threads that spin between runs take CPU time from decoding.
        .with_intra_op_spinning(false)?
        // Read by `placement`.
        .with_config_entry("session.record_ep_graph_assignment_info", "1")?;
    let config = &options.config;
    let builder = match options.execution.provider {
        Provider::Cpu => builder
            .with_execution_providers([ep::CPU::default().with_arena_allocator(true).build().error_on_failure()])?,
        // If a GPU is requested, every node runs on it, or it is an error.
        Provider::Cuda => {
            let cuda = gpu::cuda(config, options.execution.graphs == CudaGraphs::On);
            builder.with_disable_cpu_fallback()?.with_execution_providers([cuda])?
        }
        Provider::TensorRt => {
            let precision = options.execution.precision;
            let (input, cache) = (options.manifest.preprocessing.input(), options.engine_cache.as_deref());
            let tensorrt = gpu::tensorrt(config, precision, options.largest(), input, cache);
            builder.with_disable_cpu_fallback()?.with_execution_providers([tensorrt, gpu::cuda(config, false)])?
        }
        Provider::TensorRtRtx => {
            let plugin = rtx::find_library(config.runtime.tensorrt_rtx_library.as_deref()).map_err(ort::Error::new)?;
            let rtx = gpu::tensorrt_rtx(config, options.largest(), options.manifest.preprocessing.input());
            rtx::with_plugin(builder.with_disable_cpu_fallback()?, environment, &plugin, &rtx)?
        }
    };
    op::commit(builder, &options.graph, &options.layers)
}

/// The last layer, from the graph's metadata (base64 of little-endian float32; `models/README.md`).
fn read_linear(session: &Session, k: usize) -> Result<Linear, String> {
    let metadata = session.metadata().map_err(|error| runtime::one_line(&error))?;
    let read = |key: &str, length: usize| {
        let text = metadata.custom(key).ok_or_else(|| format!("its metadata has no {key}"))?;
        let bytes = BASE64_STANDARD.decode(text).map_err(|error| format!("its {key} is not base64: {error}"))?;
        let (values, rest) = bytes.as_chunks::<4>();
        if values.len() != length || !rest.is_empty() {
            return Err(format!("its {key} has {} bytes, not {}", bytes.len(), 4 * length));
        }
        Ok(values.iter().map(|&value| f32::from_le_bytes(value)).collect::<Box<[f32]>>())
    };
    let bias = read("lfm.linear.bias", 1)?.first().copied().unwrap_or_default();
    Ok(Linear { weight: read("lfm.linear.weight", MAPS * k)?, bias })
}
