//! The result: a folder or prefix of part files, each written whole and never again. What is done is what they say, so
//! that there is no journal that could differ from them.

use std::sync::Arc;

use anyhow::Context;
use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt};
use object_store::{Error, ObjectStore, ObjectStoreExt, PutMode, PutPayload, local::LocalFileSystem, path::Path};
use serde_json::Value;

use super::{
    columns::{self, Columns},
    place::{Place, Stores, failed},
    row::{Known, Row},
    shard::Shard,
};

/// Part files that are read back at a time.
const AT_ONCE: usize = 4;

/// What the part files are, by the ending of `--out`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    Parquet,
    JsonLines,
}

impl Format {
    const fn ending(self) -> &'static str {
        match self {
            Self::Parquet => ".parquet",
            Self::JsonLines => ".jsonl",
        }
    }
}

/// What a part file's rows are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rows {
    /// Final.
    Done,
    /// Errors that another run may not meet: it begins by removing these files.
    Failed,
}

impl Rows {
    const fn word(self) -> &'static str {
        match self {
            Self::Done => "part",
            Self::Failed => "failed",
        }
    }
}

/// A part file's name says what it holds: `part-00003-of-00064-000017.parquet`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Name {
    rows: Rows,
    shard: Shard,
    number: u32,
    format: Format,
}

impl Name {
    fn text(self) -> String {
        let Self { rows, shard: Shard { index, count }, number, format } = self;
        format!("{}-{index:05}-of-{count:05}-{number:06}{}", rows.word(), format.ending())
    }

    fn parse(text: &str) -> Option<Self> {
        let format = [Format::Parquet, Format::JsonLines].into_iter().find(|format| text.ends_with(format.ending()))?;
        let mut words = text.strip_suffix(format.ending())?.split('-');
        let word = words.next()?;
        let rows = [Rows::Done, Rows::Failed].into_iter().find(|rows| rows.word() == word)?;
        let index = words.next()?.parse().ok()?;
        let count = words.nth(1)?.parse().ok()?;
        let name = Self { rows, shard: Shard { index, count }, number: words.next()?.parse().ok()?, format };
        (name.text() == text).then_some(name)
    }
}

/// Rows on their way into a part file.
pub(super) enum Part {
    Parquet(Columns),
    JsonLines(Vec<u8>),
}

impl Part {
    /// Adds a row; gives what the run needs of it itself.
    pub(super) fn add(&mut self, row: &Row<'_>) -> Result<Known, anyhow::Error> {
        let value = serde_json::to_value(row)?;
        match self {
            Self::Parquet(columns) => columns.add(&value),
            Self::JsonLines(lines) => {
                serde_json::to_writer(&mut *lines, row)?;
                lines.push(b'\n');
            }
        }
        Ok(Known::of(&value))
    }

    fn encode(self) -> Result<Vec<u8>, anyhow::Error> {
        match self {
            Self::Parquet(columns) => Ok(columns.encode()?),
            Self::JsonLines(lines) => Ok(lines),
        }
    }
}

/// `--out`, as one shard sees it.
pub(super) struct Output {
    store: Arc<dyn ObjectStore>,
    folder: Path,
    shown: String,
    format: Format,
    shard: Shard,
    /// The shard's files that are there.
    parts: Vec<Path>,
    failed: Vec<Path>,
    /// The numbers of the next ones.
    next: [u32; 2],
}

impl Output {
    /// Finds what is there.
    ///
    /// # Errors
    /// If the place cannot be listed, or holds the parts of another number of shards: the same picture could be in both.
    pub(super) async fn open(out: &str, stores: &Stores, shard: Shard) -> Result<Self, anyhow::Error> {
        let shown = out.trim_end_matches('/').to_owned();
        let format = [Format::Parquet, Format::JsonLines].into_iter().find(|format| shown.ends_with(format.ending()));
        let format = format.context("--out ends in .parquet or .jsonl: that says what its part files are")?;
        let (store, folder): (Arc<dyn ObjectStore>, _) = match Place::parse(&shown).map_err(anyhow::Error::msg)? {
            Place::Remote { bucket, path } => {
                (stores.bucket(&bucket).map_err(|error| failed(format!("cannot open {bucket}"), &error))?, path)
            }
            Place::Local(folder) => {
                std::fs::create_dir_all(&folder).with_context(|| format!("cannot make the folder {shown}"))?;
                let store = LocalFileSystem::new_with_prefix(&folder)
                    .map_err(|error| failed(format!("cannot open {shown}"), &error))?;
                (Arc::new(store.with_fsync(true)), Path::default())
            }
        };
        let mut output =
            Self { store, folder, shown, format, shard, parts: Vec::new(), failed: Vec::new(), next: [0; 2] };
        let listed = output.store.list(Some(&output.folder));
        let mut listed = listed.map_err(|error| failed(format!("cannot list {}", output.shown), &error));
        let (mut parts, mut failed) = (Vec::new(), Vec::new());
        while let Some(file) = listed.try_next().await? {
            let Some(name) = file.location.filename().and_then(Name::parse) else { continue };
            let Name { rows, shard: Shard { index, count }, number, format } = name;
            anyhow::ensure!(
                count == shard.count && format == output.format,
                "{} has files of {count} shards in {}; this run has {} in {}: go on with the same, or take another --out",
                output.shown,
                format.ending(),
                shard.count,
                output.format.ending(),
            );
            if index == shard.index {
                let files = if rows == Rows::Done { &mut parts } else { &mut failed };
                files.push((number, file.location));
            }
        }
        drop(listed);
        for (files, (number, paths)) in
            [parts, failed].into_iter().zip(output.next.iter_mut().zip([&mut output.parts, &mut output.failed]))
        {
            *number = files.iter().map(|&(number, _)| number + 1).max().unwrap_or(0);
            paths.extend(files.into_iter().map(|(_, path)| path));
        }
        Ok(output)
    }

