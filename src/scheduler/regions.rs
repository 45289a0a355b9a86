//! One image's regions: decoded together, run as rows of ordinary batches. The plan asks for a first number of regions,
//! then for more while their logits leave the verdict uncertain.

use std::sync::Arc;

use futures_util::future::try_join_all;

use super::{Job, Scheduler, line::Turn};
use crate::{
    error::Error,
    image::{Header, ImageFacts, Preprocessing, Region, Regions},
    metrics::Stage,
    model::Output,
};

/// Which model runs an image, and what of the image is decoded for it.
#[derive(Debug, Clone, Copy)]
pub struct Assigned {
    /// The model's number.
    pub model: usize,
    /// How the image becomes its input.
    pub preprocessing: Preprocessing,
    /// Limit: this many regions are decoded.
    pub most: Regions,
}

/// Which regions of an image are run, and on which model.
#[derive(Clone, Copy)]
pub struct RegionPlan<'a> {
    /// The model of an image, or why there is none, for the caller.
    pub assign: &'a (dyn Fn(&Header) -> Result<Assigned, Error> + Sync),
    /// The total number wanted, given those already run. It must depend on nothing else, so that the same bytes give
    /// the same answer under any load.
    pub wanted: &'a (dyn Fn(&ImageFacts, &[ScoredRegion]) -> usize + Sync),
}

/// A decoded region.
#[derive(Debug)]
pub(super) struct Input {
    pub(super) region: Region,
    /// Whether its NPR residue is zero everywhere.
    pub(super) no_signal: bool,
}

/// A scored region.
#[derive(Debug, Clone)]
pub struct ScoredRegion {
    /// The part of the decoded picture, `[x0, y0, x1, y1]` in pixels, ends exclusive.
    pub bounds: [u32; 4],
    /// Whether its NPR residue is zero everywhere.
    pub no_signal: bool,
    /// The network's output.
    pub output: Output,
}

impl Scheduler {
    /// Runs the regions that the plan wants, those of one step concurrently.
    pub(super) async fn run_regions(
        &self,
        plan: RegionPlan<'_>,
        model: usize,
        facts: &ImageFacts,
        job: Job<Vec<Input>>,
        decoded: Turn,
    ) -> Result<Job<Vec<ScoredRegion>>, Error> {
        let Job { payload: mut regions, deadline, permit, mut timings } = job;
        let mut decoded = Some(decoded);
        let mut done = Vec::new();
        loop {
            let wanted = (plan.wanted)(facts, &done).max(1).saturating_sub(done.len()).min(regions.len());
            if wanted == 0 {
                break;
            }
            let run_before = timings.inference;
            let runs = regions.drain(..wanted).map(|Input { region: Region { pixels, bounds }, no_signal }| {
                let job = Job { payload: pixels, deadline, permit: Arc::clone(&permit), timings };
                // The first run takes over the CPU of the decode.
                let run = self.line.run(model, job, decoded.take());
                async move { run.await.map(|job| (bounds, no_signal, job)) }
            });
            for (bounds, no_signal, row) in try_join_all(runs.collect::<Vec<_>>()).await? {
                // Rows of one step wait and run concurrently: the longest time counts.
                timings.queue = timings.queue.max(row.timings.queue);
                timings.inference = timings.inference.max(run_before + row.timings.inference);
                timings.inference_began = timings.inference_began.or(row.timings.inference_began);
                done.push(ScoredRegion { bounds, no_signal, output: row.payload });
            }
        }
        self.metrics.stage(Stage::Queue, timings.queue);
        self.metrics.stage(Stage::Inference, timings.inference);
        Ok(Job { payload: done, deadline, permit, timings })
    }
}
