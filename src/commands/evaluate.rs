//! `lfm-serve evaluate`: accuracy and average precision as the paper measures them.

use std::{
    collections::BTreeMap,
    fs,
    io::{self, IsTerminal},
    path::{Path, PathBuf},
    pin::pin,
    process::ExitCode,
};

use clap::Args;
use comfy_table::{CellAlignment, Table, presets};
use futures_util::StreamExt;
use serde::Serialize;

use super::{files, score::progress_bar, scorer::Scorer};
use crate::config::{LimitsConfig, ModelConfig};

const REAL: &str = "0_real";
const FAKE: &str = "1_fake";

/// Settings of `evaluate`.
#[derive(Debug, Args)]
#[command(
    after_help = "Exit status: 0 when every image was scored, 2 when some could not be (they are named and left out), 1 when nothing could be run."
)]
pub(super) struct EvaluateArgs {
    /// Labelled images: DIR/<source>/{0_real,1_fake}/..., one level of sets above the sources allowed.
    #[arg(value_name = "DIR")]
    folder: PathBuf,

    /// Print JSON, also on a terminal (a pipe gets JSON anyway).
    #[arg(long, env = "LFM_JSON")]
    json: bool,

    #[command(flatten)]
    model: ModelConfig,

    #[command(flatten)]
    limits: LimitsConfig,
}

/// Logits of one source's images, by label.
#[derive(Debug, Default)]
struct Scores {
    real: Vec<f32>,
    fake: Vec<f32>,
}

/// Figures of one source, or their means over sources. A figure that its images do not give (no fakes, no
/// reals) is null.
#[derive(Debug, Serialize)]
struct Figures {
    n: usize,
    accuracy: Option<f64>,
    average_precision: Option<f64>,
    real_accuracy: Option<f64>,
    fake_accuracy: Option<f64>,
}

#[derive(Debug, Serialize)]
struct Report {
    sources: BTreeMap<String, Figures>,
    mean: Figures,
    /// Images that could not be scored, left out of the figures.
    failed: usize,
}

pub(super) async fn run(args: EvaluateArgs) -> Result<ExitCode, anyhow::Error> {
    let sources = find_sources(&args.folder)?;
    let mut labelled = Vec::new();
    for (name, folder) in &sources {
        for (label, class) in [(false, REAL), (true, FAKE)] {
            let class = folder.join(class);
            if class.is_dir() {
                labelled.extend(files::images_below(&class)?.into_iter().map(|file| (file, name.as_str(), label)));
            }
        }
    }
    anyhow::ensure!(!labelled.is_empty(), "no images in {}/<source>/{{{REAL},{FAKE}}}", args.folder.display());

    let scorer = Scorer::start(&args.model, &args.limits).await?;
    let paths: Vec<_> = labelled.iter().map(|(file, ..)| file.clone()).collect();
    let progress = progress_bar(paths.len());
    let mut scores: BTreeMap<&str, Scores> = BTreeMap::new();
    let mut failed = 0;
    let mut results = pin!(scorer.score_all(&paths).zip(futures_util::stream::iter(&labelled)));
    while let Some(((path, result), (_, source, fake))) = results.next().await {
        match result {
            Ok(scored) => {
                let scores = scores.entry(source).or_default();
                if *fake { &mut scores.fake } else { &mut scores.real }.push(scored.judgement.logit);
            }
            Err(error) => {
                failed += 1;
                progress.suspend(|| eprintln!("lfm-serve: {}: {error}", path.display()));
            }
        }
        progress.inc(1);
    }
    progress.finish_and_clear();

    // The threshold is one on scores; the sigmoid is monotone, so the logit can be held against its inverse.
    let threshold = scorer.manifest().threshold;
    let cut = (threshold / (1.0 - threshold)).ln();
    let sources: BTreeMap<_, _> =
        scores.iter().map(|(name, scores)| ((*name).to_owned(), scores.figures(cut))).collect();
    let report = Report { mean: mean(&sources), sources, failed };
    if args.json || !io::stdout().is_terminal() {
        super::print_line(&serde_json::to_string(&report)?)?;
    } else {
        super::print_line(&table(&report).to_string())?;
    }
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::from(2) })
}

/// The sources below a folder, by name; a source of a set is named `set/source`.
fn find_sources(folder: &Path) -> Result<BTreeMap<String, PathBuf>, anyhow::Error> {
    let mut sources = BTreeMap::new();
    if is_source(folder) {
        let name = folder.file_name().map_or_else(|| "all".into(), |name| name.to_string_lossy().into_owned());
        sources.insert(name, folder.to_path_buf());
        return Ok(sources);
    }
    for (name, child) in folders(folder)? {
        if is_source(&child) {
            sources.insert(name, child);
            continue;
        }
        for (inner, grandchild) in folders(&child)? {
            if is_source(&grandchild) {
                sources.insert(format!("{name}/{inner}"), grandchild);
            }
        }
    }
    anyhow::ensure!(!sources.is_empty(), "{} holds no <source>/{{{REAL},{FAKE}}} folders", folder.display());
    Ok(sources)
}

