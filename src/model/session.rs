//! A session of ONNX Runtime on a thread of its own.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, mpsc},
    thread,
    time::{Duration, Instant},
};

use base64::{Engine, prelude::BASE64_STANDARD};
use ort::{
    ep,
    session::{Session, builder::GraphOptimizationLevel},
    value::TensorRef,
};
use tokio::sync::oneshot;

use super::{Linear, Manifest, Model, Output, RunError, manifest, op, runtime};
use crate::{
    config::{Auto, ModelConfig},
    image::{Pixels, SIDE},
};

/// The largest batch that is tried where none is given: on a CPU a run's time is all but proportional to its
/// images from one on.
pub const LARGEST_TRIED: usize = 4;

/// Maps that the network pools, each giving `k` values.
/// Maps that the network pools.
pub const MAPS: usize = 64;

/// What a session is made from: read and checked once, shared by all sessions and their rebuilds.
#[derive(Debug, Clone)]
pub struct SessionOptions {
    /// The graph's name in the folder, for errors.
    graph_name: &'static str,
    graph: Arc<[u8]>,
    manifest: Arc<Manifest>,
    config: ModelConfig,
    max_batch_size: Auto<usize>,
}

impl SessionOptions {
    /// Reads the model folder.
    ///
    /// # Errors
    /// One line for the operator: the folder, the manifest or a graph is missing or wrong.
    pub fn read(config: &ModelConfig, max_batch_size: Auto<usize>) -> Result<Self, anyhow::Error> {
        Self::read_graph(config, max_batch_size, manifest::GRAPH)
    }

    /// Reads the model folder for one of its graphs.
    ///
    /// # Errors
    /// As [`SessionOptions::read`].
    pub(super) fn read_graph(
        config: &ModelConfig,
        max_batch_size: Auto<usize>,
        graph_name: &'static str,
    ) -> Result<Self, anyhow::Error> {
        let folder = find_folder(config.model.as_deref())?;
        let manifest = Arc::new(Manifest::read(&folder)?);
        let graph = manifest.read_file(&folder, graph_name)?.into();
        Ok(Self { graph_name, graph, manifest, config: config.clone(), max_batch_size })
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
            let warm = Runner::warm(&options);
            match warm {
                Ok((mut runner, costs)) => {
                    let _ = ready.send(Ok(costs));
                    for (batch, reply) in inbox {
                        // A caller that no longer waits is no reason to stop.
                        let _ = reply.send(runner.run(&batch));
                    }
                }
                Err(error) => drop(ready.send(Err(error))),
            }
        })?;
        let ended = |_| Err(anyhow::anyhow!("the session's thread ended while starting"));
        let costs = started.recv().unwrap_or_else(ended)?;
        Ok(Self { calls, costs })
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
}

impl Runner {
    pub(super) fn new(options: &SessionOptions) -> Result<Self, anyhow::Error> {
        let environment = runtime::environment(options.config.ort_library.as_deref())?;
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
        Ok(Self { session, linear: Arc::new(linear), k, input: Vec::new() })
    }

    /// A session that has run what it will run, with its cost curve.
    fn warm(options: &SessionOptions) -> Result<(Self, Vec<Duration>), anyhow::Error> {
        let mut runner = Self::new(options)?;
        let costs = runner.warm_up(options.max_batch_size)?;
        if options.max_batch_size == Auto::Auto && costs.len() < LARGEST_TRIED {
            // A session never gives back what its largest run took, some 50 MB an image.
            runner = Self::new(options)?;
            runner.measure(costs.len())?;
        }
        Ok((runner, costs))
    }

    /// Measures the cost curve, so that the first request finds a warm session and a graph that does not fit
    /// fails at start-up. Its length is the largest batch: as given, or the smallest within 5 % of the most
    /// images a second.
    fn warm_up(&mut self, max_batch_size: Auto<usize>) -> Result<Vec<Duration>, anyhow::Error> {
        let largest = max_batch_size.or_else(|| LARGEST_TRIED);
        // Powers of two, and the largest itself; between them the curve is taken as straight.
        let powers = std::iter::successors(Some(1), |size| Some(size * 2)).take_while(|&size| size < largest);
        let mut measured = vec![(0, Duration::ZERO)];
        let mut sizes: Vec<usize> = powers.chain([largest]).collect();
        // The largest first: the arena that it needs holds the others too, while growing step by step keeps the steps.
        while let Some(size) = sizes.pop() {
            measured.insert(1, (size, self.measure(size)?));
        }
        let per_image = |&(size, cost): &(usize, Duration)| cost.as_secs_f64() / size.max(1) as f64;
        let best = measured.iter().skip(1).map(per_image).fold(f64::INFINITY, f64::min);
        let good_enough = measured.iter().skip(1).find(|point| per_image(point) <= 1.05 * best);
        let chosen = max_batch_size.or_else(|| good_enough.map_or(1, |&(size, _)| size));
        Ok((1..=chosen).map(|size| interpolate(&measured, size)).collect())
    }

    /// The better of two runs of black images, after one that pays for what a first run pays for.
    fn measure(&mut self, size: usize) -> Result<Duration, anyhow::Error> {
        let black = Pixels::new(vec![0; Pixels::LEN]).ok_or_else(|| anyhow::anyhow!("an input has another size"))?;
        let batch = vec![black; size];
        let mut best = Duration::MAX;
        for _ in 0..3 {
            let began = Instant::now();
            self.run(&batch).map_err(|error| anyhow::anyhow!("the model does not run: {error}"))?;
            best = best.min(began.elapsed());
        }
        Ok(best)
    }

    pub(super) fn run(&mut self, batch: &[Pixels]) -> Result<Vec<Output>, RunError> {
        let side = SIDE as usize;
        self.input.clear();
        for pixels in batch {
            self.input.extend_from_slice(pixels.as_bytes());
        }
        let failed = |error: ort::Error| RunError(runtime::one_line(&error));
        let input =
            TensorRef::from_array_view(([batch.len(), side, side, 3], self.input.as_slice())).map_err(failed)?;
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
        .with_intra_threads(options.config.intra_threads.or_else(|| 1))?
        .with_inter_threads(1)?
        // A pattern is one block for every batch size met: a third more memory, and no image a second.
        .with_memory_pattern(false)?
        // Threads that spin between runs burn the cores that decoding needs.
        .with_intra_op_spinning(false)?
        // What `placement` reads.
        .with_config_entry("session.record_ep_graph_assignment_info", "1")?
        .with_execution_providers([ep::CPU::default().with_arena_allocator(true).build().error_on_failure()])?;
    op::commit(builder, &options.graph)
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

/// The cost of a batch of `size` on the straight line between its measured neighbours.
fn interpolate(measured: &[(usize, Duration)], size: usize) -> Duration {
    let between = measured.windows(2).find_map(|pair| match pair {
        &[(low, cheap), (high, dear)] if (low..=high).contains(&size) && low < high => {
            let share = (size - low) as f64 / (high - low) as f64;
            Some(cheap.as_secs_f64() + share * (dear.as_secs_f64() - cheap.as_secs_f64()))
        }
        _ => None,
    });
    Duration::from_secs_f64(between.unwrap_or(0.0).max(0.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cost_curve_is_straight_between_what_was_measured() {
        let measured = [(0, 0), (1, 10), (2, 16), (8, 40)].map(|(size, ms)| (size, Duration::from_millis(ms)));
        for (size, ms) in [(1, 10), (2, 16), (5, 28), (8, 40)] {
            assert_eq!(interpolate(&measured, size), Duration::from_millis(ms), "{size}");
        }
    }
}
