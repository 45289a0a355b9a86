//! Each layer of the CPU graph on one thread, by instruction set: its share of the CPU's peak rate of multiply-adds.

use std::{collections::BTreeMap, path::Path, time::Instant};

use comfy_table::Table;
use serde::Serialize;

use super::{
    measure::{Rounds, Samples, Spread},
    session::noise,
    table,
};
use crate::{
    config::{Auto, ModelConfig},
    conv::{Kernel, ResidueConv, WinogradConv},
    image::Pixels,
    model::{CPU_GRAPH, GraphProbe, Manifest, NodeRun, find_folder},
};

/// Multiply-adds of a measurement of the peak: some milliseconds.
const PEAK: u64 = 250_000_000;

/// By the name of an instruction set.
type Kernels<T> = BTreeMap<&'static str, T>;

#[derive(Debug, Serialize)]
pub(super) struct Report {
    /// The peak: billions of FLOP per second in registers, a multiply-add counting as two.
    peak: Kernels<Spread>,
    layers: Vec<Layer>,
}

/// A node of the graph, or all of them.
#[derive(Debug, Serialize)]
struct Layer {
    name: String,
    operator: String,
    /// FLOP of its products, for one image. Transforms, pools and sorting count as none.
    flop: u64,
    /// Bytes of inputs, weights as they are laid out, and outputs, each counted once.
    bytes: u64,
    /// Milliseconds.
    ms: Kernels<Spread>,
    /// Its rate in shares of the peak of the same round.
    of_peak: Kernels<Spread>,
}

/// A graph on an instruction set, and its samples by round: the peak in FLOP per second, and the nodes.
struct Contender {
    kernel: Kernel,
    probe: GraphProbe,
    rounds: Vec<(f64, Vec<NodeRun>)>,
}

/// Measures every instruction set of the CPU; the portable one only if there is no other.
pub(super) fn measure(config: &ModelConfig, rounds: &Rounds) -> Result<Report, anyhow::Error> {
    let mut config = config.clone();
    config.runtime.intra_threads = Auto::Fixed(1);
    let mut kernels: Vec<_> = Kernel::all().collect();
    if kernels.len() > 1 {
        kernels.pop();
    }
    let start = |kernel| -> Result<_, anyhow::Error> {
        Ok(Contender { kernel, probe: GraphProbe::start_on(kernel, &config, CPU_GRAPH)?, rounds: Vec::new() })
    };
    let mut contenders = kernels.into_iter().map(start).collect::<Result<Vec<_>, _>>()?;
    let picture = noise(Manifest::read(&find_folder(config.model.as_deref())?)?.preprocessing.input())?;
    let folder = tempfile::tempdir()?;
    let numbers: Vec<_> = (0..contenders.len()).collect();
    rounds.interleave("layers", &numbers, |number: usize| contenders[number].sample(&picture, folder.path()))?;

    let mut report = Report { peak: Kernels::new(), layers: Vec::new() };
    for Contender { kernel, rounds, .. } in &contenders {
        // As `interleave`: the first round only warms up.
        report.add(kernel.name(), &rounds[1..]);
    }
    Ok(report)
}

impl Contender {
    /// One round; returns the seconds of all nodes.
    fn sample(&mut self, picture: &Pixels, folder: &Path) -> Result<f64, anyhow::Error> {
        let start = Instant::now();
        let done = self.kernel.multiply_adds(PEAK);
        let peak = 2.0 * done as f64 / start.elapsed().as_secs_f64();
        // The other contender's weights are in the caches.
        self.probe.run(picture)?;
        let nodes = self.probe.profile(picture, folder)?;
        let seconds = nodes.iter().map(|node| node.time.as_secs_f64()).sum();
        self.rounds.push((peak, nodes));
        Ok(seconds)
    }
}

