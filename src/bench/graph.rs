//! The model's CPU graphs compared: the gain of our operators over ONNX Runtime's own.

use comfy_table::Table;
use serde::Serialize;

use super::{
    measure::{Rounds, Spread},
    session::{Layout, images_per_second, noise},
    table,
};
use crate::{
    config::{Auto, ModelConfig},
    model::{self, CPU_GRAPH, Execution, Manifest, STANDARD_GRAPH, SessionOptions, find_folder},
};

/// Runs of each session in a round.
const RUNS: usize = 10;

/// One layout, one image a run.
#[derive(Debug, Serialize)]
pub(super) struct Row {
    sessions: usize,
    intra_threads: usize,
    /// Images per second of the graph with standard operators.
    standard: Spread,
    /// Images per second of the graph with ours.
    ours: Spread,
    /// Ratio of the latter to the former.
    ours_over_standard: Spread,
}

/// Whether there is something to compare.
pub(super) fn has_both(manifest: &Manifest) -> bool {
    [STANDARD_GRAPH, CPU_GRAPH].iter().all(|name| manifest.lists(name))
}

/// Measures both graphs with one thread, with one session of a thread per CPU, and with a session per CPU.
pub(super) fn measure(config: &ModelConfig, rounds: &Rounds) -> Result<Vec<Row>, anyhow::Error> {
    let manifest = Manifest::read(&find_folder(config.model.as_deref())?)?;
    anyhow::ensure!(has_both(&manifest), "the model does not have the two graphs {STANDARD_GRAPH} and {CPU_GRAPH}");
    let cpus = model::cpus();
    let mut layouts = vec![Layout { sessions: 1, intra_threads: 1 }];
    if cpus > 1 {
        layouts.extend([Layout { sessions: 1, intra_threads: cpus }, Layout { sessions: cpus, intra_threads: 1 }]);
    }
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    let picture = noise(manifest.preprocessing.input())?;
    let mut rows = Vec::new();
    for layout in layouts {
        let start = |graph| {
            layout.start(config, |config| SessionOptions::read_graph(config, Auto::Fixed(1), graph, Execution::CPU))
        };
        let mut graphs = [start(STANDARD_GRAPH)?, start(CPU_GRAPH)?];
        let Layout { sessions, intra_threads } = layout;
        let what = format!("graphs: {sessions} x {intra_threads}");
        let samples = rounds.interleave(&what, &[0, 1], |graph: usize| {
            images_per_second(&runtime, &mut graphs[graph], &picture, 1, RUNS)
        })?;
        let [standard, ours] = &samples[..] else { anyhow::bail!("two contenders, {} results", samples.len()) };
        rows.push(Row {
            sessions,
            intra_threads,
            standard: standard.spread(1.0),
            ours: ours.spread(1.0),
            ours_over_standard: ours.over(standard),
        });
    }
    Ok(rows)
}

/// For the terminal.
pub(super) fn tabulate(rows: &[Row]) -> Table {
    let mut table = table(["sessions x threads", STANDARD_GRAPH, CPU_GRAPH, "times as fast"].map(String::from));
    for Row { sessions, intra_threads, standard, ours, ours_over_standard } in rows {
        let layout = format!("{sessions} x {intra_threads}");
        table.add_row([layout, standard.to_string(), ours.to_string(), ours_over_standard.to_string()]);
    }
    table
}
