//! Execution providers: which of them this machine can run, which one is taken, and why not the others.

use std::sync::OnceLock;

use libloading::Library;
use ort::{
    environment::Environment,
    ep::{self, ExecutionProvider},
    session::{Session, builder::SessionBuilder},
    value::TensorRef,
};

use super::{
    manifest::{CPU_GRAPH, GRAPH, Manifest, STANDARD_GRAPH},
    op, runtime,
};
use crate::{
    config::{ModelConfig, Precision, ProviderChoice},
    cuda::Driver,
};

/// An execution provider of ONNX Runtime.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Provider {
    /// The CPU.
    Cpu,
    /// CUDA.
    Cuda,
    /// TensorRT, and CUDA for what it does not take.
    TensorRt,
}

impl Provider {
    /// All of them, the slowest first.
    pub const ALL: [Self; 3] = [Self::Cpu, Self::Cuda, Self::TensorRt];

    /// As in `--provider`, the log and the metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Cuda => "cuda",
            Self::TensorRt => "tensorrt",
        }
    }

    /// The setting that asks for it.
    pub const fn choice(self) -> ProviderChoice {
        match self {
            Self::Cpu => ProviderChoice::Cpu,
            Self::Cuda => ProviderChoice::Cuda,
            Self::TensorRt => ProviderChoice::Tensorrt,
        }
    }

    /// As ONNX Runtime calls it.
    pub(super) const fn ort_name(self) -> &'static str {
        match self {
            Self::Cpu => <ep::CPU as ExecutionProvider>::NAME,
            Self::Cuda => <ep::CUDA as ExecutionProvider>::NAME,
            Self::TensorRt => <ep::TensorRT as ExecutionProvider>::NAME,
        }
    }

    /// The graph that it runs, of those that the folder has: TensorRT knows our operators as holes in the graph only.
    pub(super) fn graph(self, manifest: &Manifest) -> &'static str {
        match self {
            Self::Cpu if manifest.lists(CPU_GRAPH) => CPU_GRAPH,
            Self::Cpu | Self::Cuda => GRAPH,
            Self::TensorRt => STANDARD_GRAPH,
        }
    }

    /// The largest batch that is tried where none is given.
    pub const fn largest_tried(self) -> usize {
        match self {
            // A run's time is all but proportional to its images from one on.
            Self::Cpu => 4,
            // A GPU is not filled by a few images.
            Self::Cuda | Self::TensorRt => 32,
        }
    }

    /// Sessions side by side where no number is given.
    pub fn sessions(self, cpus: usize) -> usize {
        match self {
            Self::Cpu => cpus,
            // One copies while the other computes.
            Self::Cuda | Self::TensorRt => 2,
        }
    }

    fn can_run(self, precision: Precision) -> bool {
        precision == Precision::Fp32 || self == Self::TensorRt
    }
}

/// Whether a provider can be used here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Availability {
    /// Which.
    pub provider: Provider,
    /// Why it cannot be used, on one line; none: it can.
    pub refusal: Option<String>,
}

/// What the sessions run on.
#[derive(Debug, Clone)]
pub struct Execution {
    /// The provider.
    pub provider: Provider,
    /// The precision of its arithmetic.
    pub precision: Precision,
    /// Better providers that `auto` found unusable, or unable to run the model, the best first.
    pub passed_over: Vec<Availability>,
}

impl Execution {
    /// The CPU, which is always there.
    pub const CPU: Self = Self { provider: Provider::Cpu, precision: Precision::Fp32, passed_over: Vec::new() };

    /// The provider that was asked for, or the best that works.
    ///
    /// # Errors
    /// One line for the operator: no ONNX Runtime, or what was asked for cannot run here.
    pub fn choose(config: &ModelConfig) -> Result<Self, anyhow::Error> {
        let environment = runtime::environment(config.runtime.ort_library.as_deref())?;
        Self::pick(config, Vec::new(), |provider| refusal(provider, environment))
    }

    /// The next best after this one, where `auto` chose it and it cannot run the model: a trial is not the model.
    ///
    /// # Errors
    /// `error`, why it cannot run the model: this one was asked for by name, or there is no other.
    pub fn step_down(mut self, config: &ModelConfig, error: anyhow::Error) -> Result<Self, anyhow::Error> {
        if config.runtime.provider != ProviderChoice::Auto {
            return Err(error);
        }
        let environment = runtime::environment(config.runtime.ort_library.as_deref())?;
        let reason = format!("{error:#}");
        self.passed_over.push(Availability { provider: self.provider, refusal: Some(reason.clone()) });
        let next =
            Self::pick(config, self.passed_over, |provider| refusal(provider, environment)).map_err(|_| error)?;
        let (provider, next_best) = (self.provider.name(), next.provider.name());
        tracing::warn!(provider, reason, next_best, "this execution provider cannot run the model");
        Ok(next)
    }

