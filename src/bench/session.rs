//! Throughput of the network by session layout and batch size, on decoded pixels.

use std::{fs, time::Instant};

use comfy_table::Table;
use futures_util::future::try_join_all;
use serde::Serialize;
use tokio::runtime::Runtime;

use super::{
    measure::{Random, Rounds, Spread},
    table,
};
use crate::{
    config::{Auto, ModelConfig},
    image::Pixels,
    model::{self, Execution, Model, OnnxModel, Provider, RunError, SessionOptions},
};

/// Session memory per image of its largest batch: a session with batches of 32 used 320 MB.
const BYTES_PER_IMAGE: u64 = 12_000_000;

/// The measurements on sessions.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    /// Execution provider of the sessions.
    provider: &'static str,
    rows: Vec<Row>,
    /// Batch sizes that do not fit in memory.
    left_out: Vec<usize>,
}

/// One layout at one batch size.
#[derive(Debug, Serialize)]
struct Row {
    /// Parallel sessions.
    sessions: usize,
    /// Threads per session.
    intra_threads: usize,
    batch_size: usize,
    images_per_second: Spread,
    /// Throughput relative to the fastest row.
    of_best: Spread,
}

/// How CPUs are assigned to sessions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Layout {
    pub(super) sessions: usize,
    pub(super) intra_threads: usize,
}

impl Layout {
    /// On the CPU one session with all CPUs, and one session per CPU; on a GPU one session; and the configured layout.
    fn all(config: &ModelConfig, execution: &Execution) -> Vec<Self> {
        let (cpus, sessions) = (model::cpus(), execution.sessions(model::cpus()));
        let runtime = &config.runtime;
        let asked = Self {
            sessions: runtime.sessions.or_else(|| sessions),
            intra_threads: runtime.intra_threads.or_else(|| 1),
        };
        let mut layouts = vec![match execution.provider {
            Provider::Cpu => Self { sessions: 1, intra_threads: cpus },
            _ => Self { sessions: 1, intra_threads: 1 },
        }];
        for layout in [Self { sessions, intra_threads: 1 }, asked] {
            if !layouts.contains(&layout) {
                layouts.push(layout);
            }
        }
        layouts
    }

    /// Sessions as the server builds them, from the options that `read` makes of the settings.
    pub(super) fn start(
        self,
        config: &ModelConfig,
        read: impl FnOnce(&ModelConfig) -> Result<SessionOptions, anyhow::Error>,
    ) -> Result<Vec<OnnxModel>, anyhow::Error> {
        let mut config = config.clone();
        config.runtime.sessions = Auto::Fixed(self.sessions);
        config.runtime.intra_threads = Auto::Fixed(self.intra_threads);
        let (_, sessions) = model::start_sessions(read(&config)?)?;
        Ok(sessions)
    }
}

/// Runs `batches` batches of `picture` in all sessions in parallel; returns images per second.
pub(super) fn images_per_second(
    runtime: &Runtime,
    sessions: &mut [OnnxModel],
    picture: &Pixels,
    batch_size: usize,
    batches: usize,
) -> Result<f64, anyhow::Error> {
    let images = (batches * batch_size * sessions.len()) as f64;
    let work: Vec<_> = sessions.iter().map(|_| vec![vec![picture.clone(); batch_size]; batches]).collect();
    let start = Instant::now();
    runtime.block_on(try_join_all(sessions.iter_mut().zip(work).map(|(session, work)| run_all(session, work))))?;
    Ok(images / start.elapsed().as_secs_f64())
}

