//! `lfm-serve score --from`: archives. The same pictures give the same rows as `score`, written in part files; a run that
//! was killed goes on where its last part file ended. docs/bulk.md has the design.

mod columns;
mod fetch;
mod figures;
mod parts;
mod place;
mod progress;
mod row;
mod shard;
mod source;

use std::{
    collections::{BTreeMap, HashMap},
    io::IsTerminal,
    ops::RangeInclusive,
    process::ExitCode,
    time::Duration,
};

use anyhow::Context;
use clap::Args;
use futures_util::{StreamExt, TryStreamExt};
use tokio::{
    signal::unix::{SignalKind, signal},
    time::{Instant, timeout_at},
};

use self::{
    fetch::{Budget, fetch},
    figures::{Figures, Summary},
    parts::{Output, Part, Rows},
    place::{Place, Stores},
    progress::Progress,
    row::Row,
    shard::{Shard, key},
    source::{Item, Source},
};
use super::{
    line::Line,
    scorer::{FileScore, Scorer},
};
use crate::error::{Code, Error};

/// Bytes of objects that are held at a time.
const HELD_BYTES: u32 = 256 << 20;

/// Objects that could not be read, one after another: the store or the credentials are at fault, not the objects.
const MOST_UNREADABLE: u32 = 100;

/// Settings of `score --from`.
#[derive(Debug, Args)]
#[command(next_help_heading = "Archives")]
pub(super) struct BulkArgs {
    /// Score an archive into --out: a folder, a file with a path or URL a line, or a prefix s3://BUCKET/PREFIX,
    /// gs://BUCKET/PREFIX, az://CONTAINER/PREFIX. Run it again to go on where it was stopped (docs/bulk.md).
    #[arg(long, env = "LFM_FROM", value_name = "DIR|LIST|URL", requires = "out", conflicts_with_all = ["paths", "explain", "all_errors"])]
    pub(super) from: Option<String>,

    /// Where the rows go: a folder or prefix, made if it is not there, of part files. Its ending says what they are:
    /// NAME.parquet or NAME.jsonl.
    #[arg(long, env = "LFM_OUT", value_name = "DIR|URL", requires = "from")]
    out: Option<String>,

    /// Score one of N shares of the pictures, I from 0 to N - 1.
    #[arg(long, env = "LFM_SHARD", value_name = "I/N", requires = "from")]
    shard: Option<Shard>,

    /// The number of shares, where JOB_COMPLETION_INDEX says which: the completions of an Indexed Job of Kubernetes.
    #[arg(long, env = "LFM_SHARDS", value_name = "N", requires = "from", conflicts_with = "shard", value_parser = clap::value_parser!(u32).range(1..=99_999))]
    shards: Option<u32>,

    /// Rows of a part file at the most: what a killed run can lose.
    #[arg(long, env = "LFM_PART_ROWS", value_name = "N", default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    part_rows: u32,

    /// Time after which a part file is written with the rows that there are.
    #[arg(long, env = "LFM_PART_TIME", value_name = "DURATION", default_value = "60s", value_parser = time)]
    part_time: Duration,

    /// Objects that are read ahead, 256 MiB of them at the most.
    #[arg(long, env = "LFM_PREFETCH", value_name = "N", default_value_t = 32, value_parser = clap::value_parser!(u16).range(1..=1024))]
    prefetch: u16,

    /// For how long a request to the object store that fails is sent again.
    #[arg(long, env = "LFM_RETRY_TIMEOUT", value_name = "DURATION", default_value = "3m", value_parser = time)]
    retry_timeout: Duration,

    /// Exit 0 also where pictures could not be scored, as long as all could be read: their errors are in the rows.
    #[arg(long, env = "LFM_ALLOW_ERRORS")]
    allow_errors: bool,
}

/// A second to a day.
fn time(text: &str) -> Result<Duration, String> {
    const RANGE: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(24 * 3600);
    let time = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    if RANGE.contains(&time) { Ok(time) } else { Err("it is from 1s to 1day".into()) }
}

/// Which pictures have a row, by the key of their path, with a digest of their version.
type Done = HashMap<u128, u128>;

