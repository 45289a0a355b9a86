//! Decode time and memory, compared with the estimates from the header.

use std::{
    fs,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use anyhow::Context;
use comfy_table::Table;
use serde::Serialize;

use super::{
    measure::{Rounds, Samples, Spread, thread_seconds},
    table,
};
use crate::image::{
    self, Cancel, Header, ImageError, Limits, Preprocessing, Scratch,
    corpus::{self, Sample},
};

/// Size of the files with photographic content.
const PHOTO: (usize, usize) = (1536, 1024);

/// The variant with which the others' times are compared.
const REFERENCE: &str = "jpeg_420_q90";

/// When a decode is cancelled, as fractions of its time.
const STOPS: [f64; 5] = [0.05, 0.25, 0.5, 0.75, 0.95];

const LIMITS: Limits = Limits { max_pixels: u64::MAX, min_side: 0, max_cost: Duration::MAX, heif: true };

#[derive(Debug, Serialize)]
pub(super) struct Report {
    rows: Vec<Row>,
}

#[derive(Debug, Serialize)]
struct Row {
    name: String,
    width: u32,
    height: u32,
    bytes: usize,
    /// Estimated CPU milliseconds.
    estimate_ms: f64,
    /// Milliseconds of CPU.
    ms: Spread,
    /// Ratio of time to estimate, relative to the reference's ratio.
    over_estimate: f64,
    /// Longest wall-clock milliseconds from cancellation to the return of the decode.
    stop_ms: f64,
    /// Peak memory in MB, estimated and measured.
    peak_mb: f64,
    resident_mb: f64,
}

/// `claimed`: pixel count in the headers of the small hostile files. `folder`: where to write the files, if anywhere.
pub(super) fn measure(claimed: u64, folder: Option<&Path>, rounds: &Rounds) -> Result<Report, anyhow::Error> {
    rounds.progress.set_message("cost: making the files");
    let avifs = [corpus::avifs(), vec![corpus::avif_bomb()], corpus::heics()].concat();
    let samples = [corpus::photos(PHOTO.0, PHOTO.1)?, corpus::bombs(claimed as usize)?, avifs].concat();
    if let Some(folder) = folder {
        fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        for sample in &samples {
            let file = folder.join(&sample.name);
            fs::write(&file, &sample.bytes).with_context(|| format!("cannot write {}", file.display()))?;
        }
    }
    let rows: Result<_, anyhow::Error> =
        samples.iter().map(|sample| row(sample, rounds).with_context(|| sample.name.clone())).collect();
    let mut rows: Vec<Row> = rows?;
    let reference = rows.iter().find(|row| row.name == REFERENCE).map_or(1.0, |row| row.over_estimate);
    rows.iter_mut().for_each(|row| row.over_estimate /= reference);
    Ok(Report { rows })
}

fn row(sample: &Sample, rounds: &Rounds) -> Result<Row, anyhow::Error> {
    let header = image::inspect(&sample.bytes, &LIMITS)?;
    let once = || decode(sample, &header, Preprocessing::Resize, &Cancel::default());
    let resident_mb = resident(|| drop(once()))?;
    let large = header.cost > Duration::from_millis(500);
    let rounds = Rounds { count: if large { 1 } else { rounds.count }, progress: rounds.progress.clone() };
    let samples = rounds.interleave(&sample.name, &[()], |()| Ok(thread_seconds(once).0))?;
    let ms = samples.first().map(|samples: &Samples| samples.spread(1e3)).context("no rounds")?;
    let estimate_ms = header.cost.as_secs_f64() * 1e3;
    let mut stop_ms = 0.0_f64;
    for part in STOPS {
        stop_ms = stop_ms.max(stop(sample, &header, Duration::from_secs_f64(ms.median * part / 1e3)) * 1e3);
    }
    Ok(Row {
        name: sample.name.clone(),
        width: header.width,
        height: header.height,
        bytes: sample.bytes.len(),
        estimate_ms,
        ms,
        over_estimate: ms.median / estimate_ms,
        stop_ms,
        peak_mb: header.peak_bytes as f64 / 1e6,
        resident_mb,
    })
}

/// Files that claim more than they contain end in an error, after all the work.
fn decode(sample: &Sample, header: &Header, how: Preprocessing, cancel: &Cancel) -> Result<image::Pixels, ImageError> {
    image::prepare(&sample.bytes, header, how, &mut Scratch::default(), cancel)
}

/// Seconds from cancellation to the return of the decode, with its memory freed; 0 if it finished before.
fn stop(sample: &Sample, header: &Header, after: Duration) -> f64 {
    let cancel = Cancel::default();
    thread::scope(|scope| {
        let decoder = scope.spawn(|| (decode(sample, header, Preprocessing::Resize, &cancel), Instant::now()));
        thread::park_timeout(after);
        let told = Instant::now();
        cancel.cancel();
        match decoder.join() {
            Ok((Err(ImageError::Cancelled), done)) => done.saturating_duration_since(told).as_secs_f64(),
            _ => 0.0,
        }
    })
}

/// Peak growth of the process in megabytes during `work`.
fn resident(work: impl FnOnce()) -> Result<f64, anyhow::Error> {
    // 5 resets the peak (proc(5)).
    fs::write("/proc/self/clear_refs", "5").context("cannot reset the peak of the memory")?;
    let kilobytes = |name: &str| -> Result<f64, anyhow::Error> {
        let status = fs::read_to_string("/proc/self/status")?;
        let line = status.lines().find_map(|line| line.strip_prefix(name)).context("no such line")?;
        Ok(line.trim_matches([':', ' ', '\t', 'k', 'B']).parse()?)
    };
    let before = kilobytes("VmRSS")?;
    work();
    Ok((kilobytes("VmHWM")? - before).max(0.0) / 1e3)
}

/// For the terminal.
pub(super) fn tabulate(report: &Report) -> Table {
    let header = ["file", "kB", "estimate, ms", "ms", "over estimate", "stop, ms", "peak, MB", "resident, MB"];
    let mut table = table(header.map(String::from));
    for row in &report.rows {
        table.add_row([
            row.name.clone(),
            (row.bytes / 1000).to_string(),
            format!("{:.1}", row.estimate_ms),
            row.ms.to_string(),
            format!("{:.2}", row.over_estimate),
            format!("{:.1}", row.stop_ms),
            format!("{:.1}", row.peak_mb),
            format!("{:.1}", row.resident_mb),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use indicatif::ProgressBar;

    use super::*;
    use crate::image::Regions;

    /// Each variant against the reference, round by round, so that the machine's own speed cancels out.
    #[test]
    fn estimates_hold_within_a_factor_of_three() {
        let made = [corpus::photos(768, 512), corpus::bombs(500_000), Ok(corpus::avifs()), Ok(corpus::heics())];
        let resized = made.map(|made| made.expect("files")).concat();
        // Of JPEGs the rows above and below the region are skipped.
        let tall = corpus::photos(512, 2048).expect("files").into_iter();
        let cropped = tall.filter(|sample| image::sniff(&sample.bytes) == Some(image::Format::Jpeg));
        let resized = resized.into_iter().map(|sample| (sample, Preprocessing::Resize));
        let cases: Vec<_> = resized.chain(cropped.map(|sample| (sample, Preprocessing::Crop))).collect();
        let header = |(sample, _): &(Sample, _)| image::inspect(&sample.bytes, &LIMITS).expect("a readable header");
        let headers: Vec<_> = cases.iter().map(header).collect();
        let at = cases.iter().position(|(sample, _)| sample.name == REFERENCE).expect("a sample");
        let cost = |how, header| image::cost_of_regions(header, how, Regions::One).as_secs_f64();
        let mut wrong = Vec::new();
        for (case @ (sample, how), header) in cases.iter().zip(&headers) {
            let pair = [(&cases[at], &headers[at]), (case, header)];
            let estimated = cost(*how, header) / cost(Preprocessing::Resize, &headers[at]);
            let ratio = |count| {
                let rounds = Rounds { count, progress: ProgressBar::hidden() };
                let taken = rounds.interleave("", &pair, |((sample, how), header)| {
                    Ok(thread_seconds(|| decode(sample, header, *how, &Cancel::default())).0)
                });
                let taken = taken.expect("no errors");
                taken[1].over(&taken[0]).median / estimated
            };
            let holds = |ratio: f64| (1.0 / 3.0..=3.0).contains(&ratio);
            let mut found = ratio(5);
            if !holds(found) {
                // Once more and for longer: other tests and programs share the caches.
                found = ratio(25);
            }
            if !holds(found) {
                wrong.push(format!("{}, {how}: {found:.2} times its estimate", sample.name));
            }
        }
        assert!(wrong.is_empty(), "{wrong:#?}");
    }
}
