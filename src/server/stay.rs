//! The outcome of each image: counted exactly once, whichever way its request ends.

use super::RequestContext;
use crate::{
    error::Error,
    metrics::{Metrics, Outcome},
};

/// Counts an image's outcome, whichever way its future ends.
pub(crate) async fn counted<T>(
    metrics: &Metrics,
    context: &RequestContext,
    way: impl Future<Output = Result<T, Error>>,
) -> Result<T, Error> {
    let mut stay = Stay::new(metrics, context);
    let ended = way.await;
    stay.end(ended.as_ref().map_or_else(|error| Outcome::of(error.code), |_| Outcome::Scored));
    ended
}

/// An image's stay. Dropped without an end, its client has left.
pub(crate) struct Stay<'a> {
    metrics: &'a Metrics,
    context: &'a RequestContext,
    outcome: Option<Outcome>,
}

impl<'a> Stay<'a> {
    pub(crate) fn new(metrics: &'a Metrics, context: &'a RequestContext) -> Self {
        Self { metrics, context, outcome: Some(Outcome::Cancelled) }
    }

    pub(crate) fn end(&mut self, outcome: Outcome) {
        self.outcome = Some(outcome);
    }

    /// Counts nothing: the images are counted one by one.
    pub(crate) fn forget(mut self) {
        self.outcome = None;
    }
}

impl Drop for Stay<'_> {
    fn drop(&mut self) {
        if let Some(outcome) = self.outcome {
            self.metrics.image(outcome, self.context.key.get().map(|key| key.name()));
        }
    }
}