/// Scores what `from` names.
pub(super) async fn run(from: &str, args: &BulkArgs, as_json: bool, scorer: Scorer) -> Result<ExitCode, anyhow::Error> {
    let out = args.out.as_deref().context("--from needs --out")?;
    let shard = Shard::of(args.shard, args.shards)?;
    let stores = Stores::new(args.retry_timeout);
    let source = Source::find(from, &stores)?;
    let [source_place, out_place] = [from, out].map(Place::parse);
    anyhow::ensure!(
        !out_place.map_err(anyhow::Error::msg)?.is_below(&source_place.map_err(anyhow::Error::msg)?),
        "--out is below --from: the next run would score its files"
    );
    let output = Output::open(out, &stores, shard).await?;
    let manifest = scorer.manifest();
    let mut figures = Figures::new(manifest.rules.evidence.as_ref());
    let mut done = Done::new();
    output
        .known(|row| {
            for (what, there, here) in
                [("model", &*row.model, &*manifest.digest), ("rules", &*row.rules, scorer.judge().digest())]
            {
                anyhow::ensure!(
                    there == here,
                    "--out has rows of another {what} ({there}, this run's is {here}): take another --out"
                );
            }
            figures.add(&row);
            done.insert(key(&row.path), version(row.etag.as_deref()));
            Ok(())
        })
        .await?;
    let run = Run { scorer: &scorer, stores: &stores, budget: Budget::new(HELD_BYTES), done, args };
    let ended = run.all(&source, shard, output, &mut figures).await?;
    let summary = figures.summary();
    if as_json || !std::io::stdout().is_terminal() {
        super::print_line(&serde_json::to_string(&summary)?)?;
    } else {
        super::print_line(&text(&summary))?;
    }
    ended.say();
    ended.result()?;
    let all_scored = ended.failed == 0 && (summary.failed == 0 || args.allow_errors);
    Ok(if all_scored { ExitCode::SUCCESS } else { ExitCode::from(2) })
}

/// What a run works with.
struct Run<'a> {
    scorer: &'a Scorer,
    stores: &'a Stores,
    budget: Budget,
    done: Done,
    args: &'a BulkArgs,
}

/// How a run ended.
#[derive(Default)]
struct Ended {
    /// Pictures without a final row, that another run may be able to score.
    failed: u64,
    /// Files that could not be read, up to the last one.
    unreadable: u32,
    /// Objects that have a row and another version since.
    newer: u64,
    /// Why it stopped before its end.
    stopped: Option<String>,
}

impl Ended {
    /// Counts a picture, and stops the run where the store answers no more.
    fn count(&mut self, result: &Result<FileScore, Error>) {
        let error = result.as_ref().err();
        self.failed += u64::from(error.is_some_and(may_pass));
        let Some(error) = error.filter(|error| error.code == Code::Unreadable) else {
            self.unreadable = 0;
            return;
        };
        self.unreadable += 1;
        if self.unreadable == MOST_UNREADABLE {
            let why = &error.detail;
            self.stopped = Some(format!("{MOST_UNREADABLE} files one after another are unreadable ({why})"));
        }
    }

    fn say(&self) {
        if self.failed > 0 {
            eprintln!("lfm-serve: {} images could not be read: run it again to try them again", self.failed);
        }
        if self.newer > 0 {
            eprintln!(
                "lfm-serve: {} objects have changed since they were scored; their rows are of the version of their ETag",
                self.newer
            );
        }
    }

    fn result(&self) -> Result<(), anyhow::Error> {
        self.stopped.as_ref().map_or(Ok(()), |why| Err(anyhow::anyhow!("{why}; run it again to go on")))
    }
}

/// The rows that are not written yet.
struct Pending {
    done: Part,
    failed: Part,
    rows: u32,
    failed_rows: u32,
    due: Instant,
}

