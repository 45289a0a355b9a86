//! What can be set: one struct a stage, each flag's doc comment is its help, its environment name and
//! its reference. Invalid settings end the program at start-up with one line.

use std::{net::SocketAddr, path::PathBuf, str::FromStr, time::Duration};

use bytesize::ByteSize;
use clap::{Args, ValueEnum};

/// Which model runs, and how.
#[derive(Debug, Clone, Args)]
pub struct ModelConfig {
    /// Model folder (manifest.json and its graphs). Default: beside the executable
    /// (../share/lfm-serve/model), then the checkout's models/.
    #[arg(long, env = "LFM_MODEL", value_name = "DIR")]
    pub model: Option<PathBuf>,

    /// What runs it, and how.
    #[command(flatten)]
    pub runtime: RuntimeConfig,
}

/// Where ONNX Runtime is found, and how it runs a model.
#[derive(Debug, Clone, Args)]
pub struct RuntimeConfig {
    /// ONNX Runtime's shared library (1.31). Default: ORT_DYLIB_PATH, then beside the executable
    /// (../lib), then the checkout's vendor/onnxruntime-gpu, then its vendor/onnxruntime.
    #[arg(long, env = "LFM_ORT_LIBRARY", value_name = "FILE")]
    pub ort_library: Option<PathBuf>,

    /// Execution provider. One that is named and cannot run ends the program; `auto` takes the best that works,
    /// and the log and `lfm-serve doctor` say why not the others.
    #[arg(long, env = "LFM_PROVIDER", value_name = "NAME", default_value = "auto")]
    pub provider: ProviderChoice,

    /// Precision of the arithmetic. fp16 is TensorRT's alone, and moves logits.
    #[arg(long, env = "LFM_PRECISION", value_name = "NAME", default_value = "fp32")]
    pub precision: Precision,

    /// Folder where TensorRT's engines are kept, which take minutes to build, by model, GPU and versions. Off by
    /// default: they are built at every start.
    #[arg(long, env = "LFM_ENGINE_CACHE_DIR", value_name = "DIR")]
    pub engine_cache_dir: Option<PathBuf>,

    /// Most GPU memory that each session's arena may take. Off by default.
    #[arg(long, env = "LFM_GPU_MEMORY_LIMIT", value_name = "SIZE")]
    pub gpu_memory_limit: Option<ByteSize>,

    /// Sessions that run side by side. `auto`: one a CPU that the cgroup allows; 2 on a GPU.
    #[arg(long, env = "LFM_SESSIONS", value_name = "N", default_value = "auto")]
    pub sessions: Auto<usize>,

    /// Threads inside one session. `auto`: 1 (one single-thread session a core gives the most images a second).
    #[arg(long, env = "LFM_INTRA_THREADS", value_name = "N", default_value = "auto")]
    pub intra_threads: Auto<usize>,
}

/// The `serve` command's settings.
#[derive(Debug, Clone, Args)]
pub struct ServeConfig {
    /// Model and runtime.
    #[command(flatten)]
    pub model: ModelConfig,

    /// Limits on what a client may send.
    #[command(flatten)]
    pub limits: LimitsConfig,

    /// Address of the HTTP service. Port 0 picks a free one; the first line on standard output names it.
    #[arg(long, env = "LFM_LISTEN", value_name = "ADDR", default_value = "127.0.0.1:8080")]
    pub listen: SocketAddr,

    /// Address of the Open Inference Protocol over gRPC, e.g. 127.0.0.1:8081. Off by default. Port 0 picks a free one;
    /// the second line on standard output names it.
    #[arg(long, env = "LFM_GRPC_LISTEN", value_name = "ADDR")]
    pub grpc_listen: Option<SocketAddr>,

    /// A second address for probes and metrics, e.g. one that only the cluster reaches. Off by default: they
    /// are on the main address anyway, never behind a key.
    #[arg(long, env = "LFM_ADMIN_LISTEN", value_name = "ADDR")]
    pub admin_listen: Option<SocketAddr>,

