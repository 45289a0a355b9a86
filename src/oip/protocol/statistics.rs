//! Triton's statistics extension, from the metrics of all routes. Each image counts as one inference, also in a request
//! with several.

use std::time::{self, UNIX_EPOCH};

use serde::Serialize;

use crate::{
    metrics::{Metrics, Outcome},
    served::Models,
};

/// The statistics of a model, since the start.
#[derive(Debug, Serialize)]
pub struct ModelStatistics {
    /// The model.
    pub name: String,
    /// Its version.
    pub version: String,
    /// When the last batch ran, in milliseconds since 1970; 0: never.
    pub last_inference: u64,
    /// Images judged.
    pub inference_count: u64,
    /// Batches run.
    pub execution_count: u64,
    /// Where images spent their time.
    pub inference_stats: InferStatistics,
    /// Batches by size.
    pub batch_stats: Vec<BatchStatistics>,
}

/// A count and a total duration.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Duration {
    /// How often.
    pub count: u64,
    /// Total nanoseconds.
    pub ns: u64,
}

/// Where images spent their time.
#[derive(Debug, Serialize)]
pub struct InferStatistics {
    /// Images judged, from the request's head to the answer.
    pub success: Duration,
    /// Images not judged, by any model: what is refused was not given to one. Their time is not kept.
    pub fail: Duration,
    /// Waiting, for a decoder and for a session.
    pub queue: Duration,
    /// Decoding and resizing.
    pub compute_input: Duration,
    /// The run of the image's batch.
    pub compute_infer: Duration,
    /// Outputs are not processed: always 0 ns.
    pub compute_output: Duration,
    /// There is no cache.
    pub cache_hit: Duration,
    /// There is no cache.
    pub cache_miss: Duration,
}

/// Batches of one size.
#[derive(Debug, Serialize)]
pub struct BatchStatistics {
    /// Images in each.
    pub batch_size: u64,
    /// Images are decoded before batching: always 0 ns.
    pub compute_input: Duration,
    /// The runs.
    pub compute_infer: Duration,
    /// Always 0 ns.
    pub compute_output: Duration,
}

impl ModelStatistics {
    /// The statistics now of the model of this number.
    pub fn of(model: usize, models: &Models, metrics: &Metrics) -> Self {
        let manifest = &models.all()[model].manifest;
        let runs = metrics.runs(model);
        let count = runs.images;
        let stage = |spent: time::Duration| Duration { count, ns: nanos(spent) };
        let failed = Outcome::ALL.into_iter().filter(|&outcome| outcome != Outcome::Scored);
        let batch_stats = runs.by_size.iter().map(|(&size, &(count, spent))| BatchStatistics {
            batch_size: size as u64,
            compute_input: Duration { count, ns: 0 },
            compute_infer: Duration { count, ns: nanos(spent) },
            compute_output: Duration { count, ns: 0 },
        });
        let last = runs.last.and_then(|last| last.duration_since(UNIX_EPOCH).ok());
        Self {
            name: manifest.name.clone(),
            version: manifest.version.clone(),
            last_inference: last.map_or(0, |last| u64::try_from(last.as_millis()).unwrap_or(u64::MAX)),
            inference_count: count,
            execution_count: runs.by_size.values().map(|(count, _)| count).sum(),
            inference_stats: InferStatistics {
                success: stage(runs.total),
                fail: Duration { count: failed.map(|outcome| metrics.images(outcome)).sum(), ns: 0 },
                queue: stage(runs.stages.queue),
                compute_input: stage(runs.stages.decode),
                compute_infer: stage(runs.stages.inference),
                compute_output: Duration { count, ns: 0 },
                cache_hit: Duration::default(),
                cache_miss: Duration::default(),
            },
            batch_stats: batch_stats.collect(),
        }
    }
}

fn nanos(time: time::Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
