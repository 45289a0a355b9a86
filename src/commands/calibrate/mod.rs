//! `lfm-serve calibrate`: a copy of a model folder whose evidence is from the user's own labelled pictures, or of several
//! models the combination.

mod combination;
mod folder;
mod text;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::{self, IsTerminal},
    path::{Path, PathBuf},
    pin::pin,
    process::ExitCode,
};

use anyhow::Context;
use clap::Args;
use futures_util::StreamExt;
use serde::Serialize;

use self::{combination::Combining, folder::Folder};
use super::{
    evaluate::Report,
    labelled::{self, Labelled},
    progress::progress_bar,
    scorer::{FileScore, Scorer},
};
use crate::{
    calibrate::{self, ClassFit, Half, Shot},
    config::{DeclaredConfig, JudgeConfig, LimitsConfig, ModelConfig, RuntimeConfig, Switch},
    declared::Detail,
    image::ImageFacts,
    judge::{Class, ClassTables, Evidence, OperatingPoint, RegionChoice},
};

/// Settings of `calibrate`.
#[derive(Debug, Args)]
#[command(after_help = NOTES)]
pub(super) struct CalibrateArgs {
    /// Labelled images, as for `evaluate`: DIR/<source>/{0_real,1_fake}/..., one level of sets above the sources allowed.
    #[arg(value_name = "DIR")]
    folder: PathBuf,

    /// The model folder to write, or of several models the combination's file: it must not exist.
    #[arg(long, value_name = "PATH")]
    out: PathBuf,

    /// Print JSON, also on a terminal (a pipe gets JSON anyway).
    #[arg(long, env = "LFM_JSON")]
    json: bool,

    /// Model folder; given more than once, the models are combined: per class of file, the weights of their logits are
    /// fitted. Default: as for `serve`.
    #[arg(long = "model", env = "LFM_MODEL", value_name = "DIR", value_delimiter = ',')]
    models: Vec<PathBuf>,

    #[command(flatten)]
    runtime: RuntimeConfig,

    #[command(flatten)]
    limits: LimitsConfig,
}

const NOTES: &str = "\
The pictures should be like those that will be judged: stored as they will come, from all the sources that they will come from. \
A class of file (lossless, JPEG by quality, lossy WebP, small) gets verdicts only from pictures of that class, so add \
re-encodings as your platform makes them.

Half of the pictures, chosen by a hash of their bytes, is kept out of the evidence and shows what it is worth. Files whose names \
are equal up to the first dot (a.png, a.q75.jpg) stay together; within a source they are one picture, and count once in a class. \
A class with fewer than 30 real and 30 generated pictures in the other half, or with an area under the ROC curve below 0.75, \
always answers `uncertain`.

Of several models a logistic regression on their logits, with an L2 penalty, gives the weights of each class of file. The output \
has how well the report half is told apart by each model alone and by all together; `serve --combine FILE` serves them.

Exit status: 0 when every image was scored, 2 when some could not be (they are named and left out), 1 when nothing was written.";

/// The operating point of a model that had no evidence.
const DEFAULT_POINT: OperatingPoint = OperatingPoint { false_alarms: 0.05, misses: 0.1 };

/// What is printed as JSON.
#[derive(Serialize)]
struct Outcome<'a> {
    /// The new folder or the combination's file; none where no class gives verdicts.
    model: Option<String>,
    /// The models that are combined, in the order of the weights.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    combined: Vec<String>,
    files: usize,
    /// Those that could not be scored.
    failed: usize,
    /// Those whose verdict is void whatever the evidence.
    void: usize,
    operating_point: OperatingPoint,
    classes: &'a BTreeMap<Class, ClassFit>,
    /// The report half as the new folder judges it.
    #[serde(skip_serializing_if = "Option::is_none")]
    report: Option<&'a Report>,
}

/// What is written.
enum Target {
    Folder(Box<Folder>),
    Combination(Combining),
}

impl Target {
    fn read(models: &[ModelConfig]) -> Result<Self, anyhow::Error> {
        match models {
            [model] => Folder::read(model.model.as_deref()).map(|folder| Self::Folder(Box::new(folder))),
            several => Combining::read(several).map(Self::Combination),
        }
    }

