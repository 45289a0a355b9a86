//! One image through the scheduler to its judgement: what every transport calls.

use std::time::Duration;

use super::{AppState, RequestContext};
use crate::{
    audit,
    declared::Declared,
    error::{Code, Error},
    image::{ImageFacts, Pixels},
    judge::{Asked, Judge, Judgement, RegionLogit},
    model::Output,
    scheduler::{Job, RegionPlan, Scheduler, Scored, ScoredRegion, Upload},
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

/// What the judge needs of the regions that were run.
fn logits(regions: &[ScoredRegion]) -> Vec<RegionLogit> {
    let logit = |region: &ScoredRegion| {
        let &ScoredRegion { bounds, no_signal, ref output } = region;
        RegionLogit { bounds, logit: output.logit, no_signal }
    };
    regions.iter().map(logit).collect()
}

/// Scores one encoded image, as many of its regions as the judge wants, and judges it.
///
/// # Errors
/// `bad_request` where the model cannot do what is asked for; what is wrong with the image; `deadline_exceeded`;
/// `inference_failed`.
pub(crate) async fn judge_image(
    judge: &Judge,
    scheduler: &Scheduler,
    job: Job<Upload>,
    asked: &Asked,
) -> Result<(Judgement, Scored), Error> {
    judge.check(asked).map_err(|detail| Error::new(Code::BadRequest, detail))?;
    let wanted = |image: &ImageFacts, seen: &[ScoredRegion]| judge.wanted(asked, &image.header, &logits(seen));
    let scored = scheduler.score(job, RegionPlan { most: judge.most(asked), wanted: &wanted }).await?;
    let judgement = judge.judge(asked, Some(&scored.image.header), &logits(&scored.regions));
    Ok((judgement, scored))
}

impl AppState {
    /// Judges one encoded image.
    ///
    /// # Errors
    /// As [`judge_image`].
    pub(crate) async fn judge(
        &self,
        scheduler: &Scheduler,
        context: &RequestContext,
        job: Job<Upload>,
        asked: &Asked,
        external_id: Option<&str>,
    ) -> Result<Judged<Scored>, Error> {
        let (judgement, scored) = judge_image(&self.judge, scheduler, job, asked).await?;
        let total = self.count(context, &judgement, &scored.timings);
        for claim in scored.declared.iter().flat_map(|declared| &declared.claims) {
            self.metrics.declared(claim.source.as_str(), claim.kind.as_str());
        }
        self.record(context, external_id, Some((&scored.image, scored.declared.as_ref())), &judgement, &scored.timings);
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
        let no_signal = self.manifest.preprocessing.no_signal(&job.payload);
        let scored = scheduler.score_pixels(job).await?;
        let judgement = self.judge.judge_pixels(scored.payload.logit, no_signal);
        let total = self.count(context, &judgement, &scored.timings);
        self.record(context, None, None, &judgement, &scored.timings);
        Ok(Judged { judgement, scored, total })
    }

    /// Writes a judgement into the decision log, if there is one.
    fn record(
        &self,
        context: &RequestContext,
        external_id: Option<&str>,
        file: Option<(&ImageFacts, Option<&Declared>)>,
        judgement: &Judgement,
        timings: &Timings,
    ) {
        let Some(audit) = &self.audit else { return };
        let point = judgement.evidence.and_then(|found| found.operating_point);
        audit.record(&audit::Decision {
            schema: 1,
            event: "scored",
            time: audit::now(),
            request_id: context.id.to_string(),
            trace_id: context.trace_id(),
            external_id: external_id.map(str::to_owned),
            key: context.key.get().map(|key| key.name().to_owned()),
            client: context.client().to_string(),
            image: file.map(|(image, _)| audit::Image {
                sha256: crate::hex(&image.sha256),
                format: image.header.format.as_str(),
                width: image.header.width,
                height: image.header.height,
                bytes: image.bytes,
            }),
            judgement: audit::Judged {
                verdict: judgement.verdict.as_str(),
                score: judgement.score,
                logit: judgement.logit,
                logit_raw: judgement.logit_raw,
                regions: judgement.regions.len(),
                evidence_class: judgement.evidence.map(|found| found.class.as_str()),
                operating_point: point.map(|point| [point.false_alarms, point.misses]),
                threshold: judgement.threshold,
                warnings: judgement.warnings.iter().map(|warning| warning.as_str()).collect(),
            },
            declared: file.and_then(|(_, declared)| declared.cloned()),
            model_digest: self.manifest.digest.clone(),
            timings_ms: timings.into(),
        });
    }

    /// Counts a judgement; gives the time from the request's head to now.
    fn count(&self, context: &RequestContext, judgement: &Judgement, timings: &Timings) -> Duration {
        context.judged(timings);
        let warnings = judgement.warnings.iter().map(|warning| warning.as_str());
        self.metrics.judged(judgement.verdict.as_str(), judgement.score, judgement.regions.len(), warnings);
        if let Some(found) = &judgement.evidence {
            self.metrics.evidence(found.class.as_str(), judgement.verdict.as_str());
        }
        let total = context.started.elapsed();
        self.metrics.answered(timings, total);
        total
    }
}
