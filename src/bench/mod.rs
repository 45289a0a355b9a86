//! `lfm-serve bench`: speed on this machine, as ratios of interleaved measurements.

mod cost;
mod declared;
mod graph;
mod images;
mod layers;
mod measure;
mod metrics;
mod mutants;
mod op;
mod pillow;
mod session;

use std::{
    fs,
    io::{self, IsTerminal},
    path::PathBuf,
};

use clap::{Args, ValueEnum};
use comfy_table::{CellAlignment, Table, presets};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

use self::{
    images::{Size, Task},
    measure::Rounds,
};
use crate::{
    config::{ModelConfig, Pixels},
    model::{self, Manifest, find_folder, runtime},
};

const EXPLANATION: &str = "\
Contenders run interleaved in rounds (A B A B), on one thread unless stated otherwise. The table shows the median
of the rounds and, in brackets, the quartiles. Ratios are computed within each round, so that a busy or throttled
machine affects both sides equally; absolute times are not reliable on such a machine. Times are CPU times of the
thread; images per second use wall-clock time and need an idle machine.

Sections:
  op       the operator lfm:TopKPooling against ONNX Runtime's TopK, k = 16, rows of 900, 64 rows per image, N
           images: both in an ONNX Runtime session; the operator's kernels alone; one pass that only reads
  decode   JPEG to a new buffer of full-size RGB, against Pillow
  prepare  JPEG to the network's 256x256 RGB input: decode and resize with reused buffers, as in the server;
           against Pillow
  regions  JPEG to the inputs of the centre and the four quadrants, as the server does for models that take native
           pixels; against Pillow, which decodes all of it and crops. The same for a JPEG with restart markers,
           between which the server reads no data
  cost     decoding of every format and variant: CPU time against the header's estimate, the longest time to
           stop after cancellation, and memory against the header's bound
  mutants  decoding of damaged files of every format at the default limits: the longest decode, and the highest
           ratio of time beyond 50 ms to the header's estimate; one thread per CPU; runs only if named
  declared reading what files say of themselves: the time it adds to a plain file, and that of the longest texts
  graph    images per second of the network's two CPU graphs, with standard operators and with ours, one image
           per run: on one thread, in one session with a thread per CPU, and in one session per CPU; left out for a
           model that has one graph. With --layers also each layer of ours, on one thread, by instruction set: FLOP,
           bytes, wall-clock time, and the share of the rate of multiply-adds that a loop in registers reaches
  session  images per second of the network by layout (one session with all CPUs, one session per CPU, and the
           layout of --sessions and --intra-threads if different) and by batch size
  metrics  the cost of all metric updates of one image

The sessions of all layouts are in memory at the same time, each with 12 MB for every image of its largest batch;
batch sizes that do not fit in this machine's memory are omitted.

Examples:
  lfm-serve bench                                      all of it, some minutes
  lfm-serve bench --only op --rounds 500               the operator, thoroughly
  lfm-serve bench --only prepare --sizes 6000x4000     one image size
  lfm-serve bench --only graph --layers                where the network's time goes
  lfm-serve bench --only session --batch-sizes 1,4 --sessions 2 --intra-threads 4
  lfm-serve bench --json > today.json                  to compare with tomorrow's";

/// Settings of `bench`.
#[derive(Debug, Args)]
#[command(after_help = EXPLANATION)]
pub struct BenchArgs {
    /// Sections to run, by commas. Default: all but mutants.
    #[arg(long, env = "LFM_ONLY", value_name = "SECTIONS", value_delimiter = ',')]
    only: Vec<Section>,

    /// Rounds that count, after one of warm-up. Default: op 100, decode, prepare and declared 20, graph 15, session
    /// 5.
    #[arg(long, env = "LFM_ROUNDS", value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    rounds: Option<u32>,

    /// In the section graph, measure each layer too.
    #[arg(long, env = "LFM_LAYERS")]
    layers: bool,

