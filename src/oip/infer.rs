//! An inference request of the Open Inference Protocol, from its parts to its tensors, for HTTP and gRPC. Each of its
//! images is scheduled like any other image.

use std::sync::Arc;

use futures_util::future::try_join_all;
use tokio::time::Instant;

use super::protocol::{Image, Judged, Request, Tensor, Wanted};
use crate::{
    error::Error,
    judge::Asked,
    scheduler::{Job, Permit, Scheduler, Share, Upload},
    served::Choice,
    server::{AppState, RequestContext, counted},
};

/// An admitted request.
pub(super) struct Inference<'a> {
    scheduler: &'a Scheduler,
    /// Number of the model that the caller named.
    model: usize,
    request: Request,
    /// An in-flight permit for each image.
    permits: Vec<Permit>,
    /// The body's bytes.
    held: Arc<Share>,
    deadline: Instant,
}

/// The requested outputs.
pub(super) struct Answer {
    /// The caller's id.
    pub(super) id: String,
    /// In the order of the request.
    pub(super) outputs: Vec<(Wanted, Tensor)>,
}

impl<'a> Inference<'a> {
    /// Acquires an in-flight permit for each further image after the `first`: all or none is admitted.
    ///
    /// # Errors
    /// `overloaded`.
    pub(super) fn new(
        context: &RequestContext,
        scheduler: &'a Scheduler,
        model: usize,
        request: Request,
        first: Permit,
        held: Share,
        deadline: Instant,
    ) -> Result<Self, Error> {
        let deadline = request.timeout.map_or(deadline, |timeout| deadline.min(context.started + timeout));
        let more = (1..request.images.len()).map(|_| context.admit_image(scheduler));
        let permits = std::iter::once(Ok(first)).chain(more).collect::<Result<_, _>>()?;
        Ok(Self { scheduler, model, request, permits, held: Arc::new(held), deadline })
    }
}

/// Judges the images and builds the requested outputs.
///
/// # Errors
/// The first error of any image; the other images are then withdrawn.
pub(super) async fn judge(
    state: &AppState,
    context: &RequestContext,
    inference: Inference<'_>,
) -> Result<Answer, Error> {
    let Inference { scheduler, model, request, permits, held, deadline } = inference;
    let several = request.images.len() > 1;
    let images = request.images.into_iter().zip(permits).enumerate().map(|(index, (image, permit))| {
        let held = Arc::clone(&held);
        async move {
            let job = Job::new(image, deadline, Arc::new(permit));
            let one = judge_one(state, scheduler, model, context, job, held);
            counted(&state.metrics, context, one).await.map_err(|mut error| {
                if several {
                    error.detail = format!("image {index}: {}", error.detail);
                }
                error
            })
        }
    });
    let (judged, _permits): (Vec<_>, Vec<_>) = try_join_all(images).await?.into_iter().unzip();
    let manifest = &state.models.all()[model].manifest;
    let outputs = request.outputs.into_iter();
    let outputs = outputs.map(|wanted| (wanted, wanted.output.tensor(manifest, &judged))).collect();
    Ok(Answer { id: request.id, outputs })
}

async fn judge_one(
    state: &AppState,
    scheduler: &Scheduler,
    model: usize,
    context: &RequestContext,
    job: Job<Image>,
    held: Arc<Share>,
) -> Result<(Judged, Arc<Permit>), Error> {
    let Job { payload: image, deadline, permit, .. } = job;
    Ok(match image {
        Image::File(bytes) => {
            let job = Job::new(Upload { bytes, held }, deadline, permit);
            let choice = Choice::Named(model);
            let judged = state.judge(scheduler, context, choice, job, &Asked::default(), None).await?;
            // The centre always exists: the scheduler runs at least one region.
            let centre = judged.scored.regions.into_iter().next().ok_or_else(Error::inference_failed)?;
            let declared = judged.scored.declared;
            (Judged { judgement: judged.judgement, declared, output: centre.output }, judged.scored.permit)
        }
        Image::Pixels(pixels) => {
            let job = Job::new(pixels, deadline, permit);
            let judged = state.judge_pixels(scheduler, context, model, job).await?;
            let Job { payload: output, permit, .. } = judged.scored;
            (Judged { judgement: judged.judgement, declared: None, output }, permit)
        }
    })
}
