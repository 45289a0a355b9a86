//! One image through the scheduler to its judgement: what every transport calls.

use std::time::Duration;

use super::{AppState, RequestContext};
use crate::{
    error::Error,
    image::{self, Pixels},
    judge::{self, Judgement, Warning},
    model::Output,
    scheduler::{Job, Scheduler, Scored, Upload},
    timings::Timings,
};

/// A judged image.
pub(crate) struct Judged<T> {
    pub(crate) judgement: Judgement,
    /// What the scheduler gave back.
    pub(crate) scored: T,
    /// From the request's head to the judgement.
    pub(crate) total: Duration,
}

impl AppState {
    /// Judges one encoded image. `threshold` replaces the manifest's.
    ///
    /// # Errors
    /// What is wrong with the image; `deadline_exceeded`; `inference_failed`.
    pub(crate) async fn judge(
        &self,
        scheduler: &Scheduler,
        context: &RequestContext,
        job: Job<Upload>,
        threshold: Option<f64>,
    ) -> Result<Judged<Scored>, Error> {
        let scored = scheduler.score(job).await?;
        let warnings = judge::warnings(&self.manifest.rules, &scored.image);
        let (judgement, total) = self.judgement(context, &scored.output, warnings, threshold, &scored.timings);
        Ok(Judged { judgement, scored, total })
    }

    /// Judges pixels as they are. How the picture was stored, and how large it was, is not known then.
    ///
    /// # Errors
    /// `deadline_exceeded`; `inference_failed`.
    pub(crate) async fn judge_pixels(
        &self,
        scheduler: &Scheduler,
        context: &RequestContext,
        job: Job<Pixels>,
    ) -> Result<Judged<Job<Output>>, Error> {
        let warnings = if image::no_signal(&job.payload) { vec![Warning::NoSignal] } else { Vec::new() };
        let scored = scheduler.score_pixels(job).await?;
        let (judgement, total) = self.judgement(context, &scored.payload, warnings, None, &scored.timings);
        Ok(Judged { judgement, scored, total })
    }

    fn judgement(
        &self,
        context: &RequestContext,
        output: &Output,
        warnings: Vec<Warning>,
        threshold: Option<f64>,
        timings: &Timings,
    ) -> (Judgement, Duration) {
        let judgement = judge::judge(&self.manifest.rules, output.logit, warnings, threshold);
        context.judged(timings);
        let warnings = judgement.warnings.iter().map(|warning| warning.as_str());
        self.metrics.judged(judgement.verdict.as_str(), judgement.score, warnings);
        let total = context.started.elapsed();
        self.metrics.answered(timings, total);
        (judgement, total)
    }
}
