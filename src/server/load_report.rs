//! How busy this replica is, told to load balancers that ask for it: an ORCA load report (Open Request Cost Aggregation,
//! `xds.data.orca.v3.OrcaLoadReport`) in a header of the answer. Envoy's client-side weighted round robin reads it. A caller
//! asks with `endpoint-load-metrics-format: text` or `json`, as with Triton; anything else is no reason to refuse an image.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use axum::{
    extract::{Request, State},
    http::{HeaderMap, HeaderName, HeaderValue},
    middleware::Next,
    response::Response,
};
use serde_json::json;
use tokio::time::Instant;

use super::AppState;
use crate::metrics::Outcome;

const FORMAT: HeaderName = HeaderName::from_static("endpoint-load-metrics-format");
const REPORT: HeaderName = HeaderName::from_static("endpoint-load-metrics");

/// The shortest time that a rate is taken over.
const WINDOW: Duration = Duration::from_secs(1);

/// What the layer works on.
#[derive(Debug, Clone)]
pub(super) struct Reporter {
    state: Arc<AppState>,
    scored: Arc<Mutex<Sample>>,
}

/// Images scored up to a moment, and how many a second there were up to then.
#[derive(Debug)]
struct Sample {
    at: Instant,
    images: u64,
    per_second: f64,
}

impl Sample {
    fn new(images: u64) -> Self {
        Self { at: Instant::now(), images, per_second: 0.0 }
    }

    /// Images a second over the last window that is complete: 0 during the first.
    fn per_second(&mut self, images: u64) -> f64 {
        let elapsed = self.at.elapsed();
        if elapsed >= WINDOW {
            #[expect(clippy::cast_precision_loss, reason = "a count of images is far below 2^53")]
            let per_second = images.saturating_sub(self.images) as f64 / elapsed.as_secs_f64();
            *self = Self { at: Instant::now(), images, per_second };
        }
        self.per_second
    }
}

#[derive(Debug, Clone, Copy)]
enum Format {
    Text,
    Json,
}

impl Format {
    fn asked_for(headers: &HeaderMap) -> Option<Self> {
        match headers.get(FORMAT)?.as_bytes() {
            b"text" => Some(Self::Text),
            b"json" => Some(Self::Json),
            _ => None,
        }
    }
}

impl Reporter {
    pub(super) fn new(state: Arc<AppState>) -> Self {
        let scored = Sample::new(state.metrics.images(Outcome::Scored));
        Self { state, scored: Arc::new(Mutex::new(scored)) }
    }

    /// The report as a request finds the replica: images in flight for each session, the request's own among them, the
    /// rate, and how many images wait. None before there are sessions.
    fn report(&self, format: Format) -> Option<HeaderValue> {
        let metrics = &self.state.metrics;
        let sessions = u32::try_from(metrics.sessions.get()).ok().filter(|sessions| *sessions > 0)?;
        let in_flight = u32::try_from(metrics.images_in_flight.get()).ok()?.saturating_add(1);
        let utilization = f64::from(in_flight) / f64::from(sessions);
        let scored = metrics.images(Outcome::Scored);
        let per_second = self.scored.lock().unwrap_or_else(PoisonError::into_inner).per_second(scored);
        let queue = metrics.queue_images.get();
        let text = match format {
            Format::Text => format!(
                "TEXT application_utilization={utilization:.3},rps_fractional={per_second:.3},named_metrics.queue_images={queue}"
            ),
            Format::Json => {
                let named = json!({"queue_images": queue});
                let report = json!({"application_utilization": utilization, "rps_fractional": per_second, "named_metrics": named});
                format!("JSON {report}")
            }
        };
        HeaderValue::try_from(text).ok()
    }
}

pub(super) async fn layer(State(reporter): State<Reporter>, request: Request, next: Next) -> Response {
    let report = Format::asked_for(request.headers()).and_then(|format| reporter.report(format));
    let mut response = next.run(request).await;
    if let Some(report) = report {
        response.headers_mut().insert(REPORT, report);
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_rate_is_that_of_the_last_complete_window() {
        let mut sample = Sample::new(100);
        assert_eq!(sample.per_second(150), 0.0);
        tokio::time::advance(Duration::from_secs(2)).await;
        assert_eq!(sample.per_second(200), 50.0);
        tokio::time::advance(WINDOW / 2).await;
        assert_eq!(sample.per_second(300), 50.0);
        tokio::time::advance(WINDOW / 2).await;
        assert_eq!(sample.per_second(300), 100.0);
    }
}
