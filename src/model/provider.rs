//! Execution providers: which ones this machine can run, which one is chosen, and why others are not.

use std::sync::OnceLock;

use libloading::Library;
use ort::{
    environment::Environment,
    ep::{self, ExecutionProvider, ExecutionProviderDispatch},
    session::Session,
};

use super::{
    CudaGraphs, graphs,
    manifest::{CPU_GRAPH, FOREIGN_GRAPH, GRAPH, Manifest, STANDARD_GRAPH},
    rtx, runtime, trial,
};
use crate::{
    config::{ModelConfig, Precision, ProviderChoice, RuntimeConfig, Switch},
    cuda::Driver,
};

/// An execution provider of ONNX Runtime.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Provider {
    /// The CPU.
    Cpu,
    /// CUDA.
    Cuda,
    /// TensorRT, with CUDA for the nodes that it does not support.
    TensorRt,
    /// TensorRT RTX, by its plugin.
    TensorRtRtx,
}

impl Provider {
    /// All of them, the slowest first.
    pub const ALL: [Self; 4] = [Self::Cpu, Self::Cuda, Self::TensorRt, Self::TensorRtRtx];

    /// Its name in `--provider`, the log and the metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Cuda => "cuda",
            Self::TensorRt => "tensorrt",
            Self::TensorRtRtx => "tensorrt-rtx",
        }
    }

    /// The setting that requests it.
    pub const fn choice(self) -> ProviderChoice {
        match self {
            Self::Cpu => ProviderChoice::Cpu,
            Self::Cuda => ProviderChoice::Cuda,
            Self::TensorRt => ProviderChoice::Tensorrt,
            Self::TensorRtRtx => ProviderChoice::TensorrtRtx,
        }
    }

    /// Its name in ONNX Runtime.
    pub(super) const fn ort_name(self) -> &'static str {
        match self {
            Self::Cpu => <ep::CPU as ExecutionProvider>::NAME,
            Self::Cuda => <ep::CUDA as ExecutionProvider>::NAME,
            Self::TensorRt => <ep::TensorRT as ExecutionProvider>::NAME,
            Self::TensorRtRtx => rtx::NAME,
        }
    }

    /// The graph that it runs, of those in the folder. Our operators would split the graph for TensorRT.
    pub(super) fn graph(self, manifest: &Manifest) -> &'static str {
        match self {
            _ if !manifest.explains() => FOREIGN_GRAPH,
            Self::Cpu if manifest.lists(CPU_GRAPH) => CPU_GRAPH,
            Self::Cpu | Self::Cuda => GRAPH,
            Self::TensorRt | Self::TensorRtRtx => STANDARD_GRAPH,
        }
    }

    /// The largest batch that the warm-up tries if none is given.
    pub const fn largest_tried(self) -> usize {
        match self {
            // A run's time is nearly proportional to its images.
            Self::Cpu => 4,
            // A few images do not saturate a GPU.
            Self::Cuda | Self::TensorRt | Self::TensorRtRtx => 32,
        }
    }

    /// Why these settings are not for it, if so.
    fn excluded_by(self, config: &RuntimeConfig) -> Option<String> {
        if config.precision != Precision::Fp32 && self != Self::TensorRt {
            return Some(format!("--precision {} runs on tensorrt only", config.precision.name()));
        }
        let graphs = config.cuda_graphs == Switch::On && self != Self::Cuda;
        graphs.then(|| "--cuda-graphs on runs on cuda only".to_owned())
    }

    /// Whether `auto` may take it: TensorRT RTX has never run on a GPU.
    fn is_automatic(self) -> bool {
        self != Self::TensorRtRtx
    }
}

/// Whether a provider can be used here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Availability {
    /// Which.
    pub provider: Provider,
    /// Why it cannot be used, on one line; `None` if it can.
    pub refusal: Option<String>,
}

/// Execution provider and precision of the sessions.
#[derive(Debug, Clone)]
pub struct Execution {
    /// The provider.
    pub provider: Provider,
    /// The precision of its arithmetic.
    pub precision: Precision,
    /// Whether its sessions run as CUDA graphs.
    pub graphs: CudaGraphs,
    /// Better providers that `auto` rejected: unusable here, or unable to run the model. Best first.
    pub passed_over: Vec<Availability>,
}

impl Execution {
    /// The CPU, always available.
    pub const CPU: Self =
        Self { provider: Provider::Cpu, precision: Precision::Fp32, graphs: CudaGraphs::Off, passed_over: Vec::new() };

