//! `lfm-serve score`.

use std::{
    fs,
    io::{self, IsTerminal},
    path::{Component, Path, PathBuf},
    pin::pin,
    process::ExitCode,
};

use anyhow::Context;
use clap::Args;
use comfy_table::{CellAlignment, Table, presets};
use futures_util::StreamExt;
use serde::Serialize;

use super::{
    bulk::{self, BulkArgs},
    files::Found,
    line::Line,
    progress::progress_bar,
    scorer::{Explanation, FileScore, Scorer},
};
use crate::{
    answer::AttributionInfo,
    config::{DeclaredConfig, JudgeConfig, LimitsConfig, ModelConfig},
    declared::{Claim, Declared, Validation},
    error::Error,
    judge::Judgement,
};

/// Settings of `score`.
#[derive(Debug, Args)]
#[command(
    after_help = "Exit status: 0 when every image was scored, 2 when some could not be, 1 when nothing could be run or an archive's run was stopped. Files of a folder that are no pictures are named at the end."
)]
pub(super) struct ScoreArgs {
    /// Files and folders; of a folder all images below it, whatever they are called. Hidden files are left out.
    #[arg(required_unless_present = "from", value_name = "PATH")]
    paths: Vec<PathBuf>,

    /// One JSON object a line, also on a terminal (a pipe gets JSON anyway).
    #[arg(long, env = "LFM_JSON")]
    json: bool,

    /// Write for each file why it got its logit: DIR/PATH.json, the contribution of every place, and
    /// DIR/PATH.png, the same drawn on the picture.
    #[arg(long, env = "LFM_EXPLAIN", value_name = "DIR")]
    explain: Option<PathBuf>,

    /// Also show each file of a folder that is no picture, with what it is. They do not change the exit status.
    #[arg(long, env = "LFM_ALL_ERRORS")]
    all_errors: bool,

    #[command(flatten)]
    model: ModelConfig,

    #[command(flatten)]
    judge: JudgeConfig,

    #[command(flatten)]
    limits: LimitsConfig,

    #[command(flatten)]
    declared: DeclaredConfig,

    #[command(flatten)]
    bulk: BulkArgs,
}

/// A file's explanation in JSON.
#[derive(Serialize)]
struct Explained<'a> {
    #[serde(flatten)]
    line: &'a Line<'a>,
    attribution: &'a AttributionInfo,
}

pub(super) async fn run(args: ScoreArgs) -> Result<ExitCode, anyhow::Error> {
    if let Some(from) = &args.bulk.from {
        let scorer = Scorer::start(&args.model, &args.judge, &args.limits, &args.declared).await?;
        return bulk::run(from, &args.bulk, args.json, scorer).await;
    }
    let found = Found::at(&args.paths);
    let no_pictures = found.no_pictures();
    let (images, mut files) = (found.images.len(), found.images);
    if args.all_errors {
        files.extend(found.others);
    }
    if files.is_empty() {
        let others = no_pictures.map(|others| format!("; {others}")).unwrap_or_default();
        anyhow::bail!("no images below the given folders{others}");
    }
    let scorer = Scorer::start(&args.model, &args.judge, &args.limits, &args.declared).await?;
    if args.explain.is_some() && !scorer.manifest().explains() {
        anyhow::bail!("--explain needs a graph with Top-K places; this model gives a logit only");
    }
    let scorer = if args.explain.is_some() { scorer.explaining() } else { scorer };
    let as_json = args.json || !io::stdout().is_terminal();
    let progress = progress_bar(files.len());
    let mut table = Table::new();
    table
        .load_preset(presets::NOTHING)
        .set_header(["verdict", "score", "logit", "regions", "evidence", "declared", "warnings", "file"]);
    for column in [1, 2, 3] {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }

    let mut failed = 0;
    let mut results = pin!(scorer.score_all(&files, None).enumerate());
    while let Some((index, (path, result))) = results.next().await {
        failed += usize::from(result.is_err() && index < images);
        let row = row(path, &result);
        let path_text = path.to_string_lossy();
        let (explanation, line) = Line::new(&path_text, result);
        if let (Some(folder), Some(explanation)) = (&args.explain, explanation) {
            write_explanation(folder, path, &line, &explanation)?;
        }
        if as_json {
            let line = serde_json::to_string(&line)?;
            progress.suspend(|| super::print_line(&line))?;
        } else {
            table.add_row(row);
        }
        progress.inc(1);
    }
    progress.finish_and_clear();
    if !as_json {
        super::print_line(&table.to_string())?;
    }
    if let Some(line) = no_pictures {
        eprintln!("lfm-serve: {line}");
    }
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::from(2) })
}