    /// Sizes of the images that are decoded, in pixels, by commas.
    #[arg(
        long,
        env = "LFM_SIZES",
        value_name = "WIDTHxHEIGHT",
        value_delimiter = ',',
        default_value = "256x256,1024x1024,4000x3000"
    )]
    sizes: Vec<Size>,

    /// Pixels claimed by the hostile files of the section `cost`.
    #[arg(long, env = "LFM_CLAIMED_PIXELS", value_name = "PIXELS", default_value = "64MP")]
    claimed_pixels: Pixels,

    /// Write the files of the section `cost` to this folder, to send them to a server.
    #[arg(long, env = "LFM_FILES", value_name = "DIR")]
    files: Option<PathBuf>,

    /// Files that the section `mutants` damages.
    #[arg(long, env = "LFM_MUTANTS", value_name = "N", default_value_t = 100_000)]
    mutants: u64,

    /// Images in a run of a session, by commas.
    #[arg(
        long,
        env = "LFM_BATCH_SIZES",
        value_name = "N",
        value_delimiter = ',',
        default_value = "1,2,4,8,16,32",
        value_parser = clap::value_parser!(u32).range(1..)
    )]
    batch_sizes: Vec<u32>,

    /// A Python with Pillow, to measure against. Default: the checkout's .venv-pillow (made by `make bench`),
    /// then python3.
    #[arg(long, env = "LFM_PYTHON", value_name = "FILE")]
    python: Option<PathBuf>,

    /// Print JSON, also on a terminal (a pipe gets JSON anyway).
    #[arg(long, env = "LFM_JSON")]
    json: bool,

    #[command(flatten)]
    model: ModelConfig,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Section {
    Op,
    Decode,
    /// Pixels to the network's input, against Pillow.
    Resize,
    Prepare,
    /// JPEG to five regions of native pixels, against Pillow.
    Regions,
    /// Decode cost of each format and variant, against its estimate.
    Cost,
    /// What decoding damaged files costs, against their estimates.
    Mutants,
    /// What reading what files declare adds.
    Declared,
    /// Our operators against ONNX Runtime's, the whole network.
    Graph,
    Session,
    Metrics,
}

#[derive(Debug, Serialize)]
struct Report {
    machine: Machine,
    #[serde(skip_serializing_if = "Option::is_none")]
    op: Option<Vec<op::Row>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    images: Option<images::Report>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cost: Option<cost::Report>,
    #[serde(skip_serializing_if = "Option::is_none")]
    mutants: Option<mutants::Report>,
    #[serde(skip_serializing_if = "Option::is_none")]
    declared: Option<Vec<declared::Row>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    graphs: Option<Vec<graph::Row>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    layers: Option<layers::Report>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sessions: Option<session::Report>,
    #[serde(skip_serializing_if = "Option::is_none")]
    metrics: Option<metrics::Report>,
}

/// Where the figures come from.
#[derive(Debug, Serialize)]
struct Machine {
    revision: &'static str,
    ort_version: &'static str,
    processor: Option<String>,
    /// CPUs that this process may use.
    cpus: usize,
    /// Runnable processes, averaged over the preceding minute.
    load_average: Option<f64>,
}

impl Machine {
    fn look() -> Self {
        let processors = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let name = processors.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
        let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
        Self {
            revision: crate::REVISION,
            ort_version: runtime::VERSION,
            processor: name.map(|(_, name)| name.to_owned()),
            cpus: model::cpus(),
            load_average: load.split(' ').next().and_then(|minute| minute.parse().ok()),
        }
    }
}

/// Runs the measurements and returns the report: a table for a terminal, JSON in a pipe.
///
/// # Errors
/// One line for the operator: no model, no ONNX Runtime, or the given Python has no Pillow.
pub fn report(args: &BenchArgs) -> Result<String, anyhow::Error> {
    let report = measure(args)?;
    Ok(if args.json || !io::stdout().is_terminal() { serde_json::to_string(&report)? } else { show(&report) })
}

