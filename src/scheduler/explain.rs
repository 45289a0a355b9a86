//! The explanation of a scored image, computed from the runs that scored it; no further run is needed.

use tokio::time::{Instant, timeout_at};

use super::{Scheduler, Scored, Upload};
use crate::{
    error::Error,
    explain::{
        Attribution, Caption, Terms,
        overlay::{self, Subject},
    },
};

impl Scored {
    /// The logit `a * mean + b` split into contributions of positions in the regions.
    ///
    /// # Errors
    /// `inference_failed` when the graph's outputs do not fit its last layer.
    pub fn attribution(&self, a: f64, b: f64) -> Result<Attribution, Error> {
        let terms = self.regions.iter().map(|region| {
            let (output, linear) = (&region.output, &region.output.linear);
            let (weight, values, indices) = (&linear.weight, &output.topk_values, &output.topk_indices);
            Terms { bounds: region.bounds, bias: linear.bias, weight, values, indices }
        });
        Attribution::new(terms, a, b).map_err(|error| {
            tracing::error!(%error, "the model's outputs cannot be explained");
            Error::inference_failed()
        })
    }
}

impl Scheduler {
    /// The attribution drawn on the picture, as PNG. The picture is decoded again, at a limited size, queued like any
    /// other decode.
    ///
    /// # Errors
    /// `deadline_exceeded`, `inference_failed`.
    pub async fn overlay(
        &self,
        upload: Upload,
        scored: &Scored,
        attribution: Attribution,
        caption: Caption,
        deadline: Instant,
    ) -> Result<Vec<u8>, Error> {
        let header = scored.image.header;
        let drawn = self.decoders.view(scored, upload, overlay::LONGEST, deadline, move |view| {
            let subject = Subject { view, header: &header, attribution: &attribution, caption: &caption };
            overlay::draw(&subject).map_err(|error| {
                tracing::error!(%error, "the overlay cannot be written");
                Error::inference_failed()
            })
        });
        timeout_at(deadline, drawn).await.unwrap_or_else(|_| Err(Error::deadline_exceeded()))
    }
}