    /// File of the API keys that callers need, one `name:sha256-hex[:max_in_flight=N]` a line (`lfm-serve key`
    /// makes them); read again when it changes. Off by default: no key is asked for.
    #[arg(long, env = "LFM_API_KEYS_FILE", value_name = "FILE")]
    pub api_keys_file: Option<PathBuf>,

    /// Deadline of a request, from its head to its answer: the default, and the most a caller can ask
    /// for with X-Request-Timeout-Ms.
    #[arg(long, env = "LFM_REQUEST_TIMEOUT", value_name = "DURATION", default_value = "10s", value_parser = humantime::parse_duration)]
    pub request_timeout: Duration,

    /// Longest time that a request's body may take to arrive.
    #[arg(long, env = "LFM_BODY_TIMEOUT", value_name = "DURATION", default_value = "10s", value_parser = humantime::parse_duration)]
    pub body_timeout: Duration,

    /// Images in one /v1/score/batch request (`too_many_images`).
    #[arg(long, env = "LFM_MAX_BATCH_IMAGES", value_name = "N", default_value_t = 64)]
    pub max_batch_images: usize,

    /// Images admitted at once: being read, decoded, queued or run. `auto`: 64 a session, at least 128.
    #[arg(long, env = "LFM_MAX_IN_FLIGHT", value_name = "N", default_value = "auto")]
    pub max_in_flight: Auto<usize>,

    /// Bytes of request bodies held at once.
    #[arg(long, env = "LFM_MAX_ADMITTED_BYTES", value_name = "SIZE", default_value = "512MiB")]
    pub max_admitted_bytes: ByteSize,

    /// Images run in one batch. `auto`: the smallest size within 5 % of the best images a second, measured
    /// while warming up.
    #[arg(long, env = "LFM_MAX_BATCH_SIZE", value_name = "N", default_value = "auto")]
    pub max_batch_size: Auto<usize>,

    /// How long a free session may wait for images that are being decoded, to run them in one batch. 0: never.
    #[arg(long, env = "LFM_MAX_QUEUE_DELAY", value_name = "DURATION", default_value = "0ms", value_parser = humantime::parse_duration)]
    pub max_queue_delay: Duration,

    /// After SIGTERM: how long everything is still served while the load balancer looks away.
    #[arg(long, env = "LFM_DRAIN_DELAY", value_name = "DURATION", default_value = "5s", value_parser = humantime::parse_duration)]
    pub drain_delay: Duration,

    /// After SIGTERM: the latest moment at which the process ends. Keep it below the orchestrator's grace period.
    #[arg(long, env = "LFM_DRAIN_TIMEOUT", value_name = "DURATION", default_value = "25s", value_parser = humantime::parse_duration)]
    pub drain_timeout: Duration,

    /// OpenTelemetry collector that is sent traces (OTLP over HTTP), e.g. http://127.0.0.1:4318. Off by default. What is
    /// sampled is OpenTelemetry's OTEL_TRACES_SAMPLER: all that the caller does not leave out.
    #[arg(long, env = "LFM_OTLP_ENDPOINT", value_name = "URL")]
    pub otlp_endpoint: Option<String>,

    /// Logging.
    #[command(flatten)]
    pub log: LogConfig,
}

/// Limits on what a client may send; each answers with a code of its own.
#[derive(Debug, Clone, Args)]
pub struct LimitsConfig {
    /// Largest request body (`body_too_large`).
    #[arg(long, env = "LFM_MAX_BODY_BYTES", value_name = "SIZE", default_value = "32MiB")]
    pub max_body_bytes: ByteSize,

    /// Most pixels an image may claim in its header (`image_too_large`); 1MP is 1,000,000 pixels.
    #[arg(long, env = "LFM_MAX_PIXELS", value_name = "PIXELS", default_value = "64MP")]
    pub max_pixels: Pixels,