fn row(path: &Path, result: &Result<FileScore, Error>) -> [String; 8] {
    let path = path.display().to_string();
    match result {
        Ok(FileScore { judgement, declared, .. }) => {
            let warnings: Vec<_> = judgement.warnings.iter().map(|warning| warning.as_str()).collect();
            [
                judgement.verdict.as_str().into(),
                judgement.score.map_or_else(|| "-".into(), |score| format!("{score:.4}")),
                judgement.logit.map_or_else(|| "-".into(), |logit| format!("{logit:.3}")),
                judgement.regions.len().to_string(),
                evidence(judgement),
                declared.as_ref().map(declares).unwrap_or_default(),
                warnings.join(" "),
                path,
            ]
        }
        Err(error) => {
            let empty = String::new;
            ["-".into(), empty(), empty(), empty(), empty(), empty(), error.code.as_str().into(), path]
        }
    }
}

/// In a few words: of the real pictures of this class of file so many score so high, of the generated ones so many so
/// low.
fn evidence(judgement: &Judgement) -> String {
    let Some(found) = &judgement.evidence else { return String::new() };
    let percent = |share: Option<f64>| share.map_or_else(|| "-".into(), |share| format!("{:.1} %", 100.0 * share));
    let (real, fake) = (percent(found.real_at_or_above), percent(found.fake_at_or_below));
    format!("{}: real {real}, fake {fake}", found.class.as_str())
}

/// In a few words: the claims, each with its source and, where it has one, its signature.
fn declares(declared: &Declared) -> String {
    let claim = |claim: &Claim| {
        let tool = claim.tool.as_deref().map(|tool| format!(" {tool}")).unwrap_or_default();
        let signature = match claim.validation {
            Validation::None => String::new(),
            signature => format!(" ({})", signature.as_str()),
        };
        format!("{} {}{tool}{signature}", claim.source.as_str(), claim.kind.as_str())
    };
    declared.claims.iter().map(claim).collect::<Vec<_>>().join("; ")
}

/// Writes a file's explanation below `folder`, at the file's own path, so that equal names do not meet.
fn write_explanation(
    folder: &Path,
    file: &Path,
    line: &Line<'_>,
    explanation: &Explanation,
) -> Result<(), anyhow::Error> {
    let mut place = folder.to_path_buf();
    for part in file.components() {
        match part {
            Component::Normal(name) => place.push(name),
            // Nothing is written outside the folder.
            Component::ParentDir => place.push("_"),
            Component::Prefix(_) | Component::RootDir | Component::CurDir => {}
        }
    }
    let write = |ending: &str, bytes: &[u8]| {
        let mut path = place.clone().into_os_string();
        path.push(ending);
        fs::write(&path, bytes).with_context(|| format!("cannot write {}", Path::new(&path).display()))
    };
    if let Some(parent) = place.parent() {
        fs::create_dir_all(parent).with_context(|| format!("cannot make the folder {}", parent.display()))?;
    }
    let attribution = &explanation.attribution;
    write(".json", &serde_json::to_vec(&Explained { line, attribution })?)?;
    write(".png", &explanation.overlay)
}
