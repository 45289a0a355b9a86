//! The decision log: one JSON line for each scored image, so that an appeal months later can be answered: which bytes,
//! which model, which settings, which score. docs/audit.md has the schema.
//!
//! A request never waits for the disk: lines go through a bounded channel to a thread of their own; what finds the
//! channel full, or the disk, is dropped and counted.

mod file;

use std::{
    io::{self, Write},
    path::Path,
    sync::{
        Mutex, PoisonError,
        mpsc::{self, Receiver, RecvTimeoutError, SyncSender, TrySendError},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant, SystemTime},
};

use prometheus::IntCounterVec;
use serde::Serialize;

use self::file::RotatingFile;
use crate::{declared::Declared, timings::Timings};

/// Lines that wait for the disk; at 1 KiB a line, at most 8 MiB.
const WAITING: usize = 8192;

/// How often what was written is synced to the disk.
const SYNC: Duration = Duration::from_secs(1);

/// How long the end of the process waits for the last lines.
const LAST_LINES: Duration = Duration::from_secs(2);

/// One scored image. Fields keep their names and meaning: programs read them.
#[derive(Debug, Clone, Serialize)]
pub struct Decision {
    /// Version of this schema.
    pub schema: u32,
    /// Always `scored`.
    pub event: &'static str,
    /// When the image was judged: UTC, RFC 3339, milliseconds.
    pub time: String,
    /// The request's id, and its trace's where the caller sent one.
    pub request_id: String,
    /// The trace's id (W3C Trace Context), if the request has one.
    pub trace_id: Option<String>,
    /// The caller's own id for the image.
    pub external_id: Option<String>,
    /// The name of the API key, if keys are configured.
    pub key: Option<String>,
    /// The client, as the access line names it: the key's name, else the address.
    pub client: String,
    /// The image: hash of the file, format, size. Null where the caller sent pixels.
    pub image: Option<Image>,
    /// Verdict, score and what they rest on.
    pub judgement: Judged,
    /// What the file says of itself. Null where that is switched off, or the caller sent pixels.
    pub declared: Option<Declared>,
    /// Digest of the model's weights.
    pub model_digest: String,
    /// Time in milliseconds in each stage.
    pub timings_ms: Stages,
}

/// The image of a decision.
#[derive(Debug, Clone, Serialize)]
pub struct Image {
    /// SHA-256 of the file, hexadecimal.
    pub sha256: String,
    /// `jpeg`, `png`, ...
    pub format: &'static str,
    /// Stored width in pixels.
    pub width: u32,
    /// Stored height in pixels.
    pub height: u32,
    /// Size of the file in bytes.
    pub bytes: usize,
}

/// The judgement of a decision.
#[derive(Debug, Clone, Serialize)]
pub struct Judged {
    /// `real`, `fake` or `uncertain`.
    pub verdict: &'static str,
    /// Probability that the image is generated.
    pub score: Option<f64>,
    /// Log-odds that the image is generated.
    pub logit: Option<f32>,
    /// The network's own output, before calibration.
    pub logit_raw: f32,
    /// Regions that were judged.
    pub regions: usize,
    /// Class of file whose evidence decided, if the model has evidence.
    pub evidence_class: Option<&'static str>,
    /// Accepted shares of false alarms and of misses, where the evidence decided.
    pub operating_point: Option<[f64; 2]>,
    /// Score above which the image counted as fake, where a threshold decided.
    pub threshold: Option<f64>,
    /// What weakens the score.
    pub warnings: Vec<&'static str>,
}

/// Time in each stage.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Stages {
    /// Decoding and resizing.
    pub decode: f64,
    /// Waiting, for a decoder and for a session.
    pub queue: f64,
    /// The run of its batch.
    pub inference: f64,
}

impl From<&Timings> for Stages {
    fn from(timings: &Timings) -> Self {
        let ms = |time: Duration| (time.as_secs_f64() * 1e6).round() / 1e3;
        Self { decode: ms(timings.decode), queue: ms(timings.queue), inference: ms(timings.inference) }
    }
}

