//! The command line: one file a command.

mod bench;
mod bulk;
mod calibrate;
mod doctor;
mod errors;
mod evaluate;
mod files;
mod healthcheck;
mod import_onnx;
mod key;
mod labelled;
mod line;
mod progress;
mod score;
mod scorer;
mod serve;
mod systemd;

use std::{path::PathBuf, process::ExitCode};

use clap::{Parser, Subcommand};

use crate::{
    api::openapi,
    config::{LogConfig, LogFormat, ModelConfig},
    image::{avif, heic},
    model::{graphs, graphs_trial, rtx},
    telemetry,
};

/// Real or generated? Scores images with the LFM detector, exactly as the reference does.
#[derive(Debug, Parser)]
#[command(name = "lfm-serve", version = VERSION, about, max_term_width = 110, after_help = EXAMPLES)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), " (revision ", env!("LFM_REVISION"), ")");

const EXAMPLES: &str = "\
Examples:
  lfm-serve serve                                   serve the bundled model on 127.0.0.1:8080
  curl -F image=@photo.jpg localhost:8080/v1/score  ask it
  lfm-serve score photo.jpg uploads/                the same without a server
  lfm-serve evaluate testset/                       how good its verdicts are on labelled folders
  lfm-serve calibrate testset/ --out mine           verdicts for your own traffic: evidence from such folders
  lfm-serve doctor                                  can this machine run it, and does it run it right?

Every flag can be set in the environment as LFM_<FLAG>, e.g. LFM_LISTEN=0.0.0.0:8080.";

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve HTTP: POST /v1/score, probes, metrics.
    Serve(Box<crate::config::ServeConfig>),
    /// Score files and folders, and archives in object stores.
    Score(Box<score::ScoreArgs>),
    /// Measure verdicts and ranking on labelled folders.
    Evaluate(Box<evaluate::EvaluateArgs>),
    /// Make a model folder from the ONNX graph of any image detector.
    ImportOnnx(Box<import_onnx::ImportArgs>),
    /// Fit a model's evidence to your own labelled pictures.
    Calibrate(Box<calibrate::CalibrateArgs>),
    /// Check what this machine can run, and whether it runs it right.
    Doctor(Box<doctor::DoctorArgs>),
    /// Measure the operator, decoding, resizing and sessions on this machine.
    Bench(Box<crate::bench::BenchArgs>),
    /// Exit 0 when a server is ready, 1 when not: for a container's HEALTHCHECK.
    Healthcheck(healthcheck::HealthcheckArgs),
    /// Make an API key for --api-keys-file.
    Key(key::KeyArgs),
    /// Print the OpenAPI document.
    Openapi,
    /// Print the table of error codes.
    Errors,
    /// Decode one picture from standard input to standard output: what this program starts for each AVIF.
    #[command(name = avif::COMMAND, hide = true)]
    DecodeAv1 {
        /// What is to be done, as JSON.
        job: String,
    },
    /// The same for each HEIC; without a job it prints the version of the library that decodes it.
    #[command(name = heic::COMMAND, hide = true)]
    DecodeHevc {
        /// What is to be done, as JSON.
        job: Option<String>,
    },
    /// Try TensorRT RTX's plugin on this machine's GPU: what this program starts to keep a crash out of its own process.
    #[command(name = rtx::COMMAND, hide = true)]
    TryTensorRtRtx {
        /// ONNX Runtime's library.
        ort_library: PathBuf,
        /// The plugin.
        plugin: PathBuf,
    },
    /// The same for CUDA graphs, with the model that is served.
    #[command(name = graphs::COMMAND, hide = true)]
    TryCudaGraphs(Box<ModelConfig>),
}

impl Cli {
    /// Runs the command.
    ///
    /// # Errors
    /// What keeps the command from doing its work, as one line.
    pub fn run(self) -> Result<ExitCode, anyhow::Error> {
        match self.command {
            Command::Serve(config) => on_runtime(serve::run(*config)),
            Command::Score(args) => warning(score::run(*args)),
            Command::Evaluate(args) => warning(evaluate::run(*args)),
            Command::ImportOnnx(args) => import_onnx::run(&args),
            Command::Calibrate(args) => warning(calibrate::run(*args)),
            Command::Doctor(args) => doctor::run(&args),
            Command::Bench(args) => bench::run(&args),
            Command::Healthcheck(args) => Ok(healthcheck::run(&args)),
            Command::Key(args) => key::run(&args),
            Command::DecodeAv1 { job } => Ok(avif::child::run(&job)),
            Command::DecodeHevc { job } => Ok(heic::child::run(job.as_deref())),
            Command::TryTensorRtRtx { ort_library, plugin } => {
                print_line(&rtx::answer(&ort_library, &plugin))?;
                Ok(ExitCode::SUCCESS)
            }
            Command::TryCudaGraphs(config) => {
                print_line(&graphs_trial::answer(&config))?;
                Ok(ExitCode::SUCCESS)
            }
            Command::Openapi => {
                print_line(&openapi::document())?;
                Ok(ExitCode::SUCCESS)
            }
            Command::Errors => {
                print_line(errors::document().trim_end())?;
                Ok(ExitCode::SUCCESS)
            }
        }
    }
}

fn on_runtime<F: Future<Output = Result<ExitCode, anyhow::Error>>>(command: F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let ended = runtime.block_on(command);
    // A decode or a run that hangs must not keep the process.
    runtime.shutdown_background();
    ended
}

/// As [`on_runtime`], for a command that has no log: what goes wrong is said all the same, and that another execution
/// provider had to be taken.
fn warning<F: Future<Output = Result<ExitCode, anyhow::Error>>>(command: F) -> F::Output {
    // What ONNX Runtime says of an error is in the error.
    let _log = telemetry::start(&LogConfig { log_format: LogFormat::Text, log_level: "warn,ort=off".into() })?;
    on_runtime(command)
}

/// Writes a line to standard output at once. A reader that has gone (`| head`) is an error, not a panic.
fn print_line(line: &str) -> std::io::Result<()> {
    use std::io::Write;
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}")?;
    out.flush()
}
