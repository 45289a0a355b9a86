//! `lfm-serve evaluate`: what the verdicts are worth on labelled images.

mod figures;
mod plot;
mod report;
mod table;

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, BufWriter, IsTerminal, Write},
    path::{Path, PathBuf},
    pin::pin,
    process::ExitCode,
};

use anyhow::Context;
use clap::Args;
use futures_util::StreamExt;
use indicatif::ProgressBar;
use serde::Serialize;

use self::figures::Judged;
pub(super) use self::{report::Report, table::table};
use super::{
    labelled::{self, Labelled},
    line::Line,
    progress::progress_bar,
    scorer::{FileScore, Scorer},
};
use crate::{
    config::{DeclaredConfig, JudgeConfig, LimitsConfig, ModelConfig, RuntimeConfig},
    judge::{Class, OperatingPoint, RegionChoice},
};

/// Settings of `evaluate`.
#[derive(Debug, Args)]
#[command(after_help = FIGURES)]
pub(super) struct EvaluateArgs {
    /// Labelled images: DIR/<source>/{0_real,1_fake}/..., one level of sets above the sources allowed.
    #[arg(value_name = "DIR")]
    folder: PathBuf,

    /// Print JSON, also on a terminal (a pipe gets JSON anyway).
    #[arg(long, env = "LFM_JSON")]
    json: bool,

    /// Also draw the scores, the ROC curves, the verdicts by class of file, and what is left at each JPEG quality.
    #[arg(long, env = "LFM_PLOT", value_name = "FILE.svg")]
    plot: Option<PathBuf>,

    /// Also write a line of JSON for each image, as `score --json` does, with its source, its label and its JPEG
    /// quality.
    #[arg(long, env = "LFM_SCORES", value_name = "FILE.jsonl")]
    scores: Option<PathBuf>,

    /// Also score every image after it was saved as a JPEG of these qualities (4:2:0) at its stored size, e.g.
    /// 95,90,75: what is left of it after an upload.
    #[arg(long, env = "LFM_JPEG_QUALITY", value_name = "Q,Q,...", value_delimiter = ',', value_parser = clap::value_parser!(u8).range(1..=100))]
    jpeg_quality: Vec<u8>,

    /// Model folder; given more than once, the models are compared. Default: as for `serve`.
    #[arg(long = "model", env = "LFM_MODEL", value_name = "DIR")]
    models: Vec<PathBuf>,

    /// Combination of the models, as `calibrate` writes it of several: judged by it first, then by each alone.
    #[arg(long, env = "LFM_COMBINE", value_name = "FILE")]
    combine: Option<PathBuf>,

    #[command(flatten)]
    runtime: RuntimeConfig,

    #[command(flatten)]
    judge: JudgeConfig,

    #[command(flatten)]
    limits: LimitsConfig,

    #[command(flatten)]
    declared: DeclaredConfig,
}

const FIGURES: &str = "\
Figures, by source, by class of file, over all images, and as the mean over sources:
  coverage              share of the images that get a verdict, not `uncertain`
  fake_verdicts_right   of the images called fake, the share that is; real_verdicts_right likewise
  false_alarms, misses  of all real images, the share called fake; of all generated ones, the share called real
  accuracy              of the images with a verdict, the share that is right; real_accuracy and fake_accuracy by label
  average_precision     of the network's own logits (logit_raw), which rank in every class of file
  interval_95           95 % bootstrap intervals, images drawn anew within each source and label

Exit status: 0 when every image was scored, 2 when some could not be (they are named and left out), 1 when nothing could be run.";

/// All that one model made of the images.
struct Run<'a> {
    model: Identity,
    judged_by: JudgedBy,
    /// As stored, then by JPEG quality in the order asked for.
    sets: Vec<Set<'a>>,
    /// Images that could not be scored.
    failed: usize,
    /// None with `--declared off`.
    declared: Option<SayGenerated>,
}

/// Writes the line of an image, given the quality of the JPEG that it was saved as.
type WriteLine<'a> = dyn FnMut(&Labelled, Option<u8>, &Line<'_>) -> Result<(), anyhow::Error> + 'a;

/// Files that say of themselves that they were generated, by their label.
#[derive(Debug, Clone, Copy, Default, Serialize)]
struct SayGenerated {
    real: usize,
    fake: usize,
}

