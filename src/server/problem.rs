//! Errors as `application/problem+json` (RFC 9457).

use axum::{
    http::StatusCode,
    response::{IntoResponse, Response},
};
use serde::Serialize;
use utoipa::ToSchema;

use crate::error::Error;

/// A problem, as it is sent.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Problem {
    /// What kind: a reference to the page that explains it, on this server.
    #[serde(rename = "type")]
    #[schema(example = "/errors#undecodable_image")]
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
    pub(crate) fn new(error: &Error, request_id: &str) -> Self {
        let code = error.code;
        Self {
            kind: format!("/errors#{}", code.as_str()),
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

/// The error as JSON.
pub(super) fn body(error: &Error, request_id: &str) -> String {
    // Serialising strings and numbers cannot fail.
    serde_json::to_string(&Problem::new(error, request_id)).unwrap_or_default()
}
