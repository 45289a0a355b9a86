//! The explanation of an image that went all the way: from the run that scored it, no second one.

use tokio::time::{Instant, timeout_at};

use super::{Scheduler, Scored, Upload};
use crate::{
    error::Error,
    explain::{
        Attribution,
        overlay::{self, Subject},
    },
    image,
};

impl Scored {
    /// The logit split into places.
    ///
    /// # Errors
    /// `inference_failed` when the graph's outputs do not fit its last layer.
    pub fn attribution(&self) -> Result<Attribution, Error> {
        let (output, linear) = (&self.output, &self.output.linear);
        Attribution::new(linear.bias, &linear.weight, &output.topk_values, &output.topk_indices).map_err(|error| {
            tracing::error!(%error, "the model's outputs cannot be explained");
            Error::inference_failed()
        })
    }
}

impl Scheduler {
    /// The attribution drawn on the picture, as PNG. The picture is decoded once more, at a limited size, in the
    /// line as any image.
    ///
    /// # Errors
    /// `deadline_exceeded`, `inference_failed`.
    pub async fn overlay(&self, upload: Upload, scored: &Scored, deadline: Instant) -> Result<Vec<u8>, Error> {
        let attribution = scored.attribution()?;
        let header = scored.image.header;
        let preprocessing = self.decoders.preprocessing();
        let judged = image::source_box(preprocessing, header.width, header.height, image::WHOLE_INPUT);
        let drawn = self.decoders.view(&scored.permit, upload, header, overlay::LONGEST, deadline, move |view| {
            let orientation = header.exif_orientation;
            overlay::draw(&Subject { view, judged, orientation, attribution: &attribution }).map_err(|error| {
                tracing::error!(%error, "the overlay cannot be written");
                Error::inference_failed()
            })
        });
        timeout_at(deadline, drawn).await.unwrap_or_else(|_| Err(Error::deadline_exceeded()))
    }
}
