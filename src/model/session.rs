//! A session of ONNX Runtime on a thread of its own.

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        mpsc::{self, RecvTimeoutError},
    },
    thread,
    time::{Duration, Instant},
};

use base64::{Engine, prelude::BASE64_STANDARD};
use ort::{
    ep,
    memory::{AllocationDevice, Allocator, AllocatorType, MemoryInfo, MemoryType},
    session::{Session, SessionInputValue, builder::GraphOptimizationLevel},
    value::{Tensor, TensorRef},
};
use tokio::sync::oneshot;

use super::{
    AssignedNode, Execution, Linear, Manifest, Model, Output, Provider, RunError, gpu, manifest, op,
    placement::assigned_nodes, runtime, warmup,
};
use crate::{
    config::{Auto, ModelConfig},
    image::{Pixels, SIDE},
};

/// How long a session may take to start before the log says that it still does.
const STILL_STARTING: Duration = Duration::from_secs(10);

/// Maps that the network pools, each giving `k` values.
pub const MAPS: usize = 64;

/// What a session is made from: read and checked once, shared by all sessions and their rebuilds.
#[derive(Debug, Clone)]
pub struct SessionOptions {
    /// The graph's name in the folder, for errors.
    graph_name: &'static str,
    graph: Arc<[u8]>,
    manifest: Arc<Manifest>,
    config: ModelConfig,
    pub(super) max_batch_size: Auto<usize>,
    execution: Arc<Execution>,
    /// Where TensorRT keeps its engines.
    pub(super) engine_cache: Option<PathBuf>,
}

impl SessionOptions {
    /// Reads the model folder and chooses the execution provider.
    ///
    /// # Errors
    /// One line for the operator: the folder, the manifest or a graph is missing or wrong, there is no ONNX Runtime,
    /// or the provider that was asked for cannot run.
    pub fn read(config: &ModelConfig, max_batch_size: Auto<usize>) -> Result<Self, anyhow::Error> {
        let folder = find_folder(config.model.as_deref())?;
        // Before the provider, which takes longer to find out.
        Manifest::read(&folder)?;
        Self::on(Execution::choose(config)?, config, max_batch_size)
    }

    /// Reads the model folder for what was chosen, or for the next best where the folder does not serve that one.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub fn on(execution: Execution, config: &ModelConfig, max_batch_size: Auto<usize>) -> Result<Self, anyhow::Error> {
        let manifest = Manifest::read(&find_folder(config.model.as_deref())?)?;
        let graph = execution.provider.graph(&manifest);
        let read = Self::read_graph(config, max_batch_size, graph, execution.clone());
        read.or_else(|error| Self::on(execution.step_down(config, error)?, config, max_batch_size))
    }

    /// The same on the next best provider, after this one failed with `error`.
    ///
    /// # Errors
    /// `error`, where the provider was asked for by name or there is no other.
    pub fn step_down(&self, error: anyhow::Error) -> Result<Self, anyhow::Error> {
        let next = Execution::clone(&self.execution).step_down(&self.config, error)?;
        Self::on(next, &self.config, self.max_batch_size)
    }

    /// The same, running one image at a time.
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
        Ok(Self { graph_name, graph, manifest, config, max_batch_size, execution, engine_cache })
    }

    /// Sessions to run side by side.
    pub fn sessions(&self, cpus: usize) -> usize {
        self.config.runtime.sessions.or_else(|| self.execution.provider.sessions(cpus))
    }

    /// What the sessions run on.
    pub fn execution(&self) -> &Execution {
        &self.execution
    }

    /// The largest batch that a session is to take, or to try.
    pub(super) fn largest(&self) -> usize {
        self.max_batch_size.or_else(|| self.execution.provider.largest_tried())
    }

    /// The model's manifest.
    pub fn manifest(&self) -> &Arc<Manifest> {
        &self.manifest
    }
}

/// The model folder: as given, else beside the executable, else the checkout's.
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

