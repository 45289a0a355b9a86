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

/// How often the file is looked at. Polled and not subscribed to: inotify does not see through the symlinks
/// that Kubernetes swaps under a mounted secret, nor onto network file systems.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// The largest file that is read, in bytes: some ten thousand keys.
const LARGEST: u64 = 1 << 20;

/// What every write, rename or chmod changes: device, inode, time of change, size. Not the time of
/// modification, which `cp -p` and `touch` set at will.
type Fingerprint = (u64, u64, i64, i64, u64);

/// The keys of a file that is followed until this is dropped.
#[derive(Debug)]
pub struct KeysFile {
    keys: watch::Receiver<Arc<Keys>>,
    reload: Arc<Notify>,
    _following: AbortOnDropHandle<()>,
}

impl KeysFile {
    /// Reads the file and follows it, on the runtime this is called on. A change is taken over some two
    /// seconds after the last write; a file that cannot be used leaves the keys as they were.
    ///
    /// # Errors
    /// One line for the operator: the file cannot be read, is open to everyone's writing, or is malformed.
    pub fn open(path: &Path) -> Result<Self, anyhow::Error> {
        // Before the reading: a write in between shows as a change.
        let read = fingerprint(path);
        let keys = load(path, &Keys::default())?;
        warn_if_empty(&keys);
        let (sender, keys) = watch::channel(Arc::new(keys));
        let reload = Arc::<Notify>::default();
        let following = tokio::spawn(follow(path.to_path_buf(), read, sender, Arc::clone(&reload)));
        Ok(Self { keys, reload, _following: AbortOnDropHandle::new(following) })
    }

    /// Has the file read again now, changed or not.
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
        // File systems can hang; the threads that answer requests must not.
        let looked = spawn_blocking(move || {
            let now = fingerprint(&file);
            // What changed since the last look may be half written.
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
                // Before it is said: who reads the line and sends a request finds the new keys.
                keys.send_replace(Arc::clone(&loaded));
                tracing::info!(keys = loaded.len(), "the API keys were read again");
                warn_if_empty(&loaded);
            }
            // Once a change: it is tried again when the file changes again.
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
    // Asked before opening: opening a pipe would wait for its writer.
    ensure!(fs::metadata(path)?.is_file(), "not a regular file");
    let file = fs::File::open(path)?;
    let about = file.metadata()?;
    // Who can write the file can let himself in. Reading it gives nothing away: it holds hashes of random keys.
    let mode = about.mode() & 0o7777;
    ensure!(mode & 0o002 == 0, "its mode is {mode:04o}: everyone may write it (chmod o-w)");
    let mut text = String::new();
    file.take(LARGEST + 1).read_to_string(&mut text)?;
    ensure!(text.len() as u64 <= LARGEST, "it is larger than {LARGEST} bytes");
    Ok(text)
}
