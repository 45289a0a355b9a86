//! The `serve` command's settings.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use bytesize::ByteSize;
use clap::{Args, ValueEnum};

use super::{Auto, ClassRoute, DeclaredConfig, JudgeConfig, LimitsConfig, ModelConfig, RuntimeConfig};

/// The longest duration that makes sense for any setting.
const LONGEST: Duration = Duration::from_secs(24 * 3600);

/// The largest limit in bytes: above a tebibyte it is a mistake.
const MOST_BYTES: u64 = 1 << 40;

/// The most images in one request.
const MOST_IMAGES: usize = 4096;

/// The `serve` command's settings.
#[derive(Debug, Clone, Args)]
pub struct ServeConfig {
    /// Model folder (manifest.json and its graphs); given more than once, or by commas, each class of file is judged by
    /// one of the models (--route), or all judge together (--combine). Default: beside the executable (../share/lfm-serve/model), then the checkout's
    /// models/.
    #[arg(long = "model", env = "LFM_MODEL", value_name = "DIR", value_delimiter = ',')]
    pub models: Vec<PathBuf>,

    /// Classes of file that a model judges, e.g. lossy=NAME; NAME is the manifest's. Classes are those of the evidence,
    /// `jpeg` and `lossy` (JPEG, lossy WebP, AVIF) stand for several, a narrower one overrides. The first model judges
    /// the rest.
    #[arg(long, env = "LFM_ROUTE", value_name = "CLASS=NAME,..", value_delimiter = ',')]
    pub route: Vec<ClassRoute>,

    /// Combination of the models, as `calibrate` writes it of several: every image is run on all of them, and the weighted
    /// sum of their logits decides. Not together with --route.
    #[arg(long, env = "LFM_COMBINE", value_name = "FILE")]
    pub combine: Option<PathBuf>,

    /// The runtime.
    #[command(flatten)]
    pub runtime: RuntimeConfig,

    /// How logits become verdicts.
    #[command(flatten)]
    pub judge: JudgeConfig,

    /// Limits on what a client may send.
    #[command(flatten)]
    pub limits: LimitsConfig,

    /// What is reported of what files say of themselves.
    #[command(flatten)]
    pub declared: DeclaredConfig,

    /// Address of the HTTP service. Port 0 picks a free one; the first line on standard output names it.
    #[arg(long, env = "LFM_LISTEN", value_name = "ADDR", default_value = "127.0.0.1:8080")]
    pub listen: SocketAddr,

    /// Address of the Open Inference Protocol over gRPC, e.g. 127.0.0.1:8081. Off by default. Port 0 picks a free one;
    /// the second line on standard output names it.
    #[arg(long, env = "LFM_GRPC_LISTEN", value_name = "ADDR")]
    pub grpc_listen: Option<SocketAddr>,

    /// Address of probes and metrics, e.g. one that only the cluster reaches. The main address then serves only a bare
    /// /livez. Off by default: probes and metrics are on the main address and need no key.
    #[arg(long, env = "LFM_ADMIN_LISTEN", value_name = "ADDR")]
    pub admin_listen: Option<SocketAddr>,

    /// File of the API keys that callers need, one `name:sha256-hex[:max_in_flight=N][:weight=N]` a line (`lfm-serve key`
    /// makes them); read again when it changes. Off by default: no key is needed.
    #[arg(long, env = "LFM_API_KEYS_FILE", value_name = "FILE")]
    pub api_keys_file: Option<PathBuf>,

    /// Reverse proxies in front of the server, each of which appends the address of its caller to X-Forwarded-For (or to
    /// Forwarded, and then removes X-Forwarded-For). Clients without an API key share the machine by address: with 0
    /// the connection's address, with N the one that the outermost of N proxies saw.
    #[arg(long, env = "LFM_TRUSTED_PROXIES", value_name = "N", default_value_t = 0)]
    pub trusted_proxies: usize,

    /// Deadline of a request, from its head to its answer: the default, and the most a caller can ask
    /// for with X-Request-Timeout-Ms.
    #[arg(long, env = "LFM_REQUEST_TIMEOUT", value_name = "DURATION", default_value = "10s", value_parser = humantime::parse_duration)]
    pub request_timeout: Duration,

