//! Who asks: the API key of a request, checked before anything of its body is read.

use std::sync::Arc;

use axum::{
    extract::{Request, State},
    http::{HeaderMap, HeaderValue, header},
    middleware::Next,
    response::{IntoResponse, Response},
};

use super::{AppState, RequestContext};
use crate::{
    error::{Code, Error},
    scheduler::{Client, Permit, Scheduler},
};

const API_KEY: &str = "x-api-key";

/// RFC 6750 section 3: what every 401 says of how to ask.
const CHALLENGE: HeaderValue = HeaderValue::from_static("Bearer realm=\"lfm-serve\"");

/// Lets a request pass that has a valid key, or any where no keys are configured.
pub(super) async fn layer(State(state): State<Arc<AppState>>, request: Request, next: Next) -> Response {
    if let Some(keys) = &state.keys {
        let keys = keys.now();
        let Some(presented) = presented(request.headers()) else {
            return unauthorized("send an API key, as `Authorization: Bearer KEY` or `X-API-Key: KEY`");
        };
        let Some(key) = keys.find(presented) else {
            return unauthorized("the API key is not valid");
        };
        if let Some(context) = request.extensions().get::<RequestContext>() {
            // Set once: a request passes here once.
            let _ = context.key.set(Arc::clone(key));
        }
    }
    next.run(request).await
}

fn unauthorized(detail: &str) -> Response {
    ([(header::WWW_AUTHENTICATE, CHALLENGE)], Error::new(Code::Unauthorized, detail)).into_response()
}

/// The key as the caller sent it. A bearer token goes before `X-API-Key`; other schemes are not for us.
fn presented(headers: &HeaderMap) -> Option<&[u8]> {
    let bearer = headers.get(header::AUTHORIZATION).and_then(|value| {
        let value = value.as_bytes();
        let (scheme, token) = value.split_at_checked(value.iter().position(|&byte| byte == b' ')?)?;
        scheme.eq_ignore_ascii_case(b"bearer").then(|| token.trim_ascii())
    });
    bearer.or_else(|| headers.get(API_KEY).map(|value| value.as_bytes().trim_ascii()))
}

impl RequestContext {
    /// Whose work the request is: its key's holder, or the caller at its address.
    pub(crate) fn client(&self) -> Client {
        let key = self.key.get().map(|key| Client::key(key.name(), key.weight()));
        key.unwrap_or_else(|| self.caller.clone())
    }

    /// An in-flight permit for one image: the server's and, if the request's key is capped, the key's. Both are
    /// returned when the image's work is over.
    ///
    /// # Errors
    /// `overloaded`.
    pub(crate) fn admit_image(&self, scheduler: &Scheduler) -> Result<Permit, Error> {
        let permit = || scheduler.admit_image(&self.client());
        let Some((key, places)) = self.key.get().and_then(|key| Some((key, key.places()?))) else {
            return permit();
        };
        let place = Arc::clone(places).try_acquire_owned().map_err(|_| {
            let detail = format!("the API key `{}` has as many images in flight as it may have", key.name());
            Error::retry(Code::Overloaded, detail, scheduler.retry_after())
        })?;
        Ok(permit()?.with_place(place))
    }
}
