//! `lfm-serve doctor`: what this machine can run, and whether the results are correct.

mod golden;
mod limits;
mod machine;
mod model;
mod op;
mod report;

use std::{path::Path, process::ExitCode};

use clap::Args;

use self::{
    limits::Limits,
    report::{Finding, Report},
};
use crate::{
    config::{Auto, ModelConfig, ServeConfig},
    model::{AssignedNode, OnnxModel, SessionOptions, runtime, start_sessions},
};

/// Settings of `doctor`.
#[derive(Debug, Args)]
#[command(after_help = "Exit status: 0 when nothing is wrong, 1 when something is.")]
pub(super) struct DoctorArgs {
    /// One JSON object instead of a line a check.
    #[arg(long, env = "LFM_JSON")]
    json: bool,

    // All of them, so that a container's environment can be checked unchanged.
    #[command(flatten, next_help_heading = "Settings of `serve` to check the machine for")]
    serve: ServeConfig,
}

pub(super) fn run(args: &DoctorArgs) -> Result<ExitCode, anyhow::Error> {
    let report = examine(&args.serve);
    super::print_line(&if args.json { serde_json::to_string_pretty(&report)? } else { report.text() })?;
    Ok(if report.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn examine(config: &ServeConfig) -> Report {
    let model = &config.model;
    let limits = Limits::read(Path::new("/"));
    let mut report = Report::new();
    report.add("cpu", machine::cpu());
    report.add("limits", machine::limits(&limits, config));
    // Before anything large is loaded: with too small a limit the kernel would kill the program without a message.
    let memory = ("memory", report.add("memory", machine::memory(&limits, config)));
    report.add("golden", golden::check());
    report.add("op", op::check());
    let manifest = ("manifest", report.add("manifest", model::manifest(model)));
    let library = ("library", report.add("library", after(&[memory], || library(model))));
    let graphs = after(&[library, manifest], || model::graphs(model));
    let graphs = ("graphs", report.add("graphs", graphs));
    let mut nodes = Vec::new();
    let served = after(&[library, manifest, graphs], || providers(config, &mut nodes));
    let providers = ("providers", report.add("providers", served));
    report.add("placement", after(&[providers], || Ok(Finding::placement(nodes))));
    report
}

/// A check that depends on others having passed.
fn after(needed: &[(&str, bool)], check: impl FnOnce() -> Result<Finding, anyhow::Error>) -> Finding {
    match needed.iter().find(|(_, held)| !held) {
        Some((missing, _)) => Finding::skip(missing),
        None => check().into(),
    }
}

/// ONNX Runtime: loaded, and of the tested version.
fn library(config: &ModelConfig) -> Result<Finding, anyhow::Error> {
    runtime::environment(config.runtime.ort_library.as_deref())?;
    let path = runtime::find_library(config.runtime.ort_library.as_deref())?;
    let path = path.canonicalize().unwrap_or(path);
    Ok(Finding::ok(format!("ONNX Runtime {}, {}", runtime::VERSION, path.display())))
}

/// The execution providers: which can be used, why others cannot, and which one `serve` runs on; a session like those
/// of `serve` is built to try it.
fn providers(config: &ServeConfig, nodes: &mut Vec<AssignedNode>) -> Result<Finding, anyhow::Error> {
    let mut model = config.model.clone();
    model.runtime.sessions = Auto::Fixed(1);
    let options = SessionOptions::read(&model, config.max_batch_size)?;
    let chosen = options.execution().provider;
    let (options, sessions) = start_sessions(options)?;
    nodes.extend(sessions.iter().flat_map(OnnxModel::nodes).cloned());
    let served = options.execution();
    let mut shown: Vec<_> = served
        .availability(&model)?
        .iter()
        .map(|one| match &one.refusal {
            None => format!("{}: usable", one.provider.name()),
            Some(reason) => format!("{}: not usable, {reason}", one.provider.name()),
        })
        .collect();
    shown.push(format!("serve runs on {}, {}", served.provider.name(), served.precision.name()));
    let shown = shown.join("; ");
    Ok(if served.provider == chosen { Finding::ok(shown) } else { Finding::warn(shown) })
}