type Call = (Vec<Pixels>, oneshot::Sender<Result<Vec<Output>, RunError>>);

/// The model as a session worker sees it: calls go to a thread that owns the session, because
/// `Session::run` blocks and takes `&mut self` on purpose (pykeio/ort issues 402, 447).
#[derive(Debug)]
pub struct OnnxModel {
    calls: mpsc::Sender<Call>,
    costs: Vec<Duration>,
    nodes: Vec<AssignedNode>,
}

impl OnnxModel {
    /// Starts a session's thread and waits until the session has measured its cost curve.
    ///
    /// Blocks for the time a session takes to build and warm up: call it off the async runtime.
    ///
    /// # Errors
    /// One line for the operator: no ONNX Runtime, a graph that does not load or does not run.
    pub fn start(options: &SessionOptions) -> Result<Self, anyhow::Error> {
        let (calls, inbox) = mpsc::channel::<Call>();
        let (ready, started) = mpsc::channel();
        let options = options.clone();
        thread::Builder::new().name("session".into()).spawn(move || {
            // The session is built on the thread that runs it: an operator domain is not `Send`.
            let warm = warmup::warm(&options);
            match warm {
                Ok((mut runner, costs)) => {
                    let _ = ready.send(Ok((costs, runner.nodes.clone())));
                    for (batch, reply) in inbox {
                        // A caller that no longer waits is no reason to stop.
                        let _ = reply.send(runner.run(&batch));
                    }
                }
                Err(error) => drop(ready.send(Err(error))),
            }
        })?;
        let began = Instant::now();
        let (costs, nodes) = loop {
            match started.recv_timeout(STILL_STARTING) {
                Ok(warm) => break warm?,
                // TensorRT builds an engine for minutes.
                Err(RecvTimeoutError::Timeout) => {
                    tracing::info!(seconds = began.elapsed().as_secs(), "a session is still being built");
                }
                Err(RecvTimeoutError::Disconnected) => anyhow::bail!("the session's thread ended while starting"),
            }
        };
        Ok(Self { calls, costs, nodes })
    }

    /// Which execution provider runs which node.
    pub fn nodes(&self) -> &[AssignedNode] {
        &self.nodes
    }
}

impl Model for OnnxModel {
    fn costs(&self) -> &[Duration] {
        &self.costs
    }

    async fn run(&mut self, batch: Vec<Pixels>) -> Result<Vec<Output>, RunError> {
        let gone = || RunError("the session's thread has ended".into());
        let (reply, answer) = oneshot::channel();
        self.calls.send((batch, reply)).map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?
    }
}

/// The session and the buffer its input is gathered in.
pub(super) struct Runner {
    pub(super) session: Session,
    linear: Arc<Linear>,
    k: usize,
    input: Vec<u8>,
    /// Memory that a GPU reads without the CPU's help, where there is one.
    pinned: Option<Allocator>,
    nodes: Vec<AssignedNode>,
}

impl Runner {
    pub(super) fn new(options: &SessionOptions) -> Result<Self, anyhow::Error> {
        let environment = runtime::environment(options.config.runtime.ort_library.as_deref())?;
        let session = build(environment, options).map_err(|error| {
            anyhow::anyhow!(
                "ONNX Runtime cannot load the model's {}: {}",
                options.graph_name,
                runtime::one_line(&error)
            )
        })?;
        let k = options.manifest.k;
        let linear = read_linear(&session, k)
            .map_err(|reason| anyhow::anyhow!("the model's {} cannot be explained: {reason}", manifest::GRAPH))?;
        let provider = options.execution.provider;
        let nodes = assigned_nodes(&session).map_err(|error| anyhow::anyhow!(runtime::one_line(&error)))?;
        // A node on the CPU is refused by the session itself.
        anyhow::ensure!(
            nodes.iter().any(|node| node.provider == provider.ort_name()),
            "{} takes no node of the model's {}",
            provider.name(),
            options.graph_name
        );
        let pinned = (provider != Provider::Cpu).then(|| pinned(&session)).transpose().unwrap_or_else(|error| {
            tracing::warn!(error = runtime::one_line(&error), "no pinned memory: images reach the GPU by a detour");
            None
        });
        Ok(Self { session, linear: Arc::new(linear), k, input: Vec::new(), pinned, nodes })
    }