    /// The provider that was asked for, or the best of those that are not `passed_over` yet.
    fn pick(
        config: &ModelConfig,
        mut passed_over: Vec<Availability>,
        refusal: impl Fn(Provider) -> Option<String>,
    ) -> Result<Self, anyhow::Error> {
        let precision = config.runtime.precision;
        let named = Provider::ALL.into_iter().find(|provider| provider.choice() == config.runtime.provider);
        let refusal = |provider: Provider| match provider.can_run(precision) {
            true => refusal(provider),
            false => Some(format!("--precision {} runs on tensorrt only", precision.name())),
        };
        if let Some(provider) = named {
            return match refusal(provider) {
                None => Ok(Self { provider, precision, passed_over }),
                Some(reason) => Err(anyhow::anyhow!("--provider {} cannot run: {reason}", provider.name())),
            };
        }
        let mut left: Vec<_> = Provider::ALL.into_iter().rev().collect();
        left.retain(|provider| passed_over.iter().all(|one| one.provider != *provider));
        for provider in left {
            match refusal(provider) {
                None => return Ok(Self { provider, precision, passed_over }),
                Some(reason) => {
                    tracing::info!(provider = provider.name(), reason, "this execution provider cannot run");
                    passed_over.push(Availability { provider, refusal: Some(reason) });
                }
            }
        }
        let reasons = passed_over.iter().map(|one| {
            let reason = one.refusal.as_deref().unwrap_or_default();
            format!("{}: {reason}", one.provider.name())
        });
        Err(anyhow::anyhow!("no provider can run: {}", reasons.collect::<Vec<_>>().join("; ")))
    }

    /// Every provider, tried: what `doctor` and the metrics show. Slow where there is a GPU.
    ///
    /// # Errors
    /// If there is no ONNX Runtime.
    pub fn availability(&self, config: &ModelConfig) -> Result<Vec<Availability>, anyhow::Error> {
        let environment = runtime::environment(config.runtime.ort_library.as_deref())?;
        let known = |provider| self.passed_over.iter().find(|one| one.provider == provider).cloned();
        let tried = |provider| Availability { provider, refusal: refusal(provider, environment) };
        Ok(Provider::ALL.map(|provider| known(provider).unwrap_or_else(|| tried(provider))).into())
    }
}

/// Why a provider cannot be used, if so. Each is tried once a process, whoever asks: a trial on a GPU takes its time.
fn refusal(provider: Provider, environment: &Environment) -> Option<String> {
    static TRIED: [OnceLock<Option<String>>; Provider::ALL.len()] = [const { OnceLock::new() }; Provider::ALL.len()];
    TRIED[provider as usize].get_or_init(|| examine(provider, environment)).clone()
}

fn examine(provider: Provider, environment: &Environment) -> Option<String> {
    let built_in = match provider {
        Provider::Cpu => return None,
        Provider::Cuda => ep::CUDA::is_available(),
        Provider::TensorRt => ep::TensorRT::is_available(),
    };
    if !built_in.unwrap_or(false) {
        return Some("this ONNX Runtime is built without it: run `make vendor-gpu` for one that has it".into());
    }
    let missing: Vec<_> = needs(provider).iter().filter_map(Need::missing).collect();
    if !missing.is_empty() {
        return Some(format!("cannot load {}", missing.join(", ")));
    }
    if let Err(error) = Driver::get().and_then(Driver::first_device) {
        return Some(error.to_string());
    }
    try_out(provider, environment).err().map(|error| runtime::one_line(&error))
}

/// Libraries that a provider is linked against, and what they come with.
struct Need {
    libraries: &'static [&'static str],
    install: &'static str,
}

const DRIVER: Need = Need { libraries: &["libcuda.so.1"], install: "NVIDIA's driver, 580 or newer" };
const CUDA: Need = Need {
    libraries: &["libcudart.so.13", "libcublasLt.so.13", "libcublas.so.13", "libcurand.so.10"],
    install: "CUDA 13, apt-get install cuda-libraries-13-0 from NVIDIA's repository",
};
const CUDNN: Need = Need {
    libraries: &["libcudnn.so.9"],
    install: "cuDNN 9, apt-get install libcudnn9-cuda-13 from NVIDIA's repository",
};
const TENSORRT: Need = Need {
    libraries: &["libnvinfer.so.10", "libnvonnxparser.so.10"],
    install: "TensorRT 10, apt-get install libnvinfer10 libnvonnxparsers10 from NVIDIA's repository",
};

/// What a provider needs, by what is to be installed first.
fn needs(provider: Provider) -> &'static [Need] {
    match provider {
        Provider::Cpu => &[],
        // Without cuDNN it has convolutions of its own; the trial shows whether they run.
        Provider::Cuda => &[DRIVER, CUDA],
        Provider::TensorRt => &[DRIVER, CUDA, CUDNN, TENSORRT],
    }
}

