//! The instant after which a caller no longer wants its answer.

use std::time::Duration;

use axum::http::HeaderMap;
use tokio::time::Instant;

use crate::error::{Code, Error};

const HEADER: &str = "x-request-timeout-ms";

/// The request's deadline: what the caller asks for, but no more than `most`.
///
/// # Errors
/// `bad_request` when the header is no whole number of milliseconds above 0.
pub(crate) fn of(headers: &HeaderMap, started: Instant, most: Duration) -> Result<Instant, Error> {
    let wished = headers.get(HEADER).map(|value| {
        let milliseconds = value.to_str().ok().and_then(|text| text.parse::<u64>().ok()).filter(|&ms| ms > 0);
        milliseconds.map(Duration::from_millis).ok_or_else(|| {
            Error::new(Code::BadRequest, "X-Request-Timeout-Ms is a whole number of milliseconds above 0")
        })
    });
    Ok(started + wished.transpose()?.map_or(most, |wish| wish.min(most)))
}