/// The present moment as [`Decision::time`] has it.
pub fn now() -> String {
    humantime::format_rfc3339_millis(SystemTime::now()).to_string()
}

/// The handle of the log; dropping it writes the last lines.
#[derive(Debug)]
pub struct Audit {
    lines: Option<SyncSender<Vec<u8>>>,
    outcomes: IntCounterVec,
    writer: Option<JoinHandle<()>>,
    /// Of the writer's end; a lock makes the handle `Sync`.
    ended: Mutex<Receiver<()>>,
}

impl Audit {
    /// Opens `path` for appending, `-` for standard output. A file of more than `max_bytes` is renamed to `path.1`, and the
    /// older ones up to `path.keep`. `outcomes` counts lines by `outcome`: `written` or `dropped`.
    ///
    /// # Errors
    /// If the file cannot be opened.
    pub fn open(path: &Path, max_bytes: u64, keep: usize, outcomes: IntCounterVec) -> io::Result<Self> {
        let sink =
            if path == Path::new("-") { Sink::Output } else { Sink::File(RotatingFile::open(path, max_bytes, keep)?) };
        let (lines, inbox) = mpsc::sync_channel(WAITING);
        let (ending, ended) = mpsc::channel();
        let counted = outcomes.clone();
        let writer = thread::Builder::new().name("audit".into()).spawn(move || {
            write_all(sink, &inbox, &counted);
            let _ = ending.send(());
        })?;
        Ok(Self { lines: Some(lines), outcomes, writer: Some(writer), ended: Mutex::new(ended) })
    }

    /// Hands a decision to the writer; never blocks.
    pub fn record(&self, decision: &Decision) {
        let Ok(mut line) = serde_json::to_vec(decision) else { return };
        line.push(b'\n');
        if let Some(lines) = &self.lines
            && let Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) = lines.try_send(line)
        {
            self.outcomes.with_label_values(&["dropped"]).inc();
        }
    }
}

impl Drop for Audit {
    fn drop(&mut self) {
        drop(self.lines.take());
        // A disk that hangs must not keep the process.
        let ended = self.ended.get_mut().unwrap_or_else(PoisonError::into_inner);
        if ended.recv_timeout(LAST_LINES).is_ok()
            && let Some(writer) = self.writer.take()
        {
            let _ = writer.join();
        }
    }
}

enum Sink {
    Output,
    File(RotatingFile),
}

impl Sink {
    fn write(&mut self, line: &[u8]) -> io::Result<()> {
        match self {
            // One call a line: lines of the access log do not come between.
            Self::Output => io::stdout().lock().write_all(line),
            Self::File(file) => file.write(line),
        }
    }

    fn sync(&mut self) -> io::Result<()> {
        match self {
            Self::Output => io::stdout().lock().flush(),
            Self::File(file) => file.sync(),
        }
    }
}

fn write_all(mut sink: Sink, inbox: &Receiver<Vec<u8>>, outcomes: &IntCounterVec) {
    let mut failing = false;
    let mut unsynced: Option<Instant> = None;
    loop {
        let wait = unsynced.map_or(Duration::from_secs(3600), |since| SYNC.saturating_sub(since.elapsed()));
        let ended = match inbox.recv_timeout(wait) {
            Ok(line) => {
                let written = sink.write(&line);
                outcomes.with_label_values(&[if written.is_ok() { "written" } else { "dropped" }]).inc();
                match (&written, failing) {
                    // Once each way: the log must not fill because the audit log cannot be written.
                    (Err(error), false) => {
                        tracing::error!(%error, "the audit log cannot be written; lines are dropped")
                    }
                    (Ok(()), true) => tracing::info!("the audit log is written again"),
                    _ => {}
                }
                failing = written.is_err();
                unsynced.get_or_insert_with(Instant::now);
                false
            }
            Err(RecvTimeoutError::Timeout) => false,
            Err(RecvTimeoutError::Disconnected) => true,
        };
        if ended || unsynced.is_some_and(|since| since.elapsed() >= SYNC) {
            // A failed sync shows at the next write.
            let _ = sink.sync();
            unsynced = None;
        }
        if ended {
            return;
        }
    }
}