/// Measures every layout at every batch size.
pub(super) fn measure(config: &ModelConfig, batch_sizes: &[usize], rounds: &Rounds) -> Result<Report, anyhow::Error> {
    let mut config = config.clone();
    let options = SessionOptions::read(&config, Auto::Fixed(1))?;
    let provider = options.execution().provider;
    // By name: a layout that cannot run must not be measured on another provider.
    config.runtime.provider = provider.choice();
    let layouts = Layout::all(&config, options.execution());
    let all_sessions: usize = layouts.iter().map(|layout| layout.sessions).sum();
    let memory = available_memory();
    let fits = |batch_size: usize| ((all_sessions * batch_size) as u64).saturating_mul(BYTES_PER_IMAGE) <= memory;
    let (batch_sizes, left_out): (Vec<_>, Vec<_>) = batch_sizes.iter().partition(|&&size| size == 1 || fits(size));
    let largest = batch_sizes.iter().copied().max().unwrap_or(1);
    let mut sessions = Vec::new();
    for layout in &layouts {
        sessions.push(layout.start(&config, |config| SessionOptions::read(config, Auto::Fixed(largest)))?);
    }
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    let picture = noise(options.manifest().preprocessing.input())?;
    // About the same number of images for each, so that all are interrupted alike.
    let quota = model::cpus() * largest;
    let contenders: Vec<_> =
        (0..layouts.len()).flat_map(|layout| batch_sizes.iter().map(move |&batch| (layout, batch))).collect();
    let samples = rounds.interleave("sessions", &contenders, |(layout, batch_size)| {
        let Some(sessions) = sessions.get_mut(layout) else { return Ok(f64::NAN) };
        let batches = quota.div_ceil(sessions.len() * batch_size);
        images_per_second(&runtime, sessions, &picture, batch_size, batches)
    })?;

    let best = samples.iter().max_by(|a, b| a.spread(1.0).median.total_cmp(&b.spread(1.0).median));
    let rows = contenders.iter().zip(&samples).filter_map(|(&(layout, batch_size), samples)| {
        let Layout { sessions, intra_threads } = *layouts.get(layout)?;
        let (images_per_second, of_best) = (samples.spread(1.0), samples.over(best?));
        Some(Row { sessions, intra_threads, batch_size, images_per_second, of_best })
    });
    Ok(Report { provider: provider.name(), rows: rows.collect(), left_out })
}

/// Available bytes: the machine's, limited by the cgroup's, which kills a process that exceeds it.
fn available_memory() -> u64 {
    let machine = fs::read_to_string("/proc/meminfo").ok().and_then(|text| {
        let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
        Some(line.trim().strip_suffix(" kB")?.parse::<u64>().ok()? * 1024)
    });
    let cgroup = |file: &str| fs::read_to_string(format!("/sys/fs/cgroup/memory.{file}")).ok()?.trim().parse().ok();
    let cgroup = Option::zip(cgroup("max"), cgroup("current")).map(|(max, now): (u64, u64)| max.saturating_sub(now));
    machine.into_iter().chain(cgroup).min().unwrap_or(u64::MAX)
}

async fn run_all(session: &mut OnnxModel, work: Vec<Vec<Pixels>>) -> Result<(), RunError> {
    for batch in work {
        session.run(batch).await?;
    }
    Ok(())
}

/// Noise of the network's input size: its cost does not depend on the pixels.
pub(super) fn noise([width, height]: [u32; 2]) -> Result<Pixels, anyhow::Error> {
    let mut random = Random::default();
    let bytes = (0..width as usize * height as usize * 3).map(|_| random.bits() as u8);
    Pixels::sized(bytes.collect(), width, height).ok_or_else(|| anyhow::anyhow!("the input size is wrong"))
}

/// For the terminal.
pub(super) fn tabulate(report: &Report) -> Table {
    let mut table = table(["sessions x threads", "batch", "images/s", "of the best"].map(String::from));
    for row in &report.rows {
        let layout = format!("{} x {}", row.sessions, row.intra_threads);
        let batch = row.batch_size.to_string();
        table.add_row([layout, batch, row.images_per_second.to_string(), row.of_best.to_string()]);
    }
    table
}

/// Notes below the table.
pub(super) fn remarks(report: &Report) -> Vec<String> {
    let sizes: Vec<_> = report.left_out.iter().map(usize::to_string).collect();
    let left_out = (!sizes.is_empty()).then(|| format!("No memory for batches of {}.", sizes.join(", ")));
    left_out.into_iter().collect()
}