    /// The requested provider, or the best one that works; with CUDA graphs, if they are requested and work.
    ///
    /// # Errors
    /// One line for the operator: no ONNX Runtime, settings that exclude each other, or the requested provider cannot run
    /// here.
    pub fn choose(config: &ModelConfig) -> Result<Self, anyhow::Error> {
        config.runtime.check(1).map_err(anyhow::Error::msg)?;
        let environment = runtime::environment(config.runtime.ort_library.as_deref())?;
        let refusal = |provider| refusal(provider, &config.runtime, environment);
        Ok(Self::pick(config, Vec::new(), refusal)?.with_graphs(config, graphs::try_apart))
    }

    /// Number of parallel sessions if none is given.
    pub fn sessions(&self, cpus: usize) -> usize {
        match self.provider {
            Provider::Cpu => cpus,
            // While a graph is captured, no other session may run.
            Provider::Cuda if self.graphs == CudaGraphs::On => 1,
            // One session copies while the other computes.
            Provider::Cuda | Provider::TensorRt | Provider::TensorRtRtx => 2,
        }
    }

    /// The same with CUDA graphs, if they are requested and pass the trial.
    fn with_graphs(self, config: &ModelConfig, trial: impl FnOnce(&ModelConfig) -> Result<(), String>) -> Self {
        if config.runtime.cuda_graphs == Switch::Off {
            return self;
        }
        match trial(config) {
            Ok(()) => Self { graphs: CudaGraphs::On, ..self },
            Err(reason) => self.without_graphs(reason),
        }
    }

    fn without_graphs(self, reason: String) -> Self {
        tracing::warn!(reason, "CUDA graphs cannot be used: CUDA runs without them");
        Self { graphs: CudaGraphs::Refused(reason), ..self }
    }

    /// The next best, for when this one passed the trial but cannot run the model: the same without CUDA graphs, or where
    /// `auto` chose it the next best provider.
    ///
    /// # Errors
    /// `error`, if this provider was requested by name or is the last.
    pub fn step_down(mut self, config: &ModelConfig, error: anyhow::Error) -> Result<Self, anyhow::Error> {
        if self.graphs == CudaGraphs::On {
            return Ok(self.without_graphs(format!("{error:#}")));
        }
        if config.runtime.provider != ProviderChoice::Auto {
            return Err(error);
        }
        let environment = runtime::environment(config.runtime.ort_library.as_deref())?;
        let reason = format!("{error:#}");
        self.passed_over.push(Availability { provider: self.provider, refusal: Some(reason.clone()) });
        let refusal = |provider| refusal(provider, &config.runtime, environment);
        let next = Self::pick(config, self.passed_over, refusal).map_err(|_| error)?;
        let (provider, next_best) = (self.provider.name(), next.provider.name());
        tracing::warn!(provider, reason, next_best, "this execution provider cannot run the model");
        Ok(next)
    }

