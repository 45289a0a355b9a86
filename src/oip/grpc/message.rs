//! An inference call's message: let in and read as every body is, unpacked, and then handed to tonic.

use std::{io::Read, sync::Arc, time::Duration};

use axum::{
    body::Body,
    extract::{Request, State},
    http::HeaderMap,
    middleware::Next,
    response::Response,
};
use bytes::Bytes;
use flate2::read::{GzDecoder, ZlibDecoder};
use tokio::{task::spawn_blocking, time::Instant};

use crate::{
    error::{Code, Error},
    metrics::Outcome,
    scheduler::{Permit, Share},
    server::{AppState, RequestContext, Stay, deadline, read_body, too_large},
};

const ENCODING: &str = "grpc-encoding";
const TIMEOUT: &str = "grpc-timeout";

/// Bytes before a message: whether it is packed, and its length.
const PREFIX: usize = 5;

/// How much is unpacked before more of the budget is asked for.
const STEP: u64 = 64 << 10;

/// A call that has been let in, for its handler.
#[derive(Debug)]
pub(super) struct Admitted {
    /// The first image's in-flight permit.
    pub(super) permit: Permit,
    /// The message's bytes.
    pub(super) held: Share,
    pub(super) deadline: Instant,
}

pub(super) async fn layer(State(state): State<Arc<AppState>>, request: Request, next: Next) -> Result<Response, Error> {
    let (mut parts, body) = request.into_parts();
    let context = parts.extensions.get::<RequestContext>().cloned().ok_or_else(Error::inference_failed)?;
    let mut stay = Stay::new(&state.metrics);
    let received = receive(&state, &context, &parts.headers, body).await;
    let (message, admitted) = received.inspect_err(|error| stay.end(Outcome::of(error.code)))?;
    // The handler counts from here.
    stay.forget();
    parts.headers.remove(ENCODING);
    parts.extensions.insert(Arc::new(admitted));
    Ok(next.run(Request::from_parts(parts, Body::from(message))).await)
}

async fn receive(
    state: &Arc<AppState>,
    context: &RequestContext,
    headers: &HeaderMap,
    body: Body,
) -> Result<(Bytes, Admitted), Error> {
    let scheduler = state.scheduler()?;
    let permit = context.admit_image(scheduler)?;
    let most = state.config.request_timeout;
    let deadline = deadline(headers, context.started, most)?.min(context.started + timeout(headers)?.unwrap_or(most));
    let (framed, held) = context.reading(read_body(state, scheduler, headers, body, deadline)).await?;
    let prefix = framed.first_chunk::<PREFIX>().ok_or_else(|| bad("the call has no message"))?;
    let [packed, length @ ..] = *prefix;
    if u32::from_be_bytes(length) as usize != framed.len() - PREFIX {
        return Err(bad("the call has not exactly one message"));
    }
    let (framed, held) = match packed {
        0 => (framed, held),
        _ => unpack(state, headers, framed, held).await?,
    };
    Ok((framed, Admitted { permit, held, deadline }))
}

/// gRPC's own deadline: at most eight digits and a unit.
fn timeout(headers: &HeaderMap) -> Result<Option<Duration>, Error> {
    let Some(value) = headers.get(TIMEOUT) else { return Ok(None) };
    let parsed = || {
        let (digits, unit) = value.to_str().ok()?.split_at_checked(value.len().checked_sub(1)?)?;
        let number = digits.parse::<u32>().ok().filter(|_| digits.len() <= 8)?;
        Some(match unit {
            "H" => Duration::from_secs(3600) * number,
            "M" => Duration::from_secs(60) * number,
            "S" => Duration::from_secs(1) * number,
            "m" => Duration::from_millis(1) * number,
            "u" => Duration::from_micros(1) * number,
            "n" => Duration::from_nanos(1) * number,
            _ => return None,
        })
    };
    parsed().map(Some).ok_or_else(|| bad("grpc-timeout is malformed"))
}

/// Unpacks a message, off the async threads, and sets aside what comes out while it does.
async fn unpack(
    state: &Arc<AppState>,
    headers: &HeaderMap,
    framed: Bytes,
    mut held: Share,
) -> Result<(Bytes, Share), Error> {
    let gzip = match headers.get(ENCODING).map(|encoding| encoding.as_bytes()) {
        Some(b"gzip") => true,
        Some(b"deflate") => false,
        _ => return Err(Error::new(Code::UnsupportedMediaType, "the message is packed with neither gzip nor deflate")),
    };
    let state = Arc::clone(state);
    let unpacking = move || {
        let scheduler = state.scheduler()?;
        let limit = state.config.limits.max_body_bytes.as_u64();
        let packed = &framed[PREFIX..];
        let mut reader: Box<dyn Read> =
            if gzip { Box::new(GzDecoder::new(packed)) } else { Box::new(ZlibDecoder::new(packed)) };
        let mut message = vec![0; PREFIX];
        loop {
            scheduler.grow_bytes(&mut held, STEP)?;
            let step = (&mut reader).take(STEP).read_to_end(&mut message);
            if step.map_err(|_| bad("the message cannot be unpacked"))? == 0 {
                break;
            }
            if message.len() as u64 > limit {
                return Err(too_large(limit));
            }
        }
        let length = u32::try_from(message.len() - PREFIX).map_err(|_| too_large(limit))?;
        message[1..PREFIX].copy_from_slice(&length.to_be_bytes());
        Ok((Bytes::from(message), held))
    };
    spawn_blocking(unpacking).await.map_err(|_| Error::inference_failed())?
}

fn bad(detail: &str) -> Error {
    Error::new(Code::BadRequest, detail)
}