    /// Longest time that a request's body may take to arrive.
    #[arg(long, env = "LFM_BODY_TIMEOUT", value_name = "DURATION", default_value = "10s", value_parser = humantime::parse_duration)]
    pub body_timeout: Duration,

    /// Minimum rate, in bytes a second, of a request's body, after five seconds (`body_timeout`). 0: none.
    #[arg(long, env = "LFM_MIN_UPLOAD_RATE", value_name = "SIZE", default_value = "1KiB")]
    pub min_upload_rate: ByteSize,

    /// Connections held at once, over HTTP and gRPC together. When all are taken, idle ones are closed for new ones.
    /// `auto`: 8192, or what the limit on open files allows.
    #[arg(long, env = "LFM_MAX_CONNECTIONS", value_name = "N", default_value = "auto")]
    pub max_connections: Auto<usize>,

    /// Host names, separated by commas, that requests may address (against DNS rebinding, where browsers reach the
    /// server); probes and metrics accept any. Off by default: all names are accepted.
    #[arg(long, env = "LFM_ALLOWED_HOSTS", value_name = "HOST,..", value_delimiter = ',')]
    pub allowed_hosts: Vec<String>,

    /// Images in one /v1/score/batch request (`too_many_images`).
    #[arg(long, env = "LFM_MAX_BATCH_IMAGES", value_name = "N", default_value_t = 64)]
    pub max_batch_images: usize,

    /// Images in flight: being read, decoded, queued or run. `auto`: 64 per session of a model, at least 128. The last
    /// sixteenth is reserved for clients that hold less than an equal share.
    #[arg(long, env = "LFM_MAX_IN_FLIGHT", value_name = "N", default_value = "auto")]
    pub max_in_flight: Auto<usize>,

    /// Bytes of request bodies held in memory.
    #[arg(long, env = "LFM_MAX_ADMITTED_BYTES", value_name = "SIZE", default_value = "512MiB")]
    pub max_admitted_bytes: ByteSize,

    /// Images run in one batch. `auto`: the smallest size within 5 % of the highest throughput, measured at warm-up.
    #[arg(long, env = "LFM_MAX_BATCH_SIZE", value_name = "N", default_value = "auto")]
    pub max_batch_size: Auto<usize>,

    /// How long a free session may wait for images that are being decoded, to run them in one batch. 0: never.
    #[arg(long, env = "LFM_MAX_QUEUE_DELAY", value_name = "DURATION", default_value = "0ms", value_parser = humantime::parse_duration)]
    pub max_queue_delay: Duration,

    /// After SIGTERM: how long all requests are still served, until load balancers have seen that /readyz is off.
    #[arg(long, env = "LFM_DRAIN_DELAY", value_name = "DURATION", default_value = "5s", value_parser = humantime::parse_duration)]
    pub drain_delay: Duration,

    /// After SIGTERM: the latest time at which the process ends. Keep it below the orchestrator's grace period.
    #[arg(long, env = "LFM_DRAIN_TIMEOUT", value_name = "DURATION", default_value = "25s", value_parser = humantime::parse_duration)]
    pub drain_timeout: Duration,

    /// OpenTelemetry collector that receives traces (OTLP over HTTP), e.g. http://127.0.0.1:4318. Off by default.
    /// OpenTelemetry's OTEL_TRACES_SAMPLER sets the sampling; by default all traces except those the caller excludes.
    #[arg(long, env = "LFM_OTLP_ENDPOINT", value_name = "URL")]
    pub otlp_endpoint: Option<String>,

    /// The decision log: one JSON line for each scored image, appended to FILE; `-`: standard output. docs/audit.md has its
    /// schema. Off by default.
    #[arg(long, env = "LFM_AUDIT_LOG", value_name = "FILE")]
    pub audit_log: Option<PathBuf>,

    /// Size at which the decision log is rotated to FILE.1; ten parts are kept.
    #[arg(long, env = "LFM_AUDIT_LOG_MAX_BYTES", value_name = "SIZE", default_value = "256MiB")]
    pub audit_log_max_bytes: ByteSize,

