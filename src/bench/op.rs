//! `lfm:TopKPooling` against ONNX Runtime's TopK: (N, 64, 30, 30), k = 16, one thread.

use std::{collections::BTreeMap, path::Path};

use comfy_table::Table;
use serde::Serialize;

use super::{
    measure::{Random, Rounds, Samples, Spread, thread_seconds},
    table,
};
use crate::{model::TopKNode, topk::Kernel};

/// Written by graphs.py.
const OPERATOR: &[u8] = include_bytes!("operator.onnx");
const STANDARD: &[u8] = include_bytes!("standard.onnx");

const BATCH_SIZES: [usize; 3] = [1, 8, 32];
const MAPS: usize = 64;
const SIDE: usize = 30;
const ROW: usize = SIDE * SIDE;
const K: usize = 16;

/// Kinds of rows whose cost differs between algorithms.
#[derive(Debug, Clone, Copy)]
enum Input {
    Random,
    Ascending,
    Descending,
    AllEqual,
    FewDistinct,
}

impl Input {
    const ALL: [(Self, &str); 5] = [
        (Self::Random, "random"),
        (Self::Ascending, "ascending"),
        (Self::Descending, "descending"),
        (Self::AllEqual, "all_equal"),
        (Self::FewDistinct, "few_distinct"),
    ];

    fn fill(self, maps: &mut [f32], random: &mut Random) {
        for row in maps.chunks_exact_mut(ROW) {
            let mut last = random.uniform();
            let mut next = || match self {
                Self::Random => random.uniform() - 0.5,
                Self::Ascending | Self::Descending => {
                    let step = random.uniform() / ROW as f32;
                    last += if matches!(self, Self::Ascending) { step } else { -step };
                    last
                }
                Self::AllEqual => last,
                Self::FewDistinct => (random.uniform() * 4.0).floor(),
            };
            row.fill_with(&mut next);
        }
    }
}

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Contender {
    /// A session with ONNX Runtime's TopK.
    Standard,
    /// A session with the operator.
    Operator,
    /// The operator's kernel without ONNX Runtime.
    Kernel(Kernel),
    /// One pass over the input: the lower bound of anything that reads every value.
    Read,
}

impl Contender {
    fn all() -> Vec<Self> {
        let kernels = [Kernel::avx2(), Some(Kernel::PORTABLE)].into_iter().flatten().map(Self::Kernel);
        [Self::Standard, Self::Operator].into_iter().chain(kernels).chain([Self::Read]).collect()
    }

    fn name(self) -> &'static str {
        match self {
            Self::Standard => "topk",
            Self::Operator => "operator",
            Self::Kernel(kernel) => kernel.name(),
            Self::Read => "read",
        }
    }
}

type Spreads = BTreeMap<&'static str, Spread>;

/// One kind of input at one batch size.
#[derive(Debug, Serialize)]
pub(super) struct Row {
    /// Kind of rows.
    input: &'static str,
    batch_size: usize,
    /// Microseconds of CPU.
    us: Spreads,
    /// Ratio of TopK's time to each of ours: above 1, ours is faster.
    topk_over: Spreads,
    /// Each time in units of read passes.
    over_read: Spreads,
}

/// Measures every kind of input at every batch size.
pub(super) fn measure(ort_library: Option<&Path>, rounds: &Rounds) -> Result<Vec<Row>, anyhow::Error> {
    let mut bench = Bench {
        standard: TopKNode::new(STANDARD, ort_library)?,
        operator: TopKNode::new(OPERATOR, ort_library)?,
        random: Random::default(),
    };
    let mut rows = Vec::new();
    for input in Input::ALL {
        for batch_size in BATCH_SIZES {
            rows.push(bench.row(input, batch_size, rounds)?);
        }
    }
    Ok(rows)
}

struct Bench {
    standard: TopKNode,
    operator: TopKNode,
    random: Random,
}

