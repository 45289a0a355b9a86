//! `lfm-serve evaluate`: accuracy and average precision as the paper measures them.

mod figures;
mod plot;
mod table;

use std::{
    collections::BTreeMap,
    fs,
    io::{self, IsTerminal},
    path::{Path, PathBuf},
    pin::pin,
    process::ExitCode,
};

use anyhow::Context;
use clap::Args;
use futures_util::StreamExt;
use indicatif::ProgressBar;
use serde::Serialize;

use self::figures::{Scored, Summary};
use super::{files::Found, score::progress_bar, scorer::Scorer};
use crate::config::{DeclaredConfig, JudgeConfig, LimitsConfig, ModelConfig, RuntimeConfig};

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

    /// Also draw the histogram of the scores, the ROC curves and the average precision over the JPEG quality.
    #[arg(long, env = "LFM_PLOT", value_name = "FILE.svg")]
    plot: Option<PathBuf>,

    /// Also score every image after it was saved as a JPEG of these qualities (4:2:0) at its stored size, e.g.
    /// 95,90,75: what is left of it after an upload.
    #[arg(long, env = "LFM_JPEG_QUALITY", value_name = "Q,Q,...", value_delimiter = ',', value_parser = clap::value_parser!(u8).range(1..=100))]
    jpeg_quality: Vec<u8>,

    /// Model folder; given more than once, the models are compared. Default: as for `serve`.
    #[arg(long = "model", env = "LFM_MODEL", value_name = "DIR")]
    models: Vec<PathBuf>,

    #[command(flatten)]
    runtime: RuntimeConfig,

    #[command(flatten)]
    judge: JudgeConfig,

    #[command(flatten)]
    limits: LimitsConfig,

    #[command(flatten)]
    declared: DeclaredConfig,
}

/// A labelled image.
struct Labelled<'a> {
    file: PathBuf,
    source: &'a str,
    fake: bool,
}

/// All that one model made of the images.
struct Judged {
    model: Identity,
    /// The logit above which an image counts as fake.
    cut: f64,
    threshold: f64,
    /// As stored, then by JPEG quality in the order asked for.
    sets: Vec<(Option<u8>, Scored)>,
    /// Images that could not be scored.
    failed: usize,
    declared: Option<SayGenerated>,
}

/// Files that say of themselves that they were generated, by their label.
#[derive(Debug, Clone, Copy, Default, Serialize)]
struct SayGenerated {
    real: usize,
    fake: usize,
}

#[derive(Serialize)]
struct Identity {
    folder: String,
    name: String,
    version: String,
    digest: String,
}

/// The JSON of one model; without `model` where there is only one.
#[derive(Serialize)]
struct Report<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    model: Option<&'a Identity>,
    #[serde(flatten)]
    as_stored: Summary,
    /// Images that could not be scored, left out of the figures.
    failed: usize,
    /// Files that say of themselves that they were generated.
    #[serde(skip_serializing_if = "Option::is_none")]
    declared_generated: Option<SayGenerated>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    jpeg: BTreeMap<u8, Summary>,
}

pub(super) async fn run(args: EvaluateArgs) -> Result<ExitCode, anyhow::Error> {
    let sources = find_sources(&args.folder)?;
    let mut labelled = Vec::new();
    let mut others = Vec::new();
    for (name, folder) in &sources {
        for (fake, class) in [(false, REAL), (true, FAKE)] {
            let class = folder.join(class);
            if class.is_dir() {
                let mut found = Found { others, ..Found::default() };
                found.add_below(&class);
                labelled.extend(found.images.into_iter().map(|file| Labelled { file, source: name, fake }));
                others = found.others;
            }
        }
    }
    anyhow::ensure!(!labelled.is_empty(), "no images in {}/<source>/{{{REAL},{FAKE}}}", args.folder.display());
    if let Some(path) = &args.plot {
        // Now, not after an hour of scoring.
        let writable = fs::OpenOptions::new().append(true).create(true).open(path);
        writable.with_context(|| format!("cannot write {}", path.display()))?;
    }

    let models: Vec<_> = match &args.models[..] {
        [] => vec![None],
        named => named.iter().cloned().map(Some).collect(),
    };
    let progress = progress_bar(labelled.len() * (1 + args.jpeg_quality.len()) * models.len());
    let mut judged = Vec::new();
    for model in models {
        let model = ModelConfig { model, runtime: args.runtime.clone() };
        let scorer = Scorer::start(&model, &args.judge, &args.limits, &args.declared).await?;
        judged.push(judge(&scorer, &model, &labelled, &args.jpeg_quality, &progress).await);
    }
    progress.finish_and_clear();
    if let Some(line) = (Found { others, ..Found::default() }).no_pictures() {
        eprintln!("lfm-serve: {line}");
    }

    if let Some(path) = &args.plot {
        fs::write(path, plot::svg(&judged)?).with_context(|| format!("cannot write {}", path.display()))?;
    }
    if args.json || !io::stdout().is_terminal() {
        super::print_line(&json(&judged)?)?;
    } else {
        super::print_line(&table::text(&judged))?;
    }
    Ok(if judged.iter().all(|judged| judged.failed == 0) { ExitCode::SUCCESS } else { ExitCode::from(2) })
}

