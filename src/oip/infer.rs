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
    server::{AppState, RequestContext, counted},
};

/// An admitted request.
pub(super) struct Inference<'a> {
    scheduler: &'a Scheduler,
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
        request: Request,
        first: Permit,
        held: Share,
        deadline: Instant,
    ) -> Result<Self, Error> {
        let deadline = request.timeout.map_or(deadline, |timeout| deadline.min(context.started + timeout));
        let more = (1..request.images.len()).map(|_| context.admit_image(scheduler));
        let permits = std::iter::once(Ok(first)).chain(more).collect::<Result<_, _>>()?;
        Ok(Self { scheduler, request, permits, held: Arc::new(held), deadline })
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
    let Inference { scheduler, request, permits, held, deadline } = inference;
    let several = request.images.len() > 1;
    let images = request.images.into_iter().zip(permits).enumerate().map(|(index, (image, permit))| {
        let held = Arc::clone(&held);
        async move {
            let one = judge_one(state, scheduler, context, image, held, permit, deadline);
            counted(&state.metrics, context, one).await.map_err(|mut error| {
                if several {
                    error.detail = format!("image {index}: {}", error.detail);
                }
                error
            })
        }
    });
    let (judged, _permits): (Vec<_>, Vec<_>) = try_join_all(images).await?.into_iter().unzip();
    let outputs = request.outputs.into_iter();
    let outputs = outputs.map(|wanted| (wanted, wanted.output.tensor(&state.manifest, &judged))).collect();
    Ok(Answer { id: request.id, outputs })
}

async fn judge_one(
    state: &AppState,
    scheduler: &Scheduler,
    context: &RequestContext,
    image: Image,
    held: Arc<Share>,
    permit: Permit,
    deadline: Instant,
) -> Result<(Judged, Arc<Permit>), Error> {
    let permit = Arc::new(permit);
    Ok(match image {
        Image::File(bytes) => {
            let job = Job::new(Upload { bytes, held }, deadline, permit);
            let judged = state.judge(scheduler, context, job, &Asked::default(), None).await?;
            // The centre always exists: the scheduler runs at least one region.
            let centre = judged.scored.regions.into_iter().next().ok_or_else(Error::inference_failed)?;
            let declared = judged.scored.declared;
            (Judged { judgement: judged.judgement, declared, output: centre.output }, judged.scored.permit)
        }
        Image::Pixels(pixels) => {
            let job = Job::new(pixels, deadline, permit);
            let judged = state.judge_pixels(scheduler, context, job).await?;
            let Job { payload: output, permit, .. } = judged.scored;
            (Judged { judgement: judged.judgement, declared: None, output }, permit)
        }
    })
}
