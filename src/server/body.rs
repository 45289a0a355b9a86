//! A request's body: read whole, within its limits. Its bytes are reserved step by step as they arrive: an announcement
//! takes nothing from others.

use std::{
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use axum::{
    body::{Body, HttpBody},
    http::{HeaderMap, header},
};
use bytes::Bytes;
use http_body_util::BodyExt;
use tokio::time::{Instant, timeout_at};

use super::{
    AppState, RequestContext,
    buffer::{grow, too_large},
    connection::Peer,
    unpack::{Packing, unpack},
};
use crate::{
    error::{Code, Error},
    metrics::Stage,
    scheduler::{Scheduler, Share},
};

/// The smallest reservation.
const STEP: usize = 64 << 10;

/// How long a body may be slower than `--min-upload-rate`: mobile networks pause for seconds.
const GRACE: Duration = Duration::from_secs(5);

/// Reads the body, and unpacks it if it has a `Content-Encoding`.
///
/// # Errors
/// `body_too_large` and `overloaded`, both before reading where the length is known; `body_timeout`;
/// `deadline_exceeded`; `empty_body`; `unsupported_media_type` for an encoding that is unknown; `bad_request` when the
/// client breaks off.
pub(crate) async fn read(
    state: &Arc<AppState>,
    context: &RequestContext,
    scheduler: &Scheduler,
    headers: &HeaderMap,
    body: Body,
    deadline: Instant,
) -> Result<(Bytes, Share), Error> {
    let packing = Packing::of_content(headers)?;
    let limit = state.config.limits.max_body_bytes.as_u64();
    let began = Instant::now();
    let (bytes, held) = receive(state, context, scheduler, headers, body, deadline).await?;
    state.metrics.stage(Stage::Read, began.elapsed());
    let (bytes, held) = match packing {
        Some(packing) => unpack(state, packing, bytes, held, limit).await?,
        None => (bytes, held),
    };
    if bytes.is_empty() {
        return Err(Error::new(Code::EmptyBody, "the request has no body: send an image"));
    }
    Ok((bytes, held))
}

async fn receive(
    state: &AppState,
    context: &RequestContext,
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
    scheduler.could_admit_bytes(announced)?;
    let pace = Pace { began, rate: state.config.min_upload_rate.as_u64() };
    let cut = began + state.config.body_timeout;
    let mut receiving = Receiving { peer: context.peer.as_ref(), bytes: 0 };
    let mut held = scheduler.admit_bytes(0)?;
    let mut bytes = Vec::new();
    loop {
        let slow = pace.deadline(bytes.len() as u64);
        let wait = slow.map_or(cut, |slow| slow.min(cut)).min(deadline);
        let frame = timeout_at(wait, body.frame()).await.map_err(|_| match () {
            () if wait == deadline => Error::deadline_exceeded(),
            () if wait == cut => too_slow(state.config.body_timeout),
            () => pace.too_slow(),
        })?;
        let Some(frame) = frame else { break };
        let frame = frame.map_err(|_| Error::new(Code::BadRequest, "the body broke off before its end"))?;
        let Ok(data) = frame.into_data() else { continue };
        let total = bytes.len() + data.len();
        if total as u64 > limit {
            return Err(too_large(limit));
        }
        if total > bytes.capacity() {
            // What was announced is the end; a chunked body may grow to the limit.
            let most = if announced > 0 { announced } else { limit };
            let capacity = (2 * bytes.capacity()).max(STEP).min(usize::try_from(most).unwrap_or(usize::MAX)).max(total);
            grow(scheduler, &mut held, &mut bytes, capacity)?;
            receiving.grow_to(scheduler, capacity as u64)?;
        }
        bytes.extend_from_slice(&data);
    }
    Ok((Bytes::from(bytes), held))
}

/// The slowest pace at which a body may arrive.
#[derive(Clone, Copy)]
struct Pace {
    began: Instant,
    /// Bytes a second; 0: any.
    rate: u64,
}

impl Pace {
    /// When the next byte must be there.
    fn deadline(self, received: u64) -> Option<Instant> {
        let seconds = received.checked_div(self.rate)?;
        self.began.checked_add(GRACE + Duration::from_secs(seconds))
    }

    fn too_slow(self) -> Error {
        let detail = format!("the body arrives more slowly than {} bytes a second", self.rate);
        Error::new(Code::BodyTimeout, detail)
    }
}

/// What an address has reserved for bodies that it is still sending.
struct Receiving<'a> {
    peer: Option<&'a Arc<Peer>>,
    bytes: u64,
}

impl Receiving<'_> {
    /// # Errors
    /// `overloaded` when bytes are short and the address holds most of them.
    fn grow_to(&mut self, scheduler: &Scheduler, bytes: u64) -> Result<(), Error> {
        let Some(peer) = self.peer else { return Ok(()) };
        let more = bytes.saturating_sub(self.bytes);
        self.bytes += more;
        let all = peer.receiving.fetch_add(more, Relaxed) + more;
        scheduler.check_share(all)
    }
}

impl Drop for Receiving<'_> {
    fn drop(&mut self) {
        if let Some(peer) = self.peer {
            peer.receiving.fetch_sub(self.bytes, Relaxed);
        }
    }
}

fn announced_length(headers: &HeaderMap, body: &Body) -> u64 {
    let header = headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
    header.unwrap_or_else(|| body.size_hint().lower())
}

fn too_slow(limit: Duration) -> Error {
    Error::new(Code::BodyTimeout, format!("the body did not arrive within {} s", limit.as_secs_f64()))
}