    /// The default operating point, if there is evidence.
    fn operating_point(&self) -> Option<OperatingPoint> {
        match self {
            Self::Folder(folder) => folder.operating_point(),
            Self::Combination(combining) => combining.operating_point(),
        }
    }

    /// Names of the models that are combined.
    fn combined(&self) -> Vec<String> {
        match self {
            Self::Folder(_) => Vec::new(),
            Self::Combination(combining) => combining.names(),
        }
    }

    /// Writes it; of what fails nothing stays.
    fn write(
        self,
        out: &Path,
        evidence: Evidence,
        classes: &BTreeMap<Class, ClassFit>,
        shots: &[&Shot],
    ) -> Result<(), anyhow::Error> {
        match self {
            Self::Folder(folder) => folder.write(out, &evidence, classes, shots),
            Self::Combination(combining) => combining.write(out, evidence, classes, shots),
        }
    }
}

pub(super) async fn run(args: CalibrateArgs) -> Result<ExitCode, anyhow::Error> {
    let (labelled, others) = labelled::find(&args.folder)?;
    let models = args.models();
    let target = Target::read(&models)?;
    // Now, not after an hour of scoring.
    let cannot = || format!("cannot make {}", args.out.display());
    fs::create_dir(&args.out).and_then(|()| fs::remove_dir(&args.out)).with_context(cannot)?;

    // One region, as the evidence of the bundled model.
    let centre = JudgeConfig { regions: RegionChoice::One, ..JudgeConfig::default() };
    let all: Vec<_> = labelled.iter().collect();
    let mut by_model = Vec::with_capacity(models.len());
    for model in &models {
        let scorer = Scorer::start(model, &centre, &args.limits, &SILENT).await?;
        by_model.push(args.score(&scorer, &all).await);
    }
    if let Some(line) = others.no_pictures() {
        eprintln!("lfm-serve: {line}");
    }
    let scored: Vec<_> = (0..labelled.len()).map(|file| Scored::of(&by_model, file)).collect();
    let failed = scored.iter().filter(|score| score.is_none()).count();
    let (shots, void) = shots(&labelled, &scored);
    let point = target.operating_point().unwrap_or(DEFAULT_POINT);
    let of_class = |class| {
        let shots: Vec<_> = shots.iter().map(|(_, shot)| shot).filter(|shot| shot.class == class).collect();
        (class, calibrate::fit(&shots, point))
    };
    let classes: BTreeMap<_, _> = Class::ALL.map(of_class).into_iter().collect();
    let mut outcome = Outcome {
        model: None,
        combined: target.combined(),
        files: labelled.len(),
        failed,
        void,
        operating_point: point,
        classes: &classes,
        report: None,
    };
    if classes.values().all(|class| class.undecided.is_some()) {
        args.print(&outcome)?;
        anyhow::bail!("no class of file gets verdicts from these pictures; nothing is written");
    }
    let table =
        |(class, found): (&Class, &ClassFit)| (*class, ClassTables { regions: [(1, found.table.clone())].into() });
    let evidence = Evidence { operating_point: point, classes: classes.iter().map(table).collect() };
    let fitted: Vec<_> = shots.iter().map(|(_, shot)| shot).collect();
    target.write(&args.out, evidence, &classes, &fitted)?;

    // It is judged as `serve` will judge it; that it is served at all shows as well.
    let held: Vec<_> =
        shots.iter().filter(|(_, shot)| shot.half == Half::Report).map(|&(index, _)| &labelled[index]).collect();
    let scorer = args.written(&models).await.inspect_err(|_| args.remove())?;
    let scores = args.score(&scorer, &held).await;
    let judged: Vec<_> =
        held.iter().zip(&scores).filter_map(|(image, score)| Some(image.judged(score.as_ref()?))).collect();
    let report = Report::new(&judged);
    outcome.model = Some(args.out.display().to_string());
    outcome.report = Some(&report);
    args.print(&outcome)?;
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::from(2) })
}

/// What a file says of itself is no evidence.
const SILENT: DeclaredConfig =
    DeclaredConfig { declared: Switch::Off, declared_detail: Detail::Brief, c2pa_trust: None };