/// The images in one state.
struct Set<'a> {
    jpeg: Option<u8>,
    judged: Vec<Judged<'a>>,
    report: Report,
}

#[derive(Serialize)]
struct Identity {
    folder: String,
    name: String,
    version: String,
    digest: String,
}

/// What decided.
#[derive(Serialize)]
struct JudgedBy {
    regions: RegionChoice,
    /// None where a threshold decided.
    operating_point: Option<OperatingPoint>,
    /// None where the evidence decided.
    threshold: Option<f64>,
    /// Digest of rules, evidence and settings.
    rules: String,
}

/// The JSON of one model; without `model` where there is only one.
#[derive(Serialize)]
struct RunReport<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    model: Option<&'a Identity>,
    judged_by: &'a JudgedBy,
    #[serde(flatten)]
    as_stored: Option<&'a Report>,
    /// Images that could not be scored, left out of the figures.
    failed: usize,
    /// Files that say of themselves that they were generated.
    #[serde(skip_serializing_if = "Option::is_none")]
    declared_generated: Option<SayGenerated>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    jpeg: BTreeMap<u8, &'a Report>,
}

/// A line of `--scores`.
#[derive(Serialize)]
struct ScoreLine<'a> {
    #[serde(flatten)]
    line: &'a Line<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    model: Option<&'a str>,
    source: &'a str,
    label: &'static str,
    jpeg_quality: Option<u8>,
}

pub(super) async fn run(args: EvaluateArgs) -> Result<ExitCode, anyhow::Error> {
    let (labelled, others) = labelled::find(&args.folder)?;
    // Now, not after an hour of scoring.
    if let Some(path) = &args.plot {
        let writable = fs::OpenOptions::new().append(true).create(true).open(path);
        writable.with_context(|| cannot_write(path))?;
    }
    let mut scores = match &args.scores {
        Some(path) => Some((path, BufWriter::new(File::create(path).with_context(|| cannot_write(path))?))),
        None => None,
    };

    let models = ModelConfig::each(&args.models, &args.runtime);
    // First what may not fit the models.
    let together = args.combine.as_deref().map(|file| Compared::Together(&models, file));
    let compared: Vec<_> = together.into_iter().chain(models.iter().map(Compared::Alone)).collect();
    let progress = progress_bar(labelled.len() * (1 + args.jpeg_quality.len()) * compared.len());
    let several = compared.len() > 1;
    let mut runs = Vec::new();
    for one in compared {
        let scorer = one.start(&args).await?;
        let mut run = Run::new(&scorer, one.place());
        let folder = several.then(|| run.model.folder.clone());
        let mut write = |labelled: &Labelled, jpeg_quality, line: &Line<'_>| {
            let Some((path, file)) = &mut scores else { return Ok(()) };
            let (source, label) = (&*labelled.source, if labelled.fake { "fake" } else { "real" });
            let line = ScoreLine { line, model: folder.as_deref(), source, label, jpeg_quality };
            writeln!(file, "{}", serde_json::to_string(&line)?).with_context(|| cannot_write(path))
        };
        run.judge(&scorer, &labelled, &args.jpeg_quality, &mut write, &progress).await?;
        runs.push(run);
    }
    progress.finish_and_clear();
    if let Some((path, mut file)) = scores {
        file.flush().with_context(|| cannot_write(path))?;
    }
    if let Some(line) = others.no_pictures() {
        eprintln!("lfm-serve: {line}");
    }

    if let Some(path) = &args.plot {
        fs::write(path, plot::svg(&runs)?).with_context(|| cannot_write(path))?;
    }
    if args.json || !io::stdout().is_terminal() {
        super::print_line(&json(&runs)?)?;
    } else {
        super::print_line(&table::text(&runs))?;
    }
    Ok(if runs.iter().all(|run| run.failed == 0) { ExitCode::SUCCESS } else { ExitCode::from(2) })
}

/// What judges all images once.
enum Compared<'a> {
    Alone(&'a ModelConfig),
    /// All models, by a combination's file.
    Together(&'a [ModelConfig], &'a Path),
}

