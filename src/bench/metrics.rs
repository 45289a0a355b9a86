//! Cost of the metrics: every update caused by one image, alone in its batch and request.

use std::{path::Path, time::Duration};

use serde::Serialize;

use super::measure::{Rounds, Spread, thread_seconds};
use crate::{
    app,
    config::JudgeConfig,
    judge::Judgement,
    metrics::{Metrics, Outcome, Release, Stage},
    model::{Manifest, find_folder},
};

/// Images per round: enough for the clock's resolution.
const IMAGES: u32 = 10_000;

#[derive(Debug, Serialize)]
pub(super) struct Report {
    /// CPU nanoseconds per image.
    pub(super) ns: Spread,
}

pub(super) fn measure(model: Option<&Path>, rounds: &Rounds) -> Result<Report, anyhow::Error> {
    let manifest = Manifest::read(&find_folder(model)?)?;
    let models = app::models([manifest.into()], &JudgeConfig::default(), &[])?;
    let metrics = Metrics::new(&app::identity(&models), app::series())?;
    let judgement = models.first().judge.judge_pixels(1.0, false);
    let samples = rounds.interleave("metrics", &[()], |()| {
        let (seconds, ()) = thread_seconds(|| (0..IMAGES).for_each(|_| count(&metrics, &judgement)));
        Ok(seconds / f64::from(IMAGES))
    })?;
    Ok(Report { ns: samples[0].spread(1e9) })
}

fn count(metrics: &Metrics, judgement: &Judgement) {
    let took = Duration::from_millis(14);
    for gauge in [&metrics.images_in_flight, &metrics.admitted_bytes, &metrics.decode_bytes] {
        gauge.add(1);
        gauge.sub(1);
    }
    // Into the queue, out of it, and the caller's guard.
    (0..3).for_each(|waiting| metrics.queue_images.set(waiting));
    for stage in [Stage::Read, Stage::Decode, Stage::Queue, Stage::Inference, Stage::Total] {
        metrics.stage(stage, took);
    }
    metrics.batch(0, Release::Idle, 1, took);
    let warnings = judgement.warnings.iter().map(|warning| warning.as_str());
    metrics.judged(0, judgement.verdict.as_str(), judgement.score, judgement.regions.len(), warnings);
    if let Some(found) = &judgement.evidence {
        metrics.evidence(found.class.as_str(), judgement.verdict.as_str());
    }
    metrics.image(Outcome::Scored, Some("key"));
    metrics.request("/v1/score", "POST", 200, took);
}
