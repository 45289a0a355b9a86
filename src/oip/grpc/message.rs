//! An inference call's message: admitted and read like every body, decompressed, then passed to tonic.

use std::{sync::Arc, time::Duration};

use axum::{
    body::Body,
    extract::{Request, State},
    http::HeaderMap,
    middleware::Next,
    response::Response,
};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use prost::Message;
use tokio::{task::spawn_blocking, time::Instant};

use super::{proto::ModelInferRequest, scan::decoded_bytes};
use crate::{
    error::{Code, Error},
    metrics::Outcome,
    scheduler::{Permit, Share},
    server::{AppState, Packing, RequestContext, Stay, deadline, read_body, too_large, unpack, unpack_small},
};

const ENCODING: &str = "grpc-encoding";
const TIMEOUT: &str = "grpc-timeout";

/// Bytes before a message: whether it is compressed, and its length.
const PREFIX: usize = 5;

/// The largest message of a call without images, in bytes: a model's name and version.
const SMALL_MESSAGE: usize = 64 << 10;

/// An admitted call, for its handler.
#[derive(Debug)]
pub(super) struct Admitted {
    /// Its message.
    pub(super) request: ModelInferRequest,
    /// The first image's in-flight permit.
    pub(super) permit: Permit,
    /// The message's bytes.
    pub(super) held: Share,
    pub(super) deadline: Instant,
}

/// For the inference call. tonic would decode on an async thread: it gets an empty message, and its handler finds the
/// decoded one in the extensions.
pub(super) async fn layer(State(state): State<Arc<AppState>>, request: Request, next: Next) -> Result<Response, Error> {
    let (mut parts, body) = request.into_parts();
    let context = parts.extensions.get::<RequestContext>().cloned().ok_or_else(Error::inference_failed)?;
    let mut stay = Stay::new(&state.metrics, &context);
    let received = receive(&state, &context, &parts.headers, body).await;
    let admitted = received.inspect_err(|error| stay.end(Outcome::of(error.code)))?;
    // From here on the handler counts the image.
    stay.forget();
    parts.headers.remove(ENCODING);
    parts.extensions.insert(Arc::new(admitted));
    Ok(next.run(Request::from_parts(parts, Body::from(&[0; PREFIX][..]))).await)
}

/// For the calls with small messages: decompressed here, since tonic decompresses without a limit.
pub(super) async fn small(request: Request, next: Next) -> Result<Response, Error> {
    let (mut parts, body) = request.into_parts();
    let limited = Limited::new(body, SMALL_MESSAGE + PREFIX);
    let framed = limited.collect().await.map_err(|error| match error.is::<LengthLimitError>() {
        true => too_large(SMALL_MESSAGE as u64),
        false => bad("the call ended before its message was complete"),
    });
    let framed = framed?.to_bytes();
    let framed = match framed.split_first_chunk::<PREFIX>() {
        Some(([packed, ..], message)) if *packed != 0 => {
            let message = unpack_small(packing(&parts.headers)?, message, SMALL_MESSAGE as u64)?;
            let length = u32::try_from(message.len()).map_err(|_| bad("the message cannot be read"))?;
            [&[0], &length.to_be_bytes()[..], &message].concat().into()
        }
        _ => framed,
    };
    parts.headers.remove(ENCODING);
    Ok(next.run(Request::from_parts(parts, Body::from(framed))).await)
}

async fn receive(
    state: &Arc<AppState>,
    context: &RequestContext,
    headers: &HeaderMap,
    body: Body,
) -> Result<Admitted, Error> {
    let scheduler = state.scheduler()?;
    let permit = context.admit_image(scheduler)?;
    let most = state.config.request_timeout;
    let deadline = deadline(headers, context.started, most)?.min(context.started + timeout(headers)?.unwrap_or(most));
    let (framed, held) = context.reading(read_body(state, context, scheduler, headers, body, deadline)).await?;
    let (prefix, message) = framed.split_first_chunk::<PREFIX>().ok_or_else(|| bad("the call has no message"))?;
    let [packed, length @ ..] = *prefix;
    if u32::from_be_bytes(length) as usize != message.len() {
        return Err(bad("the call has not exactly one message"));
    }
    let message = framed.slice_ref(message);
    let (message, mut held) = match packed {
        0 => (message, held),
        _ => unpack(state, packing(headers)?, message, held, state.config.limits.max_body_bytes.as_u64()).await?,
    };
    let decoding = {
        let state = Arc::clone(state);
        move || {
            let scheduler = state.scheduler()?;
            // The message names the model: till then the largest input counts.
            let inputs = state.models.all().iter().map(|served| served.manifest.preprocessing.input_bytes());
            let most = state.config.max_batch_images.saturating_mul(inputs.max().unwrap_or(0));
            scheduler.grow_bytes(&mut held, decoded_bytes(&message, most)?)?;
            let request = ModelInferRequest::decode(message).map_err(|_| bad("the message cannot be read"))?;
            Ok::<_, Error>((request, held))
        }
    };
    let (request, held) = spawn_blocking(decoding).await.map_err(|_| Error::inference_failed())??;
    Ok(Admitted { request, permit, held, deadline })
}

fn packing(headers: &HeaderMap) -> Result<Packing, Error> {
    let named = headers.get(ENCODING).and_then(|encoding| Packing::named(encoding.as_bytes()));
    let wrong = || Error::new(Code::UnsupportedMediaType, "the message is compressed with neither gzip nor deflate");
    named.ok_or_else(wrong)
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

fn bad(detail: &str) -> Error {
    Error::new(Code::BadRequest, detail)
}
