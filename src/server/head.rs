//! What a request's head must have, checked before its route sees it.

use std::sync::Arc;

use axum::{
    extract::{Request, State},
    http::{HeaderValue, Version, header, uri::Authority},
    middleware::Next,
    response::{IntoResponse, Response},
};

use super::{AppState, connection::Activity};
use crate::error::{Code, Error};

/// The paths that answer on connections that are kept for the probes, and under any host name.
const PROBES: &[&str] = &["/livez", "/readyz", "/startupz", "/metrics", "/v2/health/live", "/v2/health/ready"];

pub(super) async fn layer(State(state): State<Arc<AppState>>, request: Request, next: Next) -> Response {
    let connection = request.extensions().get::<Arc<Activity>>();
    let only_probes = connection.is_some_and(|connection| connection.only_probes());
    let probe = PROBES.contains(&request.uri().path());
    let checked = check(&request, &state.config.allowed_hosts, probe).and_then(|()| match only_probes && !probe {
        true => {
            let full = "the server has no place for further connections";
            Err(Error::retry(Code::Overloaded, full, std::time::Duration::from_secs(1)))
        }
        false => Ok(()),
    });
    let old_http = request.version() < Version::HTTP_2;
    let malformed = checked.is_err();
    let mut response = match checked {
        Ok(()) => next.run(request).await,
        Err(error) => error.into_response(),
    };
    if old_http && (only_probes || malformed) {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// RFC 9112: one `Host` (section 3.2), one `Transfer-Encoding` and not with a length (6.1): a proxy in front may read
/// what is doubled in another way. Then the host's name.
fn check(request: &Request, allowed: &[String], probe: bool) -> Result<(), Error> {
    let bad = |detail: &str| Err(Error::new(Code::BadRequest, detail));
    let headers = request.headers();
    let mut hosts = headers.get_all(header::HOST).iter();
    let (host, second) = (hosts.next(), hosts.next());
    if second.is_some() {
        return bad("the request has more than one Host header");
    }
    if request.version() == Version::HTTP_11 && host.is_none() {
        return bad("the request has no Host header");
    }
    let mut encodings = headers.get_all(header::TRANSFER_ENCODING).iter();
    if let Some(encoding) = encodings.next() {
        if encodings.next().is_some() || !encoding.as_bytes().eq_ignore_ascii_case(b"chunked") {
            return bad("Transfer-Encoding is `chunked`, once, or left out");
        }
        if headers.contains_key(header::CONTENT_LENGTH) {
            return bad("the request has both Transfer-Encoding and Content-Length");
        }
    }
    if allowed.is_empty() || probe {
        return Ok(());
    }
    let named = match request.uri().authority() {
        Some(authority) => Some(authority.clone()),
        None => host.and_then(|host| Authority::try_from(host.as_bytes()).ok()),
    };
    match named {
        Some(named) if allowed.iter().any(|host| host.eq_ignore_ascii_case(named.host())) => Ok(()),
        _ => bad("this server does not answer under the request's host name (--allowed-hosts)"),
    }
}
