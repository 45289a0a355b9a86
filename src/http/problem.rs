//! Errors as `application/problem+json` (RFC 9457).

use axum::{
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;
use utoipa::ToSchema;

use crate::error::Error;

/// A problem, as it is sent.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Problem {
    /// What kind: a URN that ends in the code.
    #[serde(rename = "type")]
    #[schema(example = "urn:lfm-serve:problem:undecodable_image")]
    pub(super) kind: String,
    /// What kind, in words: the same for every occurrence.
    pub(super) title: &'static str,
    /// The HTTP status.
    #[schema(example = 422)]
    pub(super) status: u16,
    /// What happened this time.
    pub(super) detail: String,
    /// What kind, for programs.
    #[schema(example = "undecodable_image")]
    pub(super) code: &'static str,
    /// The request that failed.
    pub(super) request_id: String,
}

impl Problem {
    pub(super) fn new(error: &Error, request_id: &str) -> Self {
        let code = error.code;
        Self {
            kind: format!("urn:lfm-serve:problem:{}", code.as_str()),
            title: code.title(),
            status: code.status(),
            detail: error.detail.clone(),
            code: code.as_str(),
            request_id: request_id.to_owned(),
        }
    }
}

/// The error travels in the response's extensions up to the access layer, which knows the request's id and
/// writes the body.
impl IntoResponse for Error {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.code.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = status.into_response();
        response.extensions_mut().insert(self);
        response
    }
}

/// The error's final answer. `headers` are those that the error's response had, e.g. `Allow`.
pub(super) fn render(error: &Error, request_id: &str, mut headers: HeaderMap) -> Response {
    let problem = serde_json::to_vec(&Problem::new(error, request_id)).unwrap_or_default();
    headers.remove(header::CONTENT_LENGTH);
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
    if let Some(wait) = error.retry_after {
        // Whole seconds, rounded up: who comes back earlier comes in vain.
        headers.insert(header::RETRY_AFTER, HeaderValue::from(wait.as_secs_f64().ceil().max(1.0) as u64));
    }
    let status = StatusCode::from_u16(error.code.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    (status, headers, problem).into_response()
}