impl Compared<'_> {
    async fn start(&self, args: &EvaluateArgs) -> Result<Scorer, anyhow::Error> {
        let EvaluateArgs { judge, limits, declared, .. } = args;
        match self {
            Self::Alone(model) => Scorer::start(model, judge, limits, declared).await,
            Self::Together(models, file) => Scorer::combined(models, file, judge, limits, declared).await,
        }
    }

    /// The model's folder, or the combination's file.
    fn place(&self) -> Option<&Path> {
        match self {
            Self::Alone(model) => model.model.as_deref(),
            Self::Together(_, file) => Some(file),
        }
    }
}

fn cannot_write(path: &Path) -> String {
    format!("cannot write {}", path.display())
}

impl<'a> Run<'a> {
    fn new(scorer: &Scorer, place: Option<&Path>) -> Self {
        let (manifest, judge) = (scorer.manifest(), scorer.judge());
        let folder = place.map_or_else(|| "default".into(), |place| place.display().to_string());
        let operating_point = judge.operating_point();
        Self {
            model: Identity {
                folder,
                name: manifest.name.clone(),
                version: manifest.version.clone(),
                digest: manifest.digest.clone(),
            },
            judged_by: JudgedBy {
                regions: judge.settings().regions,
                operating_point,
                threshold: operating_point.is_none().then(|| judge.threshold()),
                rules: judge.digest().to_owned(),
            },
            sets: Vec::new(),
            failed: 0,
            declared: None,
        }
    }

    async fn judge(
        &mut self,
        scorer: &Scorer,
        labelled: &'a [Labelled],
        qualities: &[u8],
        write: &mut WriteLine<'_>,
        progress: &ProgressBar,
    ) -> Result<(), anyhow::Error> {
        let mut sound: Vec<_> = labelled.iter().collect();
        for jpeg in std::iter::once(None).chain(qualities.iter().copied().map(Some)) {
            let paths: Vec<_> = sound.iter().map(|image| image.file.clone()).collect();
            let mut judged = Vec::new();
            let mut broken = Vec::new();
            let mut results = pin!(scorer.score_all(&paths, jpeg).enumerate());
            while let Some((index, (path, result))) = results.next().await {
                let image = sound[index];
                match &result {
                    Ok(file) => {
                        // As stored: a re-encoded file has lost its metadata.
                        if let (None, Some(declared)) = (jpeg, &file.declared) {
                            let count = self.declared.get_or_insert_default();
                            let generated = usize::from(declared.generated == Some(true));
                            *if image.fake { &mut count.fake } else { &mut count.real } += generated;
                        }
                        judged.push(image.judged(file));
                    }
                    Err(error) => {
                        broken.push(index);
                        progress.suspend(|| eprintln!("lfm-serve: {}: {error}", path.display()));
                    }
                }
                write(image, jpeg, &Line::new(&path.to_string_lossy(), result).1)?;
                progress.inc(1);
            }
            // Named and counted once, not again at every quality.
            self.failed += broken.len();
            for &index in broken.iter().rev() {
                sound.remove(index);
            }
            let report = Report::new(&judged);
            self.sets.push(Set { jpeg, judged, report });
        }
        Ok(())
    }

    fn report(&self, named: bool) -> RunReport<'_> {
        RunReport {
            model: named.then_some(&self.model),
            judged_by: &self.judged_by,
            as_stored: self.sets.iter().find(|set| set.jpeg.is_none()).map(|set| &set.report),
            failed: self.failed,
            declared_generated: self.declared,
            jpeg: self.sets.iter().filter_map(|set| Some((set.jpeg?, &set.report))).collect(),
        }
    }
}

impl Labelled {
    /// What was said of it.
    pub(super) fn judged(&self, FileScore { image, judgement, .. }: &FileScore) -> Judged<'_> {
        Judged {
            source: &self.source,
            fake: self.fake,
            class: Class::of(&image.header),
            verdict: judgement.verdict,
            score: judgement.score,
            logit_raw: judgement.logit_raw,
            regions: judgement.regions.len(),
        }
    }
}

fn json(runs: &[Run<'_>]) -> serde_json::Result<String> {
    let reports: Vec<_> = runs.iter().map(|run| run.report(runs.len() > 1)).collect();
    match &reports[..] {
        [one] => serde_json::to_string(one),
        several => serde_json::to_string(&BTreeMap::from([("models", several)])),
    }
}
