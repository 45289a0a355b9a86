//! One image through the scheduler to its judgement: what every transport calls.

use std::time::Duration;

use super::{AppState, RequestContext};
use crate::{
    audit,
    declared::Declared,
    error::Error,
    image::{Header, ImageFacts, Pixels},
    judge::{Asked, Judgement, RegionLogit},
    model::Output,
    scheduler::{Assigned, Assignment, Job, RegionPlan, Scheduler, Scored, ScoredRegion, Upload},
    served::{Choice, Chosen, Models, Served},
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

/// Scores one encoded image on the chosen model, as many of its regions as that one's judge wants, and judges it. Of several
/// that are combined each runs the regions that it would run alone.
///
/// # Errors
/// `bad_request`, `not_explainable` where the model cannot do what is asked for; what is wrong with the image;
/// `deadline_exceeded`; `inference_failed`.
pub(crate) async fn judge_image(
    models: &Models,
    choice: Choice,
    scheduler: &Scheduler,
    job: Job<Upload>,
    asked: &Asked,
) -> Result<(Judgement, Scored), Error> {
    let assign = |header: &Header| {
        let Chosen { served, first, others } = models.choose(choice, header);
        served.check(asked)?;
        let assigned = |&model: &usize| {
            let Served { manifest, judge } = &models.all()[model];
            Assigned { model, preprocessing: manifest.preprocessing, most: judge.most(asked) }
        };
        Ok(Assignment { first: assigned(&first), others: others.iter().map(assigned).collect() })
    };
    let wanted = |model: usize, image: &ImageFacts, seen: &[ScoredRegion]| {
        models.all()[model].judge.wanted(asked, &image.header, &logits(seen))
    };
    let scored = scheduler.score(job, RegionPlan { assign: &assign, wanted: &wanted }).await?;
    let header = &scored.image.header;
    let judge = &models.choose(choice, header).served.judge;
    let regions = logits(&scored.regions);
    let judgement = match &judge.rules().weights {
        None => judge.judge(asked, Some(header), &regions),
        Some(weights) => {
            let others = scored.others.iter().map(|regions| logits(regions));
            let networks: Vec<_> = std::iter::once(regions).chain(others).collect();
            judge.judge_combined(asked, header, weights, &networks)
        }
    };
    Ok((judgement, scored))
}

impl AppState {
    /// Judges one encoded image by the chosen model.
    ///
    /// # Errors
    /// As [`judge_image`].
    pub(crate) async fn judge(
        &self,
        scheduler: &Scheduler,
        context: &RequestContext,
        choice: Choice,
        job: Job<Upload>,
        asked: &Asked,
        external_id: Option<&str>,
    ) -> Result<Judged<Scored>, Error> {
        let (judgement, scored) = judge_image(&self.models, choice, scheduler, job, asked).await?;
        let served = self.models.choose(choice, &scored.image.header).served;
        let total = self.count(context, scored.assigned.numbers(), &judgement, &scored.timings);
        for claim in scored.declared.iter().flat_map(|declared| &declared.claims) {
            self.metrics.declared(claim.source.as_str(), claim.kind.as_str());
        }
        let file = Some((&scored.image, scored.declared.as_ref()));
        self.record(context, served, external_id, file, &judgement, &scored.timings);
        Ok(Judged { judgement, scored, total })
    }

    /// Judges pixels as they are by the model of this number. How the picture was stored, and how large it was, is not known then.
    ///
    /// # Errors
    /// `deadline_exceeded`; `inference_failed`.
    pub(crate) async fn judge_pixels(
        &self,
        scheduler: &Scheduler,
        context: &RequestContext,
        model: usize,
        job: Job<Pixels>,
    ) -> Result<Judged<Job<Output>>, Error> {
        let served = &self.models.all()[model];
        let no_signal = served.manifest.preprocessing.no_signal(&job.payload);
        let scored = scheduler.score_pixels(model, job).await?;
        let judgement = served.judge.judge_pixels(scored.payload.logit, no_signal);
        let total = self.count(context, [model], &judgement, &scored.timings);
        self.record(context, served, None, None, &judgement, &scored.timings);
        Ok(Judged { judgement, scored, total })
    }

    /// Writes a judgement into the decision log, if there is one.
    fn record(
        &self,
        context: &RequestContext,
        served: &Served,
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
            model_digest: served.manifest.digest.clone(),
            timings_ms: timings.into(),
        });
    }

    /// Counts a judgement by the models of these numbers; gives the time from the request's head to now.
    fn count(
        &self,
        context: &RequestContext,
        models: impl IntoIterator<Item = usize>,
        judgement: &Judgement,
        timings: &Timings,
    ) -> Duration {
        context.judged(timings);
        let warnings = judgement.warnings.iter().map(|warning| warning.as_str());
        let mut models = models.into_iter().peekable();
        let model = models.peek().copied().unwrap_or_default();
        self.metrics.judged(model, judgement.verdict.as_str(), judgement.score, judgement.regions.len(), warnings);
        if let Some(found) = &judgement.evidence {
            self.metrics.evidence(found.class.as_str(), judgement.verdict.as_str());
        }
        let total = context.started.elapsed();
        self.metrics.answered(models, timings, total);
        total
    }
}
