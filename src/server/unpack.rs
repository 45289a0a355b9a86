//! Compressed bodies and messages: unpacked off the async threads, step by step, within the limit on bodies, and
//! reserved in the budget before a step is taken.

use std::{
    io::{self, Read},
    sync::Arc,
};

use axum::http::{HeaderMap, header};
use bytes::Bytes;
use flate2::read::{MultiGzDecoder, ZlibDecoder};
use tokio::task::spawn_blocking;

use super::{
    AppState,
    buffer::{grow, too_large},
};
use crate::{
    error::{Code, Error},
    scheduler::Share,
};

/// The first reservation; each later one doubles what there is.
const STEP: usize = 64 << 10;

/// How bytes are packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Packing {
    /// RFC 1952.
    Gzip,
    /// RFC 1950, which HTTP and gRPC call deflate.
    Deflate,
}

impl Packing {
    /// By its name in HTTP and gRPC.
    pub(crate) fn named(name: &[u8]) -> Option<Self> {
        match name.trim_ascii() {
            name if name.eq_ignore_ascii_case(b"gzip") || name.eq_ignore_ascii_case(b"x-gzip") => Some(Self::Gzip),
            name if name.eq_ignore_ascii_case(b"deflate") => Some(Self::Deflate),
            _ => None,
        }
    }

    /// The packing of a request's body.
    ///
    /// # Errors
    /// `unsupported_media_type`.
    pub(super) fn of_content(headers: &HeaderMap) -> Result<Option<Self>, Error> {
        let mut given = headers.get_all(header::CONTENT_ENCODING).iter();
        let (Some(encoding), second) = (given.next(), given.next()) else { return Ok(None) };
        match Self::named(encoding.as_bytes()) {
            Some(packing) if second.is_none() => Ok(Some(packing)),
            None if second.is_none() && encoding.as_bytes().trim_ascii().eq_ignore_ascii_case(b"identity") => Ok(None),
            _ => {
                let name = String::from_utf8_lossy(encoding.as_bytes());
                let detail = format!("the Content-Encoding `{name}` is not supported: send gzip, deflate or none");
                Err(Error::new(Code::UnsupportedMediaType, detail))
            }
        }
    }
}

/// Unpacks `packed`, to `limit` bytes at most. The share covers the unpacked bytes then.
///
/// # Errors
/// `body_too_large`, `overloaded`, `bad_request`.
pub(crate) async fn unpack(
    state: &Arc<AppState>,
    packing: Packing,
    packed: Bytes,
    held: Share,
    limit: u64,
) -> Result<(Bytes, Share), Error> {
    let state = Arc::clone(state);
    let unpacking = move || unpack_now(&state, packing, &packed, held, limit);
    spawn_blocking(unpacking).await.map_err(|_| Error::inference_failed())?
}

/// Unpacks a small message at once, without a reservation.
///
/// # Errors
/// `body_too_large`, `bad_request`.
pub(crate) fn unpack_small(packing: Packing, packed: &[u8], limit: u64) -> Result<Vec<u8>, Error> {
    let mut bytes = Vec::new();
    let read = reader(packing, packed).take(limit + 1).read_to_end(&mut bytes);
    read.map_err(|_| Error::new(Code::BadRequest, "the message cannot be unpacked"))?;
    if bytes.len() as u64 > limit { Err(too_large(limit)) } else { Ok(bytes) }
}

fn reader<'a>(packing: Packing, packed: &'a [u8]) -> Box<dyn Read + 'a> {
    match packing {
        Packing::Gzip => Box::new(MultiGzDecoder::new(packed)),
        Packing::Deflate => Box::new(ZlibDecoder::new(packed)),
    }
}

fn unpack_now(
    state: &AppState,
    packing: Packing,
    packed: &[u8],
    mut held: Share,
    limit: u64,
) -> Result<(Bytes, Share), Error> {
    let scheduler = state.scheduler()?;
    let mut reader = reader(packing, packed);
    let most = usize::try_from(limit).unwrap_or(usize::MAX);
    let mut bytes = Vec::new();
    let mut piece = vec![0; STEP.min(most.saturating_add(1))];
    loop {
        let read = match reader.read(&mut piece) {
            Ok(0) => return Ok((Bytes::from(bytes), held)),
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(_) => return Err(Error::new(Code::BadRequest, "the body cannot be unpacked")),
        };
        let total = bytes.len() + read;
        if total > most {
            return Err(too_large(limit));
        }
        if total > bytes.capacity() {
            let capacity = (2 * bytes.capacity()).max(STEP).min(most).max(total);
            grow(scheduler, &mut held, &mut bytes, capacity)?;
        }
        bytes.extend_from_slice(&piece[..read]);
    }
}