fn measure(args: &BenchArgs) -> Result<Report, anyhow::Error> {
    let wanted = |section| args.only.is_empty() || args.only.contains(&section);
    let progress = ProgressBar::new_spinner().with_style(ProgressStyle::with_template("{spinner} {elapsed} {msg}")?);
    let rounds = |count: u32| Rounds { count: args.rounds.unwrap_or(count) as usize, progress: progress.clone() };
    let mut report = Report {
        machine: Machine::look(),
        op: None,
        images: None,
        cost: None,
        mutants: None,
        declared: None,
        graphs: None,
        layers: None,
        sessions: None,
        metrics: None,
    };
    if wanted(Section::Op) {
        report.op = Some(op::measure(args.model.runtime.ort_library.as_deref(), &rounds(100))?);
    }
    let tasks = [
        (Section::Decode, Task::Decode),
        (Section::Resize, Task::Resize),
        (Section::Prepare, Task::Prepare),
        (Section::Regions, Task::Regions),
    ];
    let tasks: Vec<_> = tasks.into_iter().filter_map(|(section, task)| wanted(section).then_some(task)).collect();
    if !tasks.is_empty() {
        report.images = Some(images::measure(&tasks, &args.sizes, args.python.as_deref(), &rounds(20))?);
    }
    if wanted(Section::Cost) {
        report.cost = Some(cost::measure(args.claimed_pixels.0, args.files.as_deref(), &rounds(3))?);
    }
    if args.only.contains(&Section::Mutants) {
        report.mutants = Some(mutants::measure(args.mutants, &rounds(1))?);
    }
    if wanted(Section::Declared) {
        report.declared = Some(declared::measure(&rounds(20))?);
    }
    // Unless it is asked for: a folder of another detector has one graph.
    let both_graphs = || anyhow::Ok(graph::has_both(&Manifest::read(&find_folder(args.model.model.as_deref())?)?));
    if args.only.contains(&Section::Graph) || (args.only.is_empty() && both_graphs()?) {
        report.graphs = Some(graph::measure(&args.model, &rounds(15))?);
        if args.layers {
            report.layers = Some(layers::measure(&args.model, &rounds(25))?);
        }
    }
    if wanted(Section::Session) {
        let batch_sizes: Vec<_> = args.batch_sizes.iter().map(|&size| size as usize).collect();
        report.sessions = Some(session::measure(&args.model, &batch_sizes, &rounds(5))?);
    }
    if wanted(Section::Metrics) {
        report.metrics = Some(metrics::measure(args.model.model.as_deref(), &rounds(100))?);
    }
    progress.finish_and_clear();
    Ok(report)
}

/// For the terminal.
fn show(report: &Report) -> String {
    let Machine { processor, cpus, load_average, .. } = &report.machine;
    let mut text = format!("{}, {cpus} CPUs for this process", processor.as_deref().unwrap_or("unknown processor"));
    if let Some(load) = load_average {
        let remark = if *load > 0.5 { "not idle, so trust the ratios only" } else { "idle" };
        text += &format!(", load {load} before the start ({remark})");
    }
    let mut section = |title: &str, table: Table, remarks: &[String]| {
        text += &format!("\n\n{title}\n{table}");
        remarks.iter().for_each(|remark| text += &format!("\n{remark}"));
    };
    if let Some(rows) = &report.op {
        let title = "Top-K of (N, 64, 30, 30), k = 16, one thread; times as fast as ONNX Runtime's TopK";
        section(title, op::tabulate(rows), &[]);
    }
    if let Some(images) = &report.images {
        let title =
            "JPEG 4:2:0, quality 90, one thread; prepare: decode and resize to 256x256, regions: five of that size";
        section(title, images::tabulate(images), &images::remarks(images));
    }
    if let Some(cost) = &report.cost {
        let title = "Decoding: its estimate, its time, the time to stop it, its memory";
        section(title, cost::tabulate(cost), &[]);
    }
    if let Some(mutants) = &report.mutants {
        section("Decoding of damaged files", mutants::tabulate(mutants), &[]);
    }
    if let Some(rows) = &report.declared {
        section("Reading what files declare", declared::tabulate(rows), &[]);
    }
    if let Some(rows) = &report.graphs {
        section("The network, images a second, one image a run", graph::tabulate(rows), &[]);
    }
    if let Some(layers) = &report.layers {
        section("Its layers, one thread, one image a run", layers::tabulate(layers), &layers::remarks(layers));
    }
    if let Some(sessions) = &report.sessions {
        section("The network, on decoded pixels", session::tabulate(sessions), &session::remarks(sessions));
    }
    if let Some(metrics) = &report.metrics {
        text += &format!("\n\nCounting: {} ns of CPU an image, all metrics of its request included", metrics.ns);
    }
    text
}

/// An empty table; all columns but the first are numbers.
fn table(header: impl IntoIterator<Item = String>) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_header(header);
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}
