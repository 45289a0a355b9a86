//! One image's regions: decoded together, run as rows of ordinary batches. The plan asks for a first number of regions,
//! then for more while their logits leave the verdict uncertain. Where several models judge an image together, each has
//! regions of its own from the one decode, and all wait in the line at once.

use std::sync::Arc;

use futures_util::future::{try_join, try_join_all};

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

/// The models that run an image: one, or several whose logits are combined.
#[derive(Debug, Clone)]
pub struct Assignment {
    /// The one that the image is shown for.
    pub first: Assigned,
    /// Those that run it too.
    pub others: Vec<Assigned>,
}

impl From<Assigned> for Assignment {
    fn from(first: Assigned) -> Self {
        Self { first, others: Vec::new() }
    }
}

impl Assignment {
    /// The models' numbers.
    pub fn numbers(&self) -> impl Iterator<Item = usize> {
        std::iter::once(&self.first).chain(&self.others).map(|assigned| assigned.model)
    }
}

/// Which regions of an image are run, and on which models.
#[derive(Clone, Copy)]
pub struct RegionPlan<'a> {
    /// The models of an image, or why there is none, for the caller.
    pub assign: &'a (dyn Fn(&Header) -> Result<Assignment, Error> + Sync),
    /// The total number that the model of this number wants, given those that it has run. It must depend on nothing else, so
    /// that the same bytes give the same answer under any load.
    pub wanted: &'a (dyn Fn(usize, &ImageFacts, &[ScoredRegion]) -> usize + Sync),
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
    /// Runs an image on its models. Its `others` are the regions for those beside the first.
    pub(super) async fn run_models(
        &self,
        plan: RegionPlan<'_>,
        assignment: &Assignment,
        facts: &ImageFacts,
        job: Job<Vec<Input>>,
        others: Vec<Vec<Input>>,
        decoded: Turn,
    ) -> Result<(Job<Vec<ScoredRegion>>, Vec<Vec<ScoredRegion>>), Error> {
        let Job { deadline, ref permit, timings, .. } = job;
        let others = assignment.others.iter().zip(others).map(|(assigned, regions)| {
            let job = Job { payload: regions, deadline, permit: Arc::clone(permit), timings };
            self.run_regions(plan, assigned.model, facts, job, None)
        });
        let others: Vec<_> = others.collect();
        let first = self.run_regions(plan, assignment.first.model, facts, job, Some(decoded));
        let (mut job, others) = if others.is_empty() {
            (first.await?, Vec::new())
        } else {
            // The first is polled first: it takes over the CPU of the decode.
            try_join(first, try_join_all(others)).await?
        };
        // The longest time counts, as for the regions of one step.
        for other in &others {
            job.timings.queue = job.timings.queue.max(other.timings.queue);
            job.timings.inference = job.timings.inference.max(other.timings.inference);
            job.timings.inference_began = job.timings.inference_began.min(other.timings.inference_began);
        }
        self.metrics.stage(Stage::Queue, job.timings.queue);
        self.metrics.stage(Stage::Inference, job.timings.inference);
        Ok((job, others.into_iter().map(|other| other.payload).collect()))
    }

    /// Runs the regions that the plan wants of a model, those of one step concurrently.
    async fn run_regions(
        &self,
        plan: RegionPlan<'_>,
        model: usize,
        facts: &ImageFacts,
        job: Job<Vec<Input>>,
        mut decoded: Option<Turn>,
    ) -> Result<Job<Vec<ScoredRegion>>, Error> {
        let Job { payload: mut regions, deadline, permit, mut timings } = job;
        let mut done = Vec::new();
        loop {
            let wanted = (plan.wanted)(model, facts, &done).max(1).saturating_sub(done.len()).min(regions.len());
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
        Ok(Job { payload: done, deadline, permit, timings })
    }
}