impl Bench {
    fn row(
        &mut self,
        (input, name): (Input, &'static str),
        batch_size: usize,
        rounds: &Rounds,
    ) -> Result<Row, anyhow::Error> {
        let contenders = Contender::all();
        let mut buffers = Buffers::new(batch_size);
        input.fill(&mut buffers.maps, &mut self.random);
        self.check(&contenders, &mut buffers)?;
        let samples = rounds.interleave(&format!("op: {name}, N = {batch_size}"), &contenders, |contender| {
            // New rows each time: on repeated rows the branch predictor learns the comparisons of ONNX Runtime's
            // heap, which then appears three times as fast.
            input.fill(&mut buffers.maps, &mut self.random);
            self.time(contender, &mut buffers)
        })?;
        let all = || contenders.iter().zip(&samples);
        let of = |wanted| all().find_map(|(&contender, samples)| (contender == wanted).then_some(samples));
        let against = |wanted, ratio: fn(&Samples, &Samples) -> Spread| -> Spreads {
            let others = all().filter(|(contender, _)| ![wanted, Contender::Read].contains(contender));
            others.filter_map(|(contender, samples)| Some((contender.name(), ratio(of(wanted)?, samples)))).collect()
        };
        Ok(Row {
            input: name,
            batch_size,
            us: all().map(|(contender, samples)| (contender.name(), samples.spread(1e6))).collect(),
            topk_over: against(Contender::Standard, |topk, other| topk.over(other)),
            over_read: against(Contender::Read, |read, other| other.over(read)),
        })
    }

    /// Runs a contender once; returns its seconds.
    fn time(&mut self, contender: Contender, buffers: &mut Buffers) -> Result<f64, anyhow::Error> {
        let Buffers { batch_size, maps, values, indices } = buffers;
        let seconds = match contender {
            Contender::Standard => {
                let (seconds, done) = thread_seconds(|| self.standard.run([*batch_size, MAPS, ROW], maps));
                done.map(|_| seconds)?
            }
            Contender::Operator => {
                let (seconds, done) = thread_seconds(|| self.operator.run([*batch_size, MAPS, SIDE, SIDE], maps));
                done.map(|_| seconds)?
            }
            Contender::Kernel(kernel) => {
                let (seconds, done) = thread_seconds(|| kernel.top_k(K, ROW, maps, values, indices));
                done.map(|()| seconds)?
            }
            Contender::Read => thread_seconds(|| maximum(maps)).0,
        };
        Ok(seconds)
    }

    /// Checks that all contenders give the same result.
    fn check(&mut self, contenders: &[Contender], buffers: &mut Buffers) -> Result<(), anyhow::Error> {
        let Buffers { batch_size, maps, values, indices } = buffers;
        let expected = self.standard.run([*batch_size, MAPS, ROW], maps)?;
        let operator = self.operator.run([*batch_size, MAPS, SIDE, SIDE], maps)?;
        let same = |values: &[f32], indices: &[i64]| -> Result<bool, anyhow::Error> {
            Ok(values == expected.values()? && indices == expected.indices()?)
        };
        anyhow::ensure!(same(operator.values()?, operator.indices()?)?, "the operator and TopK disagree");
        for contender in contenders {
            if let Contender::Kernel(kernel) = contender {
                kernel.top_k(K, ROW, maps, values, indices)?;
                anyhow::ensure!(same(values, indices)?, "the {} kernel and TopK disagree", kernel.name());
            }
        }
        Ok(())
    }
}

struct Buffers {
    batch_size: usize,
    maps: Vec<f32>,
    values: Vec<f32>,
    indices: Vec<i64>,
}

impl Buffers {
    fn new(batch_size: usize) -> Self {
        let rows = batch_size * MAPS;
        Self { batch_size, maps: vec![0.0; rows * ROW], values: vec![0.0; rows * K], indices: vec![0; rows * K] }
    }
}

/// The largest value, in as many columns as fit vector registers: one pass at memory speed.
fn maximum(values: &[f32]) -> f32 {
    let mut maxima = [f32::NEG_INFINITY; 32];
    for line in values.chunks_exact(maxima.len()) {
        for (maximum, &value) in maxima.iter_mut().zip(line) {
            *maximum = if value > *maximum { value } else { *maximum };
        }
    }
    maxima.into_iter().fold(f32::NEG_INFINITY, f32::max)
}

/// For the terminal.
pub(super) fn tabulate(rows: &[Row]) -> Table {
    let ours: Vec<_> = Contender::all()
        .into_iter()
        .filter(|contender| ![Contender::Standard, Contender::Read].contains(contender))
        .collect();
    let headings = ours.iter().map(|contender| match contender {
        Contender::Kernel(kernel) => format!("{} kernel", kernel.name()),
        _ => "operator".into(),
    });
    let heading = ["rows", "N", "TopK, us"].map(String::from).into_iter().chain(headings);
    let mut table = table(heading.chain(["the same in read passes".into()]));
    for row in rows {
        let topk = row.us.get(Contender::Standard.name());
        let cells =
            [row.input.to_owned(), row.batch_size.to_string(), topk.map_or_else(String::new, Spread::to_string)];
        let of_ours = |spreads| ours.iter().filter_map(move |ours| Spreads::get(spreads, ours.name()));
        let in_reads: Vec<_> = of_ours(&row.over_read).map(|spread| format!("{:.1}", spread.median)).collect();
        table.add_row(
            cells.into_iter().chain(of_ours(&row.topk_over).map(Spread::to_string)).chain([in_reads.join(" / ")]),
        );
    }
    table
}
