//! Decoding of damaged files: the longest that one takes, and whether any takes much more than its header's estimate.

use std::{collections::BTreeMap, thread, time::Duration};

use comfy_table::Table;
use serde::Serialize;

use super::{
    measure::{Random, Rounds, thread_seconds},
    table,
};
use crate::image::{
    self, Cancel, Format, Limits, Preprocessing, Scratch,
    corpus::{self, Sample},
};

/// The files that are damaged: small ones with the pixels of a photo, and ones of few bytes that claim many pixels.
const PHOTO: (usize, usize) = (320, 240);
const CLAIMED: usize = 1_000_000;

/// Most changes in one file.
const CHANGES: u64 = 8;

/// What a decode may take beside a multiple of its estimate, in seconds: page faults and the like.
const GRACE: f64 = 0.05;

#[derive(Debug, Clone, Default, Serialize)]
pub(super) struct Row {
    /// Damaged files that still begin as this format.
    files: u64,
    /// Of these, refused on their header alone at the default limits.
    refused: u64,
    /// Of these, decoded to the end.
    decoded: u64,
    /// The longest decode, in milliseconds of CPU, and what its header had estimated.
    worst_ms: f64,
    worst_estimate_ms: f64,
    /// The most that a decode took beyond 50 ms, in times of its estimate, and the number of that file.
    most_over_estimate: f64,
    most_over_file: u64,
}

/// Rows by format.
pub(super) type Report = BTreeMap<&'static str, Row>;

/// Damages `count` files and decodes them, a thread a CPU.
pub(super) fn measure(count: u64, rounds: &Rounds) -> Result<Report, anyhow::Error> {
    rounds.progress.set_message("mutants: making the files");
    let samples = [corpus::photos(PHOTO.0, PHOTO.1)?, corpus::bombs(CLAIMED)?, corpus::avifs()].concat();
    rounds.progress.set_message(format!("mutants: {count} files"));
    let threads = crate::model::cpus() as u64;
    let parts: Vec<_> = thread::scope(|scope| {
        let workers: Vec<_> = (0..threads)
            .map(|worker| {
                let samples = &samples;
                scope.spawn(move || part(samples, (worker..count).step_by(threads as usize)))
            })
            .collect();
        workers.into_iter().map(|worker| worker.join()).collect()
    });
    let mut report = Report::new();
    for part in parts {
        let part = part.map_err(|_| anyhow::anyhow!("a decoder panicked; its message stands above"))?;
        for (format, row) in part {
            report.entry(format).or_default().add(&row);
        }
    }
    Ok(report)
}

/// The same numbers give the same files.
fn part(samples: &[Sample], numbers: impl Iterator<Item = u64>) -> Report {
    let mut report = Report::new();
    let mut scratch = Scratch::default();
    for number in numbers {
        let mut random = Random::seeded(number);
        let sample = &samples[(random.bits() % samples.len() as u64) as usize];
        let bytes = damaged(&sample.bytes, &mut random);
        let Some(format) = image::sniff(&bytes).map(Format::as_str) else { continue };
        let row = report.entry(format).or_default();
        row.files += 1;
        let Ok(header) = image::inspect(&bytes, &Limits::default()) else {
            row.refused += 1;
            continue;
        };
        let once = || image::prepare(&bytes, &header, Preprocessing::Resize, &mut scratch, &Cancel::default());
        let (seconds, decoded) = thread_seconds(once);
        row.decoded += u64::from(decoded.is_ok());
        row.take(number, seconds, header.cost);
    }
    report
}

/// Some bytes changed, repeated, cut out or cut off.
fn damaged(bytes: &[u8], random: &mut Random) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    let mut below = |most: usize| (random.bits() % most.max(1) as u64) as usize;
    for _ in 0..=below(CHANGES as usize) {
        // Headers stand in front and decide the most.
        let reach = if below(2) == 0 { bytes.len() } else { bytes.len().min(256) };
        let at = below(reach);
        let end = (at + 1 + below(64)).min(bytes.len());
        match below(6) {
            0 => bytes.truncate(at.max(16)),
            1 => drop(bytes.drain(at..end)),
            2 => {
                let repeated = bytes[at..end].to_vec();
                bytes.splice(at..at, repeated);
            }
            3 => bytes[at..end].fill(below(256) as u8),
            4 => bytes[at] ^= 1 << below(8),
            _ => bytes[at] = below(256) as u8,
        }
        if bytes.is_empty() {
            break;
        }
    }
    bytes
}

impl Row {
    fn take(&mut self, number: u64, seconds: f64, estimate: Duration) {
        let estimate = estimate.as_secs_f64();
        self.worsen((seconds * 1e3, estimate * 1e3), ((seconds - GRACE) / estimate, number));
    }

    fn worsen(&mut self, (ms, estimate_ms): (f64, f64), (over_estimate, file): (f64, u64)) {
        if ms > self.worst_ms {
            (self.worst_ms, self.worst_estimate_ms) = (ms, estimate_ms);
        }
        if over_estimate > self.most_over_estimate {
            (self.most_over_estimate, self.most_over_file) = (over_estimate, file);
        }
    }

    fn add(&mut self, other: &Self) {
        self.files += other.files;
        self.refused += other.refused;
        self.decoded += other.decoded;
        self.worsen((other.worst_ms, other.worst_estimate_ms), (other.most_over_estimate, other.most_over_file));
    }
}

/// For the terminal.
pub(super) fn tabulate(report: &Report) -> Table {
    let header =
        ["format", "files", "refused", "decoded", "longest, ms", "its estimate, ms", "most over estimate", "by file"];
    let mut table = table(header.map(String::from));
    for (format, row) in report {
        table.add_row([
            (*format).to_owned(),
            row.files.to_string(),
            row.refused.to_string(),
            row.decoded.to_string(),
            format!("{:.1}", row.worst_ms),
            format!("{:.1}", row.worst_estimate_ms),
            format!("{:.2}", row.most_over_estimate),
            row.most_over_file.to_string(),
        ]);
    }
    table
}