impl Report {
    fn add(&mut self, kernel: &'static str, rounds: &[(f64, Vec<NodeRun>)]) {
        let peak: Samples = rounds.iter().map(|(peak, _)| *peak).collect();
        self.peak.insert(kernel, peak.spread(1e-9));
        let Some((_, nodes)) = rounds.first() else { return };
        let mut all = Layer::new("all".to_owned(), String::new());
        for (at, node) in nodes.iter().enumerate() {
            let mut layer = Layer::new(node.name.clone(), node.operator.clone());
            [layer.flop, layer.bytes] = cost(node);
            all.flop += layer.flop;
            all.bytes += layer.bytes;
            layer.add(kernel, &peak, rounds.iter().map(|(_, nodes)| seconds(nodes.get(at))));
            self.insert(layer);
        }
        all.add(kernel, &peak, rounds.iter().map(|(_, nodes)| seconds(nodes)));
        self.insert(all);
    }

    /// Joins the measurements of one layer.
    fn insert(&mut self, layer: Layer) {
        match self.layers.iter_mut().find(|known| known.name == layer.name) {
            Some(known) => {
                known.ms.extend(layer.ms);
                known.of_peak.extend(layer.of_peak);
            }
            None => self.layers.push(layer),
        }
    }
}

impl Layer {
    fn new(name: String, operator: String) -> Self {
        Self { name, operator, flop: 0, bytes: 0, ms: Kernels::new(), of_peak: Kernels::new() }
    }

    fn add(&mut self, kernel: &'static str, peak: &Samples, seconds: impl Iterator<Item = f64>) {
        let seconds: Samples = seconds.collect();
        self.ms.insert(kernel, seconds.spread(1e3));
        let flop: Samples = seconds.iter().map(|seconds| self.flop as f64 / seconds).collect();
        self.of_peak.insert(kernel, flop.over(peak));
    }
}

fn seconds<'a>(nodes: impl IntoIterator<Item = &'a NodeRun>) -> f64 {
    nodes.into_iter().map(|node| node.time.as_secs_f64()).sum()
}

/// FLOP and bytes of a node.
fn cost(node: &NodeRun) -> [u64; 2] {
    let shapes: Vec<_> = node.inputs.iter().chain(&node.outputs).map(Vec::as_slice).collect();
    let (multiply_adds, bytes) = match (&*node.operator, &shapes[..]) {
        ("ResidueConv", &[.., &[images, height, width, maps]]) => {
            (images * ResidueConv::multiply_adds([height, width], maps), node.bytes)
        }
        ("WinogradConv", &[&[images, height, width, _], &[maps, channels, 2, 2], ..]) => {
            let [multiply_adds, weights] = WinogradConv::products([height, width], channels, maps);
            (images * multiply_adds, node.bytes + 4 * (weights - maps * channels * 4))
        }
        ("MatMul", &[rows, .., &[.., columns]]) => {
            // ONNX Runtime lays the weight out for itself; it is no input then.
            let weight = if node.inputs.len() == 1 { rows.last().unwrap_or(&0) * columns } else { 0 };
            (rows.iter().product::<usize>() * columns, node.bytes + 4 * weight)
        }
        _ => (0, node.bytes),
    };
    [2 * multiply_adds as u64, bytes as u64]
}

/// For the terminal.
pub(super) fn tabulate(report: &Report) -> Table {
    let kernels = report.peak.keys().flat_map(|kernel| [format!("{kernel}, ms"), "of peak, %".into()]);
    let heading = ["layer", "operator", "MFLOP", "MB", "FLOP/byte"].map(String::from);
    let mut table = table(heading.into_iter().chain(kernels));
    for layer in &report.layers {
        let Layer { name, operator, flop, bytes, ms, of_peak } = layer;
        let (flop, bytes) = (*flop as f64, *bytes as f64);
        let cells = [
            name.clone(),
            operator.clone(),
            format!("{:.1}", flop / 1e6),
            format!("{:.2}", bytes / 1e6),
            format!("{:.0}", flop / bytes),
        ];
        let measured = ms.iter().zip(of_peak.values()).flat_map(|((_, ms), of_peak)| {
            let share = if flop > 0.0 { format!("{:.0}", 100.0 * of_peak.median) } else { String::new() };
            [ms.to_string(), share]
        });
        table.add_row(cells.into_iter().chain(measured));
    }
    table
}

/// Notes below the table.
pub(super) fn remarks(report: &Report) -> Vec<String> {
    let peak = |(kernel, peak): (&&str, &Spread)| format!("{kernel}'s peak: {peak} GFLOP/s.");
    report.peak.iter().map(peak).collect()
}
