//! The pictures of `--from`, one after another: a folder's, a list's, a prefix's.

use std::{
    collections::HashSet,
    fs::File,
    io::{self, BufRead, BufReader, Read},
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::Context;
use futures_util::{
    StreamExt, TryStreamExt,
    stream::{self, BoxStream},
};
use object_store::{ObjectMeta, ObjectStore};
use tokio::{sync::mpsc, task::spawn_blocking};

use super::{
    place::{Place, Stores, failed},
    shard::{Shard, key},
};
use crate::commands::files::{files_below, is_housekeeping};

/// The longest line of a list, in bytes: S3's keys have 1024.
const LONGEST_LINE: u64 = 64 << 10;

/// Names that are found ahead of those that are read.
const AHEAD: usize = 1024;

/// A picture, before it is read.
#[derive(Debug)]
pub(super) struct Item {
    /// As its row has it.
    pub(super) path: String,
    /// Why not, where the path makes no sense.
    pub(super) place: Result<Place, String>,
    /// Its version, where a listing says it.
    pub(super) etag: Option<String>,
}

/// What `--from` names.
#[derive(Clone)]
pub(super) enum Source {
    Folder(PathBuf),
    List(PathBuf),
    Prefix { bucket: String, prefix: object_store::path::Path, store: Arc<dyn ObjectStore> },
}

impl Source {
    /// # Errors
    /// If there is no such folder or list, or the bucket's settings are wrong.
    pub(super) fn find(from: &str, stores: &Stores) -> Result<Self, anyhow::Error> {
        match Place::parse(from).map_err(anyhow::Error::msg)? {
            Place::Remote { bucket, path: prefix } => {
                let store = stores.bucket(&bucket).map_err(|error| failed(format!("cannot open {bucket}"), &error))?;
                Ok(Self::Prefix { bucket, prefix, store })
            }
            Place::Local(path) if path.is_dir() => Ok(Self::Folder(path)),
            Place::Local(path) => {
                File::open(&path).with_context(|| format!("cannot read {}", path.display()))?;
                Ok(Self::List(path))
            }
        }
    }

    /// The shard's pictures in a fixed order, each once.
    pub(super) fn items(&self, shard: Shard) -> BoxStream<'static, Result<Item, anyhow::Error>> {
        match self.clone() {
            Self::Folder(folder) => from_thread(move |send| {
                let items = files_below(&folder).map(|(path, _)| {
                    let name = path.to_string_lossy().into_owned();
                    Item { path: name, place: Ok(Place::Local(path)), etag: None }
                });
                for item in items.filter(|item| shard.holds(&item.path)) {
                    if !send(item) {
                        break;
                    }
                }
                Ok(())
            }),
            Self::List(list) => from_thread(move |send| {
                let mut seen = HashSet::new();
                for line in lines(&list)? {
                    let path = line?;
                    if shard.holds(&path) && seen.insert(key(&path)) {
                        let place = Place::parse(&path);
                        if !send(Item { path, place, etag: None }) {
                            break;
                        }
                    }
                }
                Ok(())
            }),
            Self::Prefix { bucket, prefix, store } => {
                let shown = format!("{bucket}/{prefix}");
                let wanted = {
                    let prefix = prefix.clone();
                    move |found: &ObjectMeta| {
                        let mut below = found.location.prefix_match(&prefix).into_iter().flatten();
                        !below.any(|part| is_housekeeping(part.as_ref()))
                    }
                };
                let item = move |found: ObjectMeta| {
                    let path = format!("{bucket}/{}", found.location);
                    let place = Place::Remote { bucket: bucket.clone(), path: found.location };
                    shard.holds(&path).then_some(Item { path, place: Ok(place), etag: found.e_tag })
                };
                store
                    .list(Some(&prefix))
                    .try_filter_map(move |found| {
                        let item = if wanted(&found) { item(found) } else { None };
                        async { Ok(item) }
                    })
                    .map_err(move |error| failed(format!("cannot list {shown}"), &error))
                    .boxed()
            }
        }
    }
}

/// What a thread sends, a bounded number ahead; it is told when nobody takes more.
fn from_thread(
    work: impl FnOnce(&dyn Fn(Item) -> bool) -> Result<(), anyhow::Error> + Send + 'static,
) -> BoxStream<'static, Result<Item, anyhow::Error>> {
    let (sender, receiver) = mpsc::channel(AHEAD);
    spawn_blocking(move || {
        if let Err(error) = work(&|item| sender.blocking_send(Ok(item)).is_ok()) {
            let _ = sender.blocking_send(Err(error));
        }
    });
    stream::unfold(receiver, |mut receiver| async { Some((receiver.recv().await?, receiver)) }).boxed()
}

/// The lines of a list that say something.
fn lines(list: &Path) -> Result<impl Iterator<Item = Result<String, anyhow::Error>> + use<>, anyhow::Error> {
    let shown = list.display().to_string();
    let mut reader = BufReader::new(File::open(list).with_context(|| format!("cannot read {shown}"))?);
    let mut next = move || -> io::Result<Option<String>> {
        let mut line = Vec::new();
        (&mut reader).take(LONGEST_LINE).read_until(b'\n', &mut line)?;
        if line.len() as u64 == LONGEST_LINE {
            return Err(io::Error::other(format!("a line is longer than {LONGEST_LINE} bytes")));
        }
        let line = String::from_utf8(line).map_err(|_| io::Error::other("a line is no UTF-8"))?;
        Ok((!line.is_empty()).then_some(line))
    };
    let all = std::iter::from_fn(move || next().transpose());
    let said = all.map(move |line| {
        let line = line.with_context(|| format!("cannot read {shown}"))?;
        Ok(line.trim_end_matches(['\n', '\r']).to_owned())
    });
    Ok(said.filter(|line: &Result<String, anyhow::Error>| !line.as_ref().is_ok_and(String::is_empty)))
}
