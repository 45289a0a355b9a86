//! `lfm-serve doctor`: what this machine can run, and whether the results are correct.

mod golden;
mod limits;
mod machine;
mod model;
mod op;
mod report;

use std::{fs, path::Path, process::ExitCode, time::Duration};

use bytesize::ByteSize;
use clap::Args;

use self::{
    limits::Limits,
    report::{Finding, Report},
};
use crate::{
    config::{Auto, ModelConfig, RuntimeConfig, ServeConfig},
    image::{Preprocessing, heif_library},
    model::{
        AssignedNode, CudaGraphs, FOREIGN_GRAPH, Manifest, Model, OnnxModel, SessionOptions, find_folder, runtime,
        start_sessions,
    },
    scheduler::memory::SessionMemory,
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
    let models = config.models();
    let limits = Limits::read(Path::new("/"));
    let mut report = Report::new();
    report.add("cpu", machine::cpu());
    report.add("limits", machine::limits(&limits, config));
    // Before anything large is loaded: with too small a limit the kernel would kill the program without a message.
    let imported: Vec<_> = models.iter().map(Imported::look).collect();
    let mut needs: Vec<_> = imported.iter().map(|imported| machine::needs(config, imported.as_ref())).collect();
    let memory = machine::memory(&limits, config, &needs);
    let memory = match imported.iter().any(Option::is_some) {
        true => memory.after("counted with the weights alone, what runs take is below under session"),
        false => memory,
    };
    let memory = ("memory", report.add("memory", memory));
    report.add("golden", golden::check());
    report.add("heic", heic());
    report.add("op", op::check());
    // Of one model nothing needs to say which.
    let which =
        |model: &ModelConfig| model.model.as_ref().filter(|_| models.len() > 1).map(|f| f.display().to_string());
    let manifest = |model| ("manifest", report.add_of(which(model), "manifest", model::manifest(model)));
    let manifests: Vec<_> = models.iter().map(manifest).collect();
    if models.len() > 1 || config.combine.is_some() {
        report.add("routes", after(&manifests, || model::routes(config)));
    }
    let library = ("library", report.add("library", after(&[memory], || library(&config.runtime))));
    for (number, model) in models.iter().enumerate() {
        let manifest = manifests[number];
        let graphs = after(&[library, manifest], || model::graphs(model));
        let graphs = ("graphs", report.add_of(which(model), "graphs", graphs));
        let mut session = Session::default();
        let served = after(&[library, manifest, graphs], || providers(config, model, &mut session));
        let providers = ("providers", report.add_of(which(model), "providers", served));
        if let Some(imported) = &imported[number] {
            // Part of it may be memory that was freed before.
            let bytes = session.bytes.max(imported.graph);
            let measured = after(&[providers], || {
                needs[number].session = SessionMemory::each(bytes);
                let finding = machine::memory(&limits, config, &needs);
                Ok(finding.after(&format!("a session took {}", ByteSize(bytes))))
            });
            report.add_of(which(model), "session", measured);
        }
        report.add_of(which(model), "placement", after(&[providers], || Ok(Finding::placement(session.nodes))));
    }
    report
}

/// A session like those of `serve`.
#[derive(Default)]
struct Session {
    nodes: Vec<AssignedNode>,
    /// By how much resident memory grew with it.
    bytes: u64,
}

/// A model of which nothing is known before it runs.
struct Imported {
    preprocessing: Preprocessing,
    /// Size of its graph, weights included.
    graph: u64,
}

impl Imported {
    fn look(config: &ModelConfig) -> Option<Self> {
        let folder = find_folder(config.model.as_deref()).ok()?;
        let manifest = Manifest::read(&folder).ok()?;
        let graph = fs::metadata(folder.join(FOREIGN_GRAPH)).ok()?.len();
        (!manifest.explains()).then_some(Self { preprocessing: manifest.preprocessing, graph })
    }
}

/// A check that depends on others having passed.
fn after(needed: &[(&str, bool)], check: impl FnOnce() -> Result<Finding, anyhow::Error>) -> Finding {
    match needed.iter().find(|(_, held)| !held) {
        Some((missing, _)) => Finding::skip(missing),
        None => check().into(),
    }
}

/// Whether HEIC can be read. Without it nothing is wrong: it is off unless it is asked for.
fn heic() -> Finding {
    match heif_library(None) {
        Ok(version) => Finding::ok(format!("libde265 {version}")),
        Err(missing) => Finding::ok(missing),
    }
}

/// ONNX Runtime: loaded, and of the tested version.
fn library(config: &RuntimeConfig) -> Result<Finding, anyhow::Error> {
    runtime::environment(config.ort_library.as_deref())?;
    let path = runtime::find_library(config.ort_library.as_deref())?;
    let path = path.canonicalize().unwrap_or(path);
    Ok(Finding::ok(format!("ONNX Runtime {}, {}", runtime::VERSION, path.display())))
}

/// The execution providers: which can be used, why others cannot, and which one `serve` runs on; a session like those
/// of `serve` is built to try it.
fn providers(config: &ServeConfig, model: &ModelConfig, session: &mut Session) -> Result<Finding, anyhow::Error> {
    config.runtime.check(config.models.len()).map_err(anyhow::Error::msg)?;
    let mut model = model.clone();
    model.runtime.sessions = Auto::Fixed(1);
    let options = SessionOptions::read(&model, config.max_batch_size)?;
    let chosen = options.execution().provider;
    let resident = || limits::resident(Path::new("/")).unwrap_or(0);
    let before = resident();
    let (options, sessions) = start_sessions(options)?;
    session.bytes = resident().saturating_sub(before);
    session.nodes = sessions.iter().flat_map(OnnxModel::nodes).cloned().collect();
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
    shown.extend(served.graphs.asked_for().map(|graphs| format!("CUDA graphs: {graphs}")));
    shown.extend(sessions.first().map(|session| costs(session.costs())));
    let shown = shown.join("; ");
    let as_asked = served.provider == chosen && !matches!(served.graphs, CudaGraphs::Refused(_));
    Ok(if as_asked { Finding::ok(shown) } else { Finding::warn(shown) })
}

/// The cost curve at powers of two and at the largest batch.
fn costs(costs: &[Duration]) -> String {
    let last = costs.len();
    let sizes = (1..=last).filter(|size| size.is_power_of_two() || *size == last);
    let shown: Vec<_> = sizes.map(|size| format!("{size} in {:.1} ms", costs[size - 1].as_secs_f64() * 1e3)).collect();
    format!("images in a run: {}", shown.join(", "))
}