impl CalibrateArgs {
    /// Each model with the runtime.
    fn models(&self) -> Vec<ModelConfig> {
        ModelConfig::each(&self.models, &self.runtime)
    }

    /// What was written, at work.
    async fn written(&self, models: &[ModelConfig]) -> Result<Scorer, anyhow::Error> {
        let judge = JudgeConfig::default();
        match models {
            [_] => {
                let model = ModelConfig { model: Some(self.out.clone()), runtime: self.runtime.clone() };
                Scorer::start(&model, &judge, &self.limits, &SILENT).await
            }
            several => Scorer::combined(several, &self.out, &judge, &self.limits, &SILENT).await,
        }
    }

    /// Removes what was written: it was made here, so nothing of anyone else is in it.
    fn remove(&self) {
        let _ = if self.out.is_dir() { fs::remove_dir_all(&self.out) } else { fs::remove_file(&self.out) };
    }

    /// Scores the files; none for one that cannot be, which is named.
    async fn score(&self, scorer: &Scorer, labelled: &[&Labelled]) -> Vec<Option<FileScore>> {
        let paths: Vec<_> = labelled.iter().map(|image| image.file.clone()).collect();
        let progress = progress_bar(paths.len());
        let mut results = pin!(scorer.score_all(&paths, None));
        let mut scores = Vec::with_capacity(paths.len());
        while let Some((path, result)) = results.next().await {
            // An imported graph may overflow.
            let score = match result {
                Ok(score) if score.judgement.logit_raw.is_finite() => Ok(score),
                Ok(_) => Err("the model's logit is not a finite number".to_owned()),
                Err(error) => Err(error.to_string()),
            };
            let named = |error: &_| progress.suspend(|| eprintln!("lfm-serve: {}: {error}", path.display()));
            scores.push(score.inspect_err(named).ok());
            progress.inc(1);
        }
        progress.finish_and_clear();
        scores
    }

    fn print(&self, outcome: &Outcome<'_>) -> Result<(), anyhow::Error> {
        let json = self.json || !io::stdout().is_terminal();
        super::print_line(&if json { serde_json::to_string(outcome)? } else { text::of(outcome) })?;
        Ok(())
    }
}

/// A file that every model has scored.
struct Scored<'a>(Vec<&'a FileScore>);

impl<'a> Scored<'a> {
    fn of(by_model: &'a [Vec<Option<FileScore>>], file: usize) -> Option<Self> {
        by_model.iter().map(|scores| scores[file].as_ref()).collect::<Option<_>>().map(Self)
    }

    fn image(&self) -> &'a ImageFacts {
        &self.0[0].image
    }
}

/// The scored files that evidence can speak of, each with its number among all, and how many are void.
fn shots(labelled: &[Labelled], scores: &[Option<Scored<'_>>]) -> (Vec<(usize, Shot)>, usize) {
    let scored: Vec<_> = labelled
        .iter()
        .zip(scores)
        .enumerate()
        .filter_map(|(i, (image, score))| Some((i, image, score.as_ref()?)))
        .collect();
    let named: Vec<_> = scored.iter().map(|(_, image, score)| (&*image.picture, &score.image().sha256)).collect();
    let halves = calibrate::halves(&named);
    let pictures: BTreeSet<_> =
        scored.iter().map(|(_, image, _)| (&image.source, image.fake, &image.picture)).collect();
    let pictures: BTreeMap<_, _> = pictures.into_iter().zip(0..).collect();
    let shot = |((index, image, score), half): (&(usize, &Labelled, &Scored<'_>), Half)| {
        // A warning that voids the verdict does so under any evidence.
        let logits = score.0.iter().map(|score| score.judgement.score.map(|_| score.judgement.logit_raw));
        let logits = logits.collect::<Option<_>>()?;
        let picture = pictures[&(&image.source, image.fake, &image.picture)];
        let class = Class::of(&score.image().header);
        Some((*index, Shot { class, fake: image.fake, picture, half, logits }))
    };
    let shots: Vec<_> = scored.iter().zip(halves).filter_map(shot).collect();
    let void = scored.len() - shots.len();
    (shots, void)
}