impl Run<'_> {
    /// Scores all pictures that have no row.
    async fn all(
        &self,
        source: &Source,
        shard: Shard,
        mut output: Output,
        figures: &mut Figures<'_>,
    ) -> Result<Ended, anyhow::Error> {
        let mut ended = Ended::default();
        let mut progress = Progress::new();
        let at_once = self.scorer.side_by_side() + usize::from(self.args.prefetch);
        let scored = source.items(shard).map_ok(|item| async move {
            let result = if self.has(&item) { None } else { Some(self.score(&item).await) };
            Ok((item, result))
        });
        let mut scored = std::pin::pin!(scored.try_buffered(at_once));
        let mut count = std::pin::pin!(self.count(source, shard));
        let mut counting = true;
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        output.remove_failed().await?;
        let mut pending = self.pending(&output);
        loop {
            // A picture, or that a part file is due; or why there is no more, if that is not the end.
            let next = tokio::select! {
                _ = terminate.recv() => Err(Some("stopped by SIGTERM".to_owned())),
                _ = interrupt.recv() => Err(Some("stopped by SIGINT".to_owned())),
                all = &mut count, if counting => {
                    counting = false;
                    if let Some(all) = all {
                        progress.counted(all);
                    }
                    continue;
                }
                next = timeout_at(pending.due, scored.next()) => match next {
                    Ok(Some(Ok(scored))) => Ok(Some(scored)),
                    Ok(Some(Err(error))) => Err(Some(format!("{error:#}"))),
                    Ok(None) => Err(None),
                    Err(_due) => Ok(None),
                },
            };
            let is_due = match next {
                Err(why) => {
                    ended.stopped = why;
                    break;
                }
                Ok(None) => true,
                Ok(Some((item, None))) => {
                    let before = self.done.get(&key(&item.path));
                    let now = item.etag.as_deref();
                    ended.newer += u64::from(now.is_some() && before.is_some_and(|&before| before != version(now)));
                    false
                }
                Ok(Some((item, Some((etag, result))))) => {
                    progress.one_more();
                    ended.count(&result);
                    self.add(&item, etag.as_deref(), result, &mut pending, figures)?;
                    if ended.stopped.is_some() {
                        break;
                    }
                    pending.rows.max(pending.failed_rows) >= self.args.part_rows
                }
            };
            if is_due {
                pending = self.write(pending, &mut output, &progress).await?;
            }
        }
        self.write(pending, &mut output, &progress).await?;
        progress.finish();
        Ok(ended)
    }

    /// Makes a picture's row.
    fn add(
        &self,
        item: &Item,
        etag: Option<&str>,
        result: Result<FileScore, Error>,
        pending: &mut Pending,
        figures: &mut Figures<'_>,
    ) -> Result<(), anyhow::Error> {
        let again = result.as_ref().is_err_and(may_pass);
        let (_, line) = Line::new(&item.path, result);
        let (model, rules) = (&*self.scorer.manifest().digest, self.scorer.judge().digest());
        let row = Row { line, etag, model, rules };
        if again {
            pending.failed.add(&row)?;
            pending.failed_rows += 1;
        } else {
            figures.add(&pending.done.add(&row)?);
            pending.rows += 1;
        }
        Ok(())
    }

    fn pending(&self, output: &Output) -> Pending {
        let due = Instant::now() + self.args.part_time;
        Pending { done: output.part(), failed: output.part(), rows: 0, failed_rows: 0, due }
    }

    async fn write(
        &self,
        pending: Pending,
        output: &mut Output,
        progress: &Progress,
    ) -> Result<Pending, anyhow::Error> {
        let Pending { done, failed, rows, failed_rows, .. } = pending;
        for (kind, part, rows) in [(Rows::Done, done, rows), (Rows::Failed, failed, failed_rows)] {
            if rows > 0 {
                progress.written(&output.write(kind, part).await?);
            }
        }
        Ok(self.pending(output))
    }

    fn has(&self, item: &Item) -> bool {
        self.done.contains_key(&key(&item.path))
    }

    /// How many pictures there are to score; none where they cannot be counted, which scoring them says.
    async fn count(&self, source: &Source, shard: Shard) -> Option<u64> {
        let items = source.items(shard).try_filter(|item| std::future::ready(!self.has(item)));
        items.try_fold(0, async |count, _| Ok(count + 1)).await.ok()
    }

    /// A picture's score, and the version of it that was read.
    async fn score(&self, item: &Item) -> (Option<String>, Result<FileScore, Error>) {
        let (bucket, path) = match &item.place {
            Ok(Place::Remote { bucket, path }) => (bucket, path),
            Ok(Place::Local(file)) => return (None, self.scorer.score_file(file).await),
            Err(why) => return (None, Err(Error::new(Code::Unreadable, why))),
        };
        let store = match self.stores.bucket(bucket) {
            Ok(store) => store,
            Err(error) => return (None, Err(Error::new(Code::Unreadable, error.to_string()))),
        };
        match fetch(&*store, path, item.etag.as_deref(), self.scorer.max_file_bytes(), &self.budget).await {
            Ok(fetched) => {
                // The bytes stay reserved until they are scored.
                let result = self.scorer.score_bytes(fetched.bytes.clone()).await;
                (fetched.etag, result)
            }
            Err(error) => (item.etag.clone(), Err(error)),
        }
    }
}

/// Whether another run may not meet this error.
fn may_pass(error: &Error) -> bool {
    matches!(error.code, Code::Unreadable | Code::Changed | Code::InferenceFailed)
}

fn version(etag: Option<&str>) -> u128 {
    etag.map(key).unwrap_or_default()
}

/// The figures for people.
fn text(summary: &Summary) -> String {
    let counts = |counts: &BTreeMap<String, u64>| {
        counts.iter().map(|(name, count)| format!("{count} {name}")).collect::<Vec<_>>().join(", ")
    };
    let mut lines = vec![format!("{} rows: {}", summary.images, counts(&summary.verdicts))];
    if !summary.errors.is_empty() {
        lines.push(format!("errors: {}; {} are no pictures", counts(&summary.errors), summary.no_pictures));
    }
    for (class, of) in &summary.classes {
        lines.push(format!("{class}: {}", counts(&of.verdicts)));
        for drift in &of.drift {
            lines.push(format!(
                "  {} images of {} regions: as a mix with {:.0} % generated, at a distance of {:.2}",
                drift.images,
                drift.regions,
                100.0 * drift.generated,
                drift.distance
            ));
        }
    }
    lines.join("\n")
}
