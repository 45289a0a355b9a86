//! The keys file on disk: read at start, read again when it changes.

use std::{
    fs,
    io::Read,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, ensure};
use tokio::{
    sync::{Notify, watch},
    task::spawn_blocking,
    time::{MissedTickBehavior, interval},
};
use tokio_util::task::AbortOnDropHandle;

use super::Keys;

/// Polling interval. Polled, because inotify does not follow the symlinks that Kubernetes swaps under a mounted secret,
/// and does not work on network file systems.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// The largest file that is read, in bytes: some ten thousand keys.
const LARGEST: u64 = 1 << 20;

/// Changes with every write, rename or chmod: device, inode, ctime, size. Not the mtime, which `cp -p` and `touch` can
/// set to any value.
type Fingerprint = (u64, u64, i64, i64, u64);

/// The keys of a file, which is watched until this is dropped.
#[derive(Debug)]
pub struct KeysFile {
    keys: watch::Receiver<Arc<Keys>>,
    reload: Arc<Notify>,
    _following: AbortOnDropHandle<()>,
}

impl KeysFile {
    /// Reads the file and watches it, on the current runtime. A change takes effect about two seconds after the last
    /// write; an invalid file leaves the keys unchanged.
    ///
    /// # Errors
    /// One line for the operator: the file cannot be read, is world-writable, or is malformed.
    pub fn open(path: &Path) -> Result<Self, anyhow::Error> {
        // Taken before reading: a write in between is then seen as a change.
        let read = fingerprint(path);
        let keys = load(path, &Keys::default())?;
        warn_if_empty(&keys);
        let (sender, keys) = watch::channel(Arc::new(keys));
        let reload = Arc::<Notify>::default();
        let following = tokio::spawn(follow(path.to_path_buf(), read, sender, Arc::clone(&reload)));
        Ok(Self { keys, reload, _following: AbortOnDropHandle::new(following) })
    }

    /// Reloads the file now, changed or not.
    pub fn reload(&self) {
        self.reload.notify_one();
    }

    /// The keys that are valid now.
    pub fn now(&self) -> Arc<Keys> {
        Arc::clone(&self.keys.borrow())
    }
}

async fn follow(path: PathBuf, mut read: Option<Fingerprint>, keys: watch::Sender<Arc<Keys>>, reload: Arc<Notify>) {
    let mut ticks = interval(LOOK_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut seen = read;
    loop {
        let asked = tokio::select! {
            _ = ticks.tick() => false,
            () = reload.notified() => true,
        };
        let (file, before) = (path.clone(), Arc::clone(&keys.borrow()));
        // On a blocking thread: file systems can hang.
        let looked = spawn_blocking(move || {
            let now = fingerprint(&file);
            // A file that changed since the last poll may be half written.
            let settled = now == seen;
            (now, (asked || settled && now != read).then(|| load(&file, &before)))
        });
        let Ok((now, loaded)) = looked.await else { continue };
        seen = now;
        let Some(loaded) = loaded else { continue };
        read = now;
        match loaded {
            Ok(loaded) => {
                let loaded = Arc::new(loaded);
                // Before the log line: the new keys are in effect when it appears.
                keys.send_replace(Arc::clone(&loaded));
                tracing::info!(keys = loaded.len(), "the API keys were read again");
                warn_if_empty(&loaded);
            }
            // Logged once per change: the next attempt is at the next change.
            Err(error) => tracing::error!(error = format!("{error:#}"), "the API keys stay as they were"),
        }
    }
}

fn warn_if_empty(keys: &Keys) {
    if keys.is_empty() {
        tracing::warn!("the API keys file holds no key: every request is refused");
    }
}

fn fingerprint(path: &Path) -> Option<Fingerprint> {
    let about = fs::metadata(path).ok()?;
    Some((about.dev(), about.ino(), about.ctime(), about.ctime_nsec(), about.size()))
}

fn load(path: &Path, before: &Keys) -> Result<Keys, anyhow::Error> {
    let context = || format!("the API keys file {} cannot be used", path.display());
    read(path).and_then(|text| Ok(Keys::parse(&text, before)?)).with_context(context)
}

fn read(path: &Path) -> Result<String, anyhow::Error> {
    // Checked before opening: opening a pipe would wait for its writer.
    ensure!(fs::metadata(path)?.is_file(), "not a regular file");
    let file = fs::File::open(path)?;
    let about = file.metadata()?;
    // Whoever can write the file can grant access. Reading it is harmless: it holds hashes of random keys.
    let mode = about.mode() & 0o7777;
    ensure!(mode & 0o002 == 0, "its mode is {mode:04o}: everyone may write it (chmod o-w)");
    let mut text = String::new();
    file.take(LARGEST + 1).read_to_string(&mut text)?;
    ensure!(text.len() as u64 <= LARGEST, "it is larger than {LARGEST} bytes");
    Ok(text)
}
