//! A request's body: read whole, within its limits, its bytes set aside before they are read.

use std::time::Duration;

use axum::{
    body::{Body, HttpBody},
    http::{HeaderMap, header},
};
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use tokio::time::{Instant, timeout_at};

use super::AppState;
use crate::{
    error::{Code, Error},
    metrics::Stage,
    scheduler::{Scheduler, Share},
};

/// Reads the body.
///
/// # Errors
/// `body_too_large` and `overloaded`, both before reading where the length is known; `body_timeout`;
/// `deadline_exceeded`; `empty_body`; `bad_request` when the client breaks off.
pub(crate) async fn read(
    state: &AppState,
    scheduler: &Scheduler,
    headers: &HeaderMap,
    mut body: Body,
    deadline: Instant,
) -> Result<(Bytes, Share), Error> {
    let limit = state.config.limits.max_body_bytes.as_u64();
    let began = Instant::now();
    let announced = announced_length(headers, &body);
    if announced > limit {
        return Err(too_large(limit));
    }
    let mut held = scheduler.admit_bytes(announced)?;
    let mut bytes = BytesMut::with_capacity(usize::try_from(announced).unwrap_or(0));
    let cut = began + state.config.body_timeout;
    loop {
        let frame = timeout_at(cut.min(deadline), body.frame()).await.map_err(|_| {
            if cut < deadline { too_slow(state.config.body_timeout) } else { Error::deadline_exceeded() }
        })?;
        let Some(frame) = frame else { break };
        let frame = frame.map_err(|_| Error::new(Code::BadRequest, "the body broke off before its end"))?;
        let Ok(data) = frame.into_data() else { continue };
        let total = (bytes.len() + data.len()) as u64;
        if total > limit {
            return Err(too_large(limit));
        }
        // A chunked body announces nothing: its share grows as it arrives.
        scheduler.grow_bytes(&mut held, total.saturating_sub(announced.max(bytes.len() as u64)))?;
        bytes.extend_from_slice(&data);
    }
    state.metrics.stage(Stage::Read, began.elapsed());
    if bytes.is_empty() {
        return Err(Error::new(Code::EmptyBody, "the request has no body: send an image"));
    }
    Ok((bytes.freeze(), held))
}

fn announced_length(headers: &HeaderMap, body: &Body) -> u64 {
    let header = headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
    header.unwrap_or_else(|| body.size_hint().lower())
}

pub(crate) fn too_large(limit: u64) -> Error {
    Error::new(Code::BodyTooLarge, format!("the body is larger than the limit of {limit} bytes"))
}

fn too_slow(limit: Duration) -> Error {
    Error::new(Code::BodyTimeout, format!("the body did not arrive within {} s", limit.as_secs_f64()))
}