async fn judge(
    scorer: &Scorer,
    config: &ModelConfig,
    labelled: &[Labelled<'_>],
    qualities: &[u8],
    progress: &ProgressBar,
) -> Judged {
    let manifest = scorer.manifest();
    let threshold = manifest.rules.threshold;
    let folder = config.model.as_deref().map_or_else(|| "default".into(), |folder| folder.display().to_string());
    let mut judged = Judged {
        model: Identity {
            folder,
            name: manifest.name.clone(),
            version: manifest.version.clone(),
            digest: manifest.digest.clone(),
        },
        // The threshold is one on scores; the sigmoid is monotone, so the logit can be held against its inverse.
        cut: (threshold / (1.0 - threshold)).ln(),
        threshold,
        sets: Vec::new(),
        failed: 0,
        declared: None,
    };
    let mut sound: Vec<_> = labelled.iter().collect();
    for jpeg in std::iter::once(None).chain(qualities.iter().copied().map(Some)) {
        let paths: Vec<_> = sound.iter().map(|image| image.file.clone()).collect();
        let mut scored = Scored::new();
        let mut broken = Vec::new();
        let mut results = pin!(scorer.score_all(&paths, jpeg).enumerate());
        while let Some((index, (path, result))) = results.next().await {
            match result {
                Ok(file) => {
                    let scores = scored.entry(sound[index].source.to_owned()).or_default();
                    // As stored: a file that was passed on says nothing any more.
                    if let (None, Some(declared)) = (jpeg, &file.declared) {
                        let count = judged.declared.get_or_insert_default();
                        let says = usize::from(declared.generated == Some(true));
                        *if sound[index].fake { &mut count.fake } else { &mut count.real } += says;
                    }
                    if sound[index].fake { &mut scores.fake } else { &mut scores.real }.push(file.judgement.ranking);
                }
                Err(error) => {
                    broken.push(index);
                    progress.suspend(|| eprintln!("lfm-serve: {}: {error}", path.display()));
                }
            }
            progress.inc(1);
        }
        // Named and counted once, not again at every quality.
        judged.failed += broken.len();
        for &index in broken.iter().rev() {
            sound.remove(index);
        }
        judged.sets.push((jpeg, scored));
    }
    judged
}

fn json(judged: &[Judged]) -> serde_json::Result<String> {
    let reports: Vec<_> = judged.iter().map(|one| Report::new(one, judged.len() > 1)).collect();
    match &reports[..] {
        [one] => serde_json::to_string(one),
        several => serde_json::to_string(&BTreeMap::from([("models", several)])),
    }
}

impl<'a> Report<'a> {
    fn new(judged: &'a Judged, named: bool) -> Self {
        let mut jpeg = BTreeMap::new();
        let mut as_stored = Summary::new(&Scored::new(), judged.cut);
        for (quality, scored) in &judged.sets {
            let summary = Summary::new(scored, judged.cut);
            match quality {
                Some(quality) => drop(jpeg.insert(*quality, summary)),
                None => as_stored = summary,
            }
        }
        Self {
            model: named.then_some(&judged.model),
            as_stored,
            failed: judged.failed,
            declared_generated: judged.declared,
            jpeg,
        }
    }
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