    pub(super) fn run(&mut self, batch: &[Pixels]) -> Result<Vec<Output>, RunError> {
        let failed = |error: ort::Error| RunError(runtime::one_line(&error));
        let shape = [batch.len(), SIDE as usize, SIDE as usize, 3];
        let input: SessionInputValue<'_> = match &self.pinned {
            Some(memory) => {
                let mut tensor = Tensor::<u8>::new(memory, shape).map_err(failed)?;
                let (_, places) = tensor.try_extract_tensor_mut::<u8>().map_err(failed)?;
                for (place, pixels) in places.chunks_exact_mut(Pixels::LEN).zip(batch) {
                    place.copy_from_slice(pixels.as_bytes());
                }
                tensor.into()
            }
            None => {
                self.input.clear();
                batch.iter().for_each(|pixels| self.input.extend_from_slice(pixels.as_bytes()));
                TensorRef::from_array_view((shape, self.input.as_slice())).map_err(failed)?.into()
            }
        };
        let outputs = self.session.run(ort::inputs!["pixels" => input]).map_err(failed)?;
        let get = |name: &str| outputs.get(name).ok_or_else(|| RunError(format!("the graph has no output {name}")));
        let (_, logits) = get("logit")?.try_extract_tensor::<f32>().map_err(failed)?;
        let (_, values) = get("topk_values")?.try_extract_tensor::<f32>().map_err(failed)?;
        let (_, indices) = get("topk_indices")?.try_extract_tensor::<i64>().map_err(failed)?;

        let per_image = MAPS * self.k;
        if per_image == 0
            || logits.len() != batch.len()
            || values.len() != batch.len() * per_image
            || indices.len() != values.len()
        {
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
                linear: Arc::clone(&self.linear),
            })
            .collect())
    }
}

fn build(environment: &ort::environment::Environment, options: &SessionOptions) -> ort::Result<Session> {
    let builder = Session::builder(environment)?
        .with_optimization_level(GraphOptimizationLevel::All)?
        .with_intra_threads(options.config.runtime.intra_threads.or_else(|| 1))?
        .with_inter_threads(1)?
        // A pattern is one block for every batch size met: a third more memory, and no image a second.
        .with_memory_pattern(false)?
        // Threads that spin between runs burn the cores that decoding needs.
        .with_intra_op_spinning(false)?
        // What `placement` reads.
        .with_config_entry("session.record_ep_graph_assignment_info", "1")?;
    let config = &options.config;
    let builder = match options.execution.provider {
        Provider::Cpu => builder
            .with_execution_providers([ep::CPU::default().with_arena_allocator(true).build().error_on_failure()])?,
        // Whoever asks for a GPU gets it for every node, or an error.
        Provider::Cuda => builder.with_disable_cpu_fallback()?.with_execution_providers([gpu::cuda(config)])?,
        Provider::TensorRt => {
            let precision = options.execution.precision;
            let tensorrt = gpu::tensorrt(config, precision, options.largest(), options.engine_cache.as_deref());
            builder.with_disable_cpu_fallback()?.with_execution_providers([tensorrt, gpu::cuda(config)])?
        }
    };
    op::commit(builder, &options.graph)
}

/// Memory of the host that stays where it is, so that the GPU fetches from it by itself.
fn pinned(session: &Session) -> ort::Result<Allocator> {
    let memory = MemoryInfo::new(AllocationDevice::CUDA_PINNED, 0, AllocatorType::Device, MemoryType::CPUInput)?;
    Allocator::new(session, memory)
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