    /// The final rows that are there.
    ///
    /// # Errors
    /// If a part cannot be read: it is named.
    pub(super) async fn known(
        &self,
        mut each: impl FnMut(Known) -> Result<(), anyhow::Error>,
    ) -> Result<(), anyhow::Error> {
        let read = async |path: &Path| {
            let bytes = async { self.store.get(path).await?.bytes().await }.await;
            let bytes = bytes.map_err(|error| failed(format!("cannot read {path} of {}", self.shown), &error))?;
            anyhow::Ok((path.clone(), bytes))
        };
        let mut files = futures_util::stream::iter(&self.parts).map(read).buffered(AT_ONCE);
        while let Some((path, bytes)) = files.try_next().await? {
            let format = self.format;
            let rows = tokio::task::spawn_blocking(move || rows(format, bytes)).await?;
            for row in rows.with_context(|| format!("{path} of {} is no part of a result", self.shown))? {
                each(row)?;
            }
        }
        Ok(())
    }

    /// Removes the errors of earlier runs that this one tries again.
    ///
    /// # Errors
    /// If the store does.
    pub(super) async fn remove_failed(&mut self) -> Result<(), anyhow::Error> {
        for path in self.failed.drain(..) {
            let removed = self.store.delete(&path).await;
            // Deleted, and the answer was lost.
            if !matches!(removed, Ok(()) | Err(Error::NotFound { .. })) {
                removed.map_err(|error| failed(format!("cannot remove {path} of {}", self.shown), &error))?;
            }
        }
        Ok(())
    }

    pub(super) fn part(&self) -> Part {
        match self.format {
            Format::Parquet => Part::Parquet(Columns::new()),
            Format::JsonLines => Part::JsonLines(Vec::new()),
        }
    }

    /// Writes a part file: all of it or nothing, and never over another. Whoever writes a shard's next file has seen all
    /// before it, so two runs of one shard cannot both add a picture: the later one stops here.
    ///
    /// # Errors
    /// If the store does, or another run has written a file of this name.
    pub(super) async fn write(&mut self, rows: Rows, part: Part) -> Result<String, anyhow::Error> {
        let bytes = Bytes::from(tokio::task::spawn_blocking(move || part.encode()).await??);
        let next = &mut self.next[usize::from(rows == Rows::Failed)];
        let name = Name { rows, shard: self.shard, number: *next, format: self.format }.text();
        *next += 1;
        let path = self.folder.clone().join(name.as_str());
        let written = self.store.put_opts(&path, PutPayload::from(bytes.clone()), PutMode::Create.into()).await;
        match written {
            // Ours, when the answer to it was lost and it was sent again.
            Err(Error::AlreadyExists { .. }) if self.holds(&path, &bytes).await => {}
            Err(Error::AlreadyExists { .. }) => {
                anyhow::bail!("{name} is in {} already: another run writes the same shard; this one stops", self.shown)
            }
            written => {
                written.map_err(|error| failed(format!("cannot write {name} of {}", self.shown), &error))?;
            }
        }
        Ok(name)
    }

    async fn holds(&self, path: &Path, bytes: &Bytes) -> bool {
        let found = async { self.store.get(path).await?.bytes().await }.await;
        found.is_ok_and(|found| found == bytes)
    }
}

fn rows(format: Format, file: Bytes) -> Result<Vec<Known>, anyhow::Error> {
    let mut rows = Vec::new();
    match format {
        Format::Parquet => columns::known(file, |row| rows.push(row))?,
        Format::JsonLines => {
            for line in file.split(|&byte| byte == b'\n').filter(|line| !line.is_empty()) {
                rows.push(Known::of(&serde_json::from_slice::<Value>(line)?));
            }
        }
    }
    Ok(rows)
}