    /// The requested provider, or the best of those that are not yet `passed_over`.
    fn pick(
        config: &ModelConfig,
        mut passed_over: Vec<Availability>,
        refusal: impl Fn(Provider) -> Option<String>,
    ) -> Result<Self, anyhow::Error> {
        let precision = config.runtime.precision;
        let named = Provider::ALL.into_iter().find(|provider| provider.choice() == config.runtime.provider);
        let graphs = CudaGraphs::Off;
        let refusal = |provider: Provider| provider.excluded_by(&config.runtime).or_else(|| refusal(provider));
        if let Some(provider) = named {
            return match refusal(provider) {
                None => Ok(Self { provider, precision, graphs, passed_over }),
                Some(reason) => Err(anyhow::anyhow!("--provider {} cannot run: {reason}", provider.name())),
            };
        }
        let mut left: Vec<_> = Provider::ALL.into_iter().filter(|provider| provider.is_automatic()).rev().collect();
        left.retain(|provider| passed_over.iter().all(|one| one.provider != *provider));
        for provider in left {
            match refusal(provider) {
                None => return Ok(Self { provider, precision, graphs, passed_over }),
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

    /// Tries every provider, for `doctor` and the metrics. Slow on a machine with a GPU.
    ///
    /// # Errors
    /// If there is no ONNX Runtime.
    pub fn availability(&self, config: &ModelConfig) -> Result<Vec<Availability>, anyhow::Error> {
        let environment = runtime::environment(config.runtime.ort_library.as_deref())?;
        let known = |provider| self.passed_over.iter().find(|one| one.provider == provider).cloned();
        let tried = |provider| Availability { provider, refusal: refusal(provider, &config.runtime, environment) };
        Ok(Provider::ALL.map(|provider| known(provider).unwrap_or_else(|| tried(provider))).into())
    }
}

/// Why a provider cannot be used, if so. Each is tried once per process, because a trial on a GPU is slow.
fn refusal(provider: Provider, config: &RuntimeConfig, environment: &Environment) -> Option<String> {
    static TRIED: [OnceLock<Option<String>>; Provider::ALL.len()] = [const { OnceLock::new() }; Provider::ALL.len()];
    TRIED[provider as usize].get_or_init(|| examine(provider, config, environment).err()).clone()
}

/// # Errors
/// Why the provider cannot be used.
fn examine(provider: Provider, config: &RuntimeConfig, environment: &Environment) -> Result<(), String> {
    let built_in = |available: ort::Result<bool>| match available {
        Ok(true) => Ok(()),
        _ => Err("this ONNX Runtime is built without it: run `make vendor-gpu` for one that has it".to_owned()),
    };
    match provider {
        Provider::Cpu => return Ok(()),
        Provider::Cuda => built_in(ep::CUDA::is_available())?,
        Provider::TensorRt => built_in(ep::TensorRT::is_available())?,
        Provider::TensorRtRtx => drop(rtx::find_library(config.tensorrt_rtx_library.as_deref())?),
    }
    let missing: Vec<_> = needs(provider).iter().filter_map(Need::missing).collect();
    if !missing.is_empty() {
        return Err(format!("cannot load {}", missing.join(", ")));
    }
    Driver::get().and_then(Driver::first_device).map_err(|error| error.to_string())?;
    let tried = match provider {
        Provider::Cpu => Ok(()),
        Provider::Cuda => try_out(environment, ep::CUDA::default().build(), trial::GRAPH),
        Provider::TensorRt => try_out(environment, ep::TensorRT::default().build(), trial::STANDARD_GRAPH),
        Provider::TensorRtRtx => return rtx::try_apart(config),
    };
    tried.map_err(|error| runtime::one_line(&error))
}

/// Runs the trial on a provider, with no fallback.
fn try_out(environment: &Environment, provider: ExecutionProviderDispatch, graph: &[u8]) -> ort::Result<()> {
    let builder = Session::builder(environment)?.with_disable_cpu_fallback()?;
    trial::run(builder.with_execution_providers([provider.error_on_failure()])?, graph)
}

/// Libraries that a provider is linked against, and the package that installs them.
struct Need {
    libraries: &'static [&'static str],
    install: &'static str,
}

const DRIVER: Need = Need { libraries: &["libcuda.so.1"], install: "NVIDIA's driver, 580 or newer" };
const DRIVER_AND_NVML: Need = Need { libraries: &["libcuda.so.1", "libnvidia-ml.so.1"], ..DRIVER };
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

/// What a provider needs, in the order of installation.
fn needs(provider: Provider) -> &'static [Need] {
    match provider {
        Provider::Cpu => &[],
        // Without cuDNN it uses its own convolutions; the trial shows whether they run.
        Provider::Cuda => &[DRIVER, CUDA],
        Provider::TensorRt => &[DRIVER, CUDA, CUDNN, TENSORRT],
        // The rest comes with the plugin.
        Provider::TensorRtRtx => &[DRIVER_AND_NVML],
    }
}

impl Need {
    /// The library that cannot be loaded and how to install it, if any.
    fn missing(&self) -> Option<String> {
        #[allow(unsafe_code, reason = "libraries that ONNX Runtime would load next are loaded")]
        // SAFETY: running the initialisers of NVIDIA's libraries is what a GPU provider does.
        let cannot_load = |name: &&&str| unsafe { Library::new(**name) }.is_err();
        let missing: Vec<_> = self.libraries.iter().filter(cannot_load).copied().collect();
        (!missing.is_empty()).then(|| format!("{} ({})", missing.join(", "), self.install))
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

    /// Calls `pick` as on a machine where only these providers work.
    fn pick(flags: &[&str], working: &[Provider]) -> Result<Execution, String> {
        let config = Flags::try_parse_from([&["test"], flags].concat()).expect("the flags are right").config;
        let refusal = |provider| (!working.contains(&provider)).then(|| "it is broken".to_owned());
        Execution::pick(&config, Vec::new(), refusal).map_err(|error| error.to_string())
    }

    #[test]
    fn auto_takes_the_best_that_works_and_reports_why_not_the_others() {
        // TensorRT RTX works too, and is not taken.
        let best = pick(&[], &Provider::ALL).expect("all work");
        assert_eq!((best.provider, best.passed_over), (Provider::TensorRt, Vec::new()));
        let cpu = pick(&[], &[Provider::Cpu]).expect("the CPU works");
        assert_eq!(cpu.provider, Provider::Cpu);
        let passed_over: Vec<_> = cpu.passed_over.iter().map(|one| (one.provider, one.refusal.as_deref())).collect();
        assert_eq!(passed_over, [(Provider::TensorRt, Some("it is broken")), (Provider::Cuda, Some("it is broken"))]);
    }

    #[test]
    fn a_named_provider_is_used_or_an_error() {
        let cuda = pick(&["--provider", "cuda"], &Provider::ALL).expect("it works");
        assert_eq!(cuda.provider, Provider::Cuda);
        let rtx = pick(&["--provider", "tensorrt-rtx"], &Provider::ALL).expect("it works");
        assert_eq!(rtx.provider, Provider::TensorRtRtx);
        let error = pick(&["--provider", "tensorrt"], &[Provider::Cpu, Provider::Cuda]).unwrap_err();
        assert_eq!(error, "--provider tensorrt cannot run: it is broken");
    }

    #[test]
    fn half_precision_is_never_ignored() {
        let fp16 = pick(&["--precision", "fp16"], &Provider::ALL).expect("TensorRT works");
        assert_eq!((fp16.provider, fp16.precision), (Provider::TensorRt, Precision::Fp16));
        let error = pick(&["--precision", "fp16"], &[Provider::Cpu, Provider::Cuda]).unwrap_err();
        assert!(error.starts_with("no provider can run: tensorrt: it is broken; cuda: --precision fp16"), "{error}");
        for provider in ["cpu", "tensorrt-rtx"] {
            let error = pick(&["--precision", "fp16", "--provider", provider], &Provider::ALL).unwrap_err();
            assert_eq!(error, format!("--provider {provider} cannot run: --precision fp16 runs on tensorrt only"));
        }
    }

    #[test]
    fn cuda_graphs_run_on_cuda_only() {
        let auto = pick(&["--cuda-graphs", "on"], &Provider::ALL).expect("CUDA works");
        assert_eq!(auto.provider, Provider::Cuda);
        let error = pick(&["--cuda-graphs", "on"], &[Provider::Cpu, Provider::TensorRt]).unwrap_err();
        let reasons = "tensorrt: --cuda-graphs on runs on cuda only; cuda: it is broken; cpu: --cuda-graphs on runs";
        assert!(error.starts_with(&format!("no provider can run: {reasons}")), "{error}");
        for provider in ["cpu", "tensorrt", "tensorrt-rtx"] {
            let error = pick(&["--cuda-graphs", "on", "--provider", provider], &Provider::ALL).unwrap_err();
            assert_eq!(error, format!("--provider {provider} cannot run: --cuda-graphs on runs on cuda only"));
        }
    }

    /// Calls `with_graphs` as on a machine with CUDA.
    fn with_graphs(flags: &[&str], trial: Result<(), String>) -> (ModelConfig, Execution) {
        let config = Flags::try_parse_from([&["test"], flags].concat()).expect("the flags are right").config;
        let cuda = Execution { provider: Provider::Cuda, ..Execution::CPU };
        let chosen = cuda.with_graphs(&config, |_| trial);
        (config, chosen)
    }

    #[test]
    fn cuda_graphs_are_used_if_they_pass_the_trial() {
        let crashed = || "the trial ended the process that ran it: signal: 6 (SIGABRT)".to_owned();
        let (_, off) = with_graphs(&[], Err(crashed()));
        assert_eq!((&off.graphs, off.sessions(8)), (&CudaGraphs::Off, 2));
        for provider in ["auto", "cuda"] {
            let flags = ["--cuda-graphs", "on", "--provider", provider];
            let (_, refused) = with_graphs(&flags, Err(crashed()));
            assert_eq!((&refused.graphs, refused.sessions(8)), (&CudaGraphs::Refused(crashed()), 2));
            assert_eq!(refused.graphs.to_string(), format!("not in use: {}", crashed()));
            // Where the model then cannot run with them, it runs without.
            let (config, on) = with_graphs(&flags, Ok(()));
            assert_eq!((&on.graphs, on.sessions(8)), (&CudaGraphs::On, 1));
            let without = on.step_down(&config, anyhow::anyhow!("no memory")).expect("without");
            assert_eq!((without.provider, &without.graphs), (Provider::Cuda, &CudaGraphs::Refused("no memory".into())));
            assert_eq!(without.step_down(&config, anyhow::anyhow!("none")).unwrap_err().to_string(), "none");
        }
    }
}