    /// Origins whose pages may read answers (CORS), by commas, e.g. `https://desk.example`; `*`: any. Off by default: no other
    /// page can read an answer.
    #[arg(long, env = "LFM_CORS_ORIGIN", value_name = "ORIGIN", value_delimiter = ',')]
    pub cors_origin: Vec<String>,

    /// Logging.
    #[command(flatten)]
    pub log: LogConfig,
}

impl ServeConfig {
    /// Each model with the runtime.
    pub fn models(&self) -> Vec<ModelConfig> {
        ModelConfig::each(&self.models, &self.runtime)
    }

    /// Images admitted at once, where a model has this many sessions.
    pub fn max_in_flight(&self, sessions: usize) -> usize {
        self.max_in_flight.or_else(|| sessions.saturating_mul(64).max(128))
    }
}

/// Settings of the log.
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

impl ServeConfig {
    /// Checks for settings that are invalid, alone or together.
    ///
    /// # Errors
    /// The first of them, as one line for the operator.
    pub fn check(&self) -> Result<(), String> {
        let above_zero = [
            ("--request-timeout", self.request_timeout.is_zero()),
            ("--body-timeout", self.body_timeout.is_zero()),
            ("--max-body-bytes", self.limits.max_body_bytes.as_u64() == 0),
            ("--max-admitted-bytes", self.max_admitted_bytes.as_u64() == 0),
            ("--max-batch-images", self.max_batch_images == 0),
        ];
        if let Some((flag, _)) = above_zero.iter().find(|(_, zero)| *zero) {
            return Err(format!("{flag} 0: nothing could be served; give a value above 0"));
        }
        let durations = [
            ("--request-timeout", self.request_timeout),
            ("--body-timeout", self.body_timeout),
            ("--max-queue-delay", self.max_queue_delay),
            ("--drain-delay", self.drain_delay),
            ("--drain-timeout", self.drain_timeout),
        ];
        if let Some((flag, _)) = durations.iter().find(|(_, duration)| *duration > LONGEST) {
            return Err(format!("{flag} is longer than a day"));
        }
        let sizes = [
            ("--max-body-bytes", self.limits.max_body_bytes),
            ("--max-admitted-bytes", self.max_admitted_bytes),
            ("--min-upload-rate", self.min_upload_rate),
        ];
        if let Some((flag, _)) = sizes.iter().find(|(_, size)| size.as_u64() > MOST_BYTES) {
            return Err(format!("{flag} is larger than 1 TiB"));
        }
        if self.max_batch_images > MOST_IMAGES {
            return Err(format!("--max-batch-images is larger than {MOST_IMAGES}"));
        }
        self.runtime.check(self.models.len())?;
        self.contradiction().map_or(Ok(()), |contradiction| Err(contradiction.into()))
    }

    fn contradiction(&self) -> Option<&'static str> {
        let side = u64::from(self.limits.min_side);
        let same = |one: Option<SocketAddr>, other: Option<SocketAddr>| {
            one.is_some_and(|one| one.port() != 0 && Some(one) == other)
        };
        let (http, grpc, admin) = (Some(self.listen), self.grpc_listen, self.admin_listen);
        let contradictions = [
            (
                self.max_admitted_bytes < self.limits.max_body_bytes,
                "--max-admitted-bytes is smaller than --max-body-bytes: the largest bodies could never be accepted",
            ),
            (
                self.max_queue_delay >= self.request_timeout,
                "--max-queue-delay is not shorter than --request-timeout: images could expire while a session is free",
            ),
            (
                self.drain_delay > self.drain_timeout,
                "--drain-delay is longer than --drain-timeout: no time would be left for requests in flight",
            ),
            (
                self.combine.is_some() && !self.route.is_empty(),
                "--route and --combine exclude each other: a class of file goes to one model, or to all together",
            ),
            (side * side > self.limits.max_pixels.0, "--min-side asks for more pixels than --max-pixels allows"),
            (
                same(http, grpc) || same(http, admin) || same(grpc, admin),
                "two of --listen, --grpc-listen and --admin-listen are the same address",
            ),
        ];
        contradictions.into_iter().find_map(|(holds, what)| holds.then_some(what))
    }
}