fn is_source(folder: &Path) -> bool {
    folder.join(REAL).is_dir() || folder.join(FAKE).is_dir()
}

fn folders(folder: &Path) -> Result<Vec<(String, PathBuf)>, anyhow::Error> {
    let entries = fs::read_dir(folder).map_err(|error| anyhow::anyhow!("cannot list {}: {error}", folder.display()))?;
    let paths = entries.filter_map(|entry| Some(entry.ok()?.path())).filter(|path| path.is_dir());
    Ok(paths.filter_map(|path| Some((path.file_name()?.to_string_lossy().into_owned(), path.clone()))).collect())
}

impl Scores {
    fn figures(&self, cut: f64) -> Figures {
        let share = |right: usize, of: usize| (of > 0).then(|| right as f64 / of as f64);
        let real_right = self.real.iter().filter(|&&logit| f64::from(logit) <= cut).count();
        let fake_right = self.fake.iter().filter(|&&logit| f64::from(logit) > cut).count();
        let n = self.real.len() + self.fake.len();
        Figures {
            n,
            accuracy: share(real_right + fake_right, n),
            average_precision: average_precision(&self.real, &self.fake),
            real_accuracy: share(real_right, self.real.len()),
            fake_accuracy: share(fake_right, self.fake.len()),
        }
    }
}

/// Average precision with fake as the positive class: the sum over thresholds of precision times the gain in
/// recall, equal logits sharing one threshold (scikit-learn's `average_precision_score`).
fn average_precision(real: &[f32], fake: &[f32]) -> Option<f64> {
    let mut ranked: Vec<_> =
        real.iter().map(|&logit| (logit, false)).chain(fake.iter().map(|&logit| (logit, true))).collect();
    ranked.sort_by(|a, b| b.0.total_cmp(&a.0));
    let (mut seen, mut found, mut sum) = (0usize, 0usize, 0.0);
    for tied in ranked.chunk_by(|a, b| a.0 == b.0) {
        let gained = tied.iter().filter(|(_, fake)| *fake).count();
        seen += tied.len();
        found += gained;
        sum += gained as f64 * found as f64 / seen as f64;
    }
    (found > 0).then(|| sum / found as f64)
}

/// Means over sources, each counting alike, of those that have the figure.
fn mean(sources: &BTreeMap<String, Figures>) -> Figures {
    let over = |figure: fn(&Figures) -> Option<f64>| {
        let values: Vec<f64> = sources.values().filter_map(figure).collect();
        (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
    };
    Figures {
        n: sources.values().map(|figures| figures.n).sum(),
        accuracy: over(|figures| figures.accuracy),
        average_precision: over(|figures| figures.average_precision),
        real_accuracy: over(|figures| figures.real_accuracy),
        fake_accuracy: over(|figures| figures.fake_accuracy),
    }
}

fn table(report: &Report) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_header(["source", "n", "accuracy", "AP", "real", "fake"]);
    let percent = |figure: Option<f64>| figure.map_or_else(|| "-".into(), |value| format!("{:.1} %", 100.0 * value));
    let mean = ("mean".to_owned(), &report.mean);
    for (name, figures) in report.sources.iter().map(|(name, figures)| (name.clone(), figures)).chain([mean]) {
        table.add_row([
            name,
            figures.n.to_string(),
            percent(figures.accuracy),
            percent(figures.average_precision),
            percent(figures.real_accuracy),
            percent(figures.fake_accuracy),
        ]);
    }
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Figures of scikit-learn 1.9.1 `average_precision_score` on the same scores.
    #[test]
    fn average_precision_equals_scikit_learn() {
        let cases: [(&[f32], &[f32], f64); 4] = [
            (&[0.1, 0.4], &[0.35, 0.8], 0.833_333_333_333_333_3),
            (&[1.0, 1.0, 2.0], &[1.0, 2.0, 3.0], 0.722_222_222_222_222_2),
            (&[5.0], &[1.0, 2.0], 0.583_333_333_333_333_3),
            (&[3.0, 2.0, 2.0, 1.0], &[2.0, 2.0, 4.0, 1.0, 0.0], 0.611_111_111_111_111_2),
        ];
        for (real, fake, expected) in cases {
            let found = average_precision(real, fake).expect("there are fakes");
            assert!((found - expected).abs() < 1e-12, "{found} is not {expected}");
        }
        assert_eq!(average_precision(&[1.0], &[]), None);
    }
}