    /// Smallest width and height that is judged, in pixels (`image_too_small`); 0 judges everything.
    #[arg(long, env = "LFM_MIN_SIDE", value_name = "PIXELS", default_value_t = 0)]
    pub min_side: u32,
}

impl LimitsConfig {
    /// The part that the image stage checks.
    pub fn image(&self) -> crate::image::Limits {
        crate::image::Limits { max_pixels: self.max_pixels.0, min_side: self.min_side, ..Default::default() }
    }
}

/// How the log looks.
#[derive(Debug, Clone, Args)]
pub struct LogConfig {
    /// Log format. `auto`: text on a terminal, JSON elsewhere.
    #[arg(long, env = "LFM_LOG_FORMAT", value_name = "FORMAT", default_value = "auto")]
    pub log_format: LogFormat,

    /// Log level: error, warn, info, debug, trace, or a tracing filter such as `lfm_serve=debug`.
    #[arg(long, env = "LFM_LOG_LEVEL", value_name = "LEVEL", default_value = "info")]
    pub log_level: String,
}

/// Formats of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// Text on a terminal, JSON elsewhere.
    Auto,
    /// For people.
    Text,
    /// One object a line.
    Json,
}

/// Execution providers of ONNX Runtime that can be asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ProviderChoice {
    /// The best that works.
    Auto,
    /// The CPU.
    Cpu,
    /// CUDA.
    Cuda,
    /// TensorRT, and CUDA for what it does not take.
    Tensorrt,
}

/// Precisions of the arithmetic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Precision {
    /// 32-bit floats, as in training.
    Fp32,
    /// 16-bit floats where TensorRT finds them faster.
    Fp16,
}

impl Precision {
    /// As in `--precision` and the metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Fp32 => "fp32",
            Self::Fp16 => "fp16",
        }
    }
}

/// A setting that the program works out itself unless it is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Auto<T> {
    /// Worked out from the machine.
    Auto,
    /// As given.
    Fixed(T),
}

impl<T> Auto<T> {
    /// The given value, or what the machine suggests.
    pub fn or_else(self, suggest: impl FnOnce() -> T) -> T {
        match self {
            Self::Auto => suggest(),
            Self::Fixed(value) => value,
        }
    }
}

impl FromStr for Auto<usize> {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "auto" {
            return Ok(Self::Auto);
        }
        match text.parse() {
            Ok(value) if value > 0 => Ok(Self::Fixed(value)),
            _ => Err("expected `auto` or a number above 0".into()),
        }
    }
}

/// A number of pixels, written `64MP`, `1.5MP` or in full.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pixels(pub u64);

impl FromStr for Pixels {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (number, unit) = match text.strip_suffix("MP") {
            Some(number) => (number.trim(), 1e6),
            None => (text.trim(), 1.0),
        };
        match number.parse::<f64>() {
            // 2^53: beyond it a float no longer counts single pixels.
            Ok(value) if value * unit >= 1.0 && value * unit <= 9e15 => Ok(Self((value * unit) as u64)),
            _ => Err("expected a number of pixels above 0, such as 64MP or 640000".into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pixels_read_megapixels_and_plain_numbers() {
        assert_eq!("64MP".parse(), Ok(Pixels(64_000_000)));
        assert_eq!("1.5MP".parse(), Ok(Pixels(1_500_000)));
        assert_eq!("4096".parse(), Ok(Pixels(4096)));
        for bad in ["", "MP", "-1", "0", "NaN", "inf", "1GP", "1e300MP"] {
            assert!(bad.parse::<Pixels>().is_err(), "{bad:?} was taken");
        }
    }

    #[test]
    fn auto_takes_the_word_or_a_positive_number() {
        assert_eq!("auto".parse(), Ok(Auto::Auto));
        assert_eq!("3".parse(), Ok(Auto::Fixed(3)));
        for bad in ["", "0", "-1", "AUTO", "1.5"] {
            assert!(bad.parse::<Auto<usize>>().is_err(), "{bad:?} was taken");
        }
    }
}