impl Need {
    /// What cannot be loaded and how to get it, if anything.
    fn missing(&self) -> Option<String> {
        #[allow(unsafe_code, reason = "libraries that ONNX Runtime would load next are loaded")]
        // SAFETY: running the initialisers of NVIDIA's libraries is what a GPU provider does.
        let cannot_load = |name: &&&str| unsafe { Library::new(**name) }.is_err();
        let missing: Vec<_> = self.libraries.iter().filter(cannot_load).copied().collect();
        (!missing.is_empty()).then(|| format!("{} ({})", missing.join(", "), self.install))
    }
}

/// A convolution and a Top-K of it, by our operator and by ONNX's: what the network needs (made by trial.py).
const TRIAL: &[u8] = include_bytes!("trial.onnx");
const STANDARD_TRIAL: &[u8] = include_bytes!("trial.std.onnx");

/// Runs the trial on a GPU provider and nowhere else.
fn try_out(provider: Provider, environment: &Environment) -> ort::Result<()> {
    let (chosen, graph) = match provider {
        Provider::Cpu => return Ok(()),
        Provider::Cuda => (ep::CUDA::default().build(), TRIAL),
        Provider::TensorRt => (ep::TensorRT::default().build(), STANDARD_TRIAL),
    };
    let builder = Session::builder(environment)?.with_disable_cpu_fallback()?;
    run_trial(builder.with_execution_providers([chosen.error_on_failure()])?, graph)
}

fn run_trial(builder: SessionBuilder, graph: &[u8]) -> ort::Result<()> {
    let mut session = op::commit(builder, graph)?;
    let maps = [0.5_f32, -1.0, 4.0, 0.0, 3.0, -2.0, 1.0, 2.0];
    let input = TensorRef::from_array_view(([1, 1, 2, 4], &maps[..]))?;
    let outputs = session.run(ort::inputs!["x" => input])?;
    let missing = || ort::Error::new("the trial has no output");
    let (_, values) = outputs.get("values").ok_or_else(missing)?.try_extract_tensor::<f32>()?;
    let (_, indices) = outputs.get("indices").ok_or_else(missing)?.try_extract_tensor::<i64>()?;
    match (values, indices) {
        ([8.0, 6.0, 4.0], [2, 4, 7]) => Ok(()),
        wrong => Err(ort::Error::new(format!("the largest of twice {maps:?} came out as {wrong:?}"))),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Flags {
        #[command(flatten)]
        config: ModelConfig,
    }

    /// Picks on a machine where only these providers work.
    fn pick(flags: &[&str], working: &[Provider]) -> Result<Execution, String> {
        let config = Flags::try_parse_from([&["test"], flags].concat()).expect("the flags are right").config;
        let refusal = |provider| (!working.contains(&provider)).then(|| "it is broken".to_owned());
        Execution::pick(&config, Vec::new(), refusal).map_err(|error| error.to_string())
    }

    #[test]
    fn auto_takes_the_best_that_works_and_knows_why_not_the_others() {
        let best = pick(&[], &Provider::ALL).expect("all work");
        assert_eq!((best.provider, best.passed_over), (Provider::TensorRt, Vec::new()));
        let cpu = pick(&[], &[Provider::Cpu]).expect("the CPU works");
        assert_eq!(cpu.provider, Provider::Cpu);
        let passed_over: Vec<_> = cpu.passed_over.iter().map(|one| (one.provider, one.refusal.as_deref())).collect();
        assert_eq!(passed_over, [(Provider::TensorRt, Some("it is broken")), (Provider::Cuda, Some("it is broken"))]);
    }

    /// Where a GPU fails the trial, the GPU is to blame.
    #[test]
    fn the_cpu_passes_the_trial_on_both_graphs() {
        let environment = runtime::environment(None).expect("ONNX Runtime is there");
        for graph in [TRIAL, STANDARD_TRIAL] {
            run_trial(Session::builder(environment).expect("a builder"), graph).expect("the trial");
        }
    }

    #[test]
    fn one_that_was_named_is_taken_or_is_an_error() {
        let cuda = pick(&["--provider", "cuda"], &Provider::ALL).expect("it works");
        assert_eq!(cuda.provider, Provider::Cuda);
        let error = pick(&["--provider", "tensorrt"], &[Provider::Cpu, Provider::Cuda]).unwrap_err();
        assert_eq!(error, "--provider tensorrt cannot run: it is broken");
    }

    #[test]
    fn half_precision_is_never_dropped() {
        let fp16 = pick(&["--precision", "fp16"], &Provider::ALL).expect("TensorRT works");
        assert_eq!((fp16.provider, fp16.precision), (Provider::TensorRt, Precision::Fp16));
        let error = pick(&["--precision", "fp16"], &[Provider::Cpu, Provider::Cuda]).unwrap_err();
        assert!(error.starts_with("no provider can run: tensorrt: it is broken; cuda: --precision fp16"), "{error}");
        let error = pick(&["--precision", "fp16", "--provider", "cpu"], &Provider::ALL).unwrap_err();
        assert_eq!(error, "--provider cpu cannot run: --precision fp16 runs on tensorrt only");
    }
}
