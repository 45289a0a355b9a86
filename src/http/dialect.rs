//! How an error looks to a caller: problem+json, or what clients of the Open Inference Protocol expect, over HTTP or
//! gRPC.

use axum::{
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde_json::json;

use super::{grpc, problem};
use crate::error::{Code, Error};

/// The ways in which errors are told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dialect {
    /// RFC 9457, one status a code.
    Problem,
    /// `{"error": ...}`, with Triton's statuses.
    Triton,
    /// A gRPC status. The HTTP status is then 200; metrics and log have the one that Triton's dialect would give.
    Grpc,
}

impl Dialect {
    /// The dialect of a path or a path template.
    pub(super) fn of(path: &str) -> Self {
        if path.starts_with("/inference.") || path.starts_with("/grpc.") {
            return Self::Grpc;
        }
        match path.strip_prefix("/v2") {
            Some(rest) if rest.is_empty() || rest.starts_with('/') => Self::Triton,
            _ => Self::Problem,
        }
    }

    /// The status that tells of a code.
    pub(super) const fn status(self, code: Code) -> u16 {
        use Code::*;
        match (self, code) {
            // To Triton all that is wrong with an input is an invalid argument, and a full server is unavailable.
            (Self::Problem, _) => code.status(),
            (_, ImageTooLarge | TooManyImages | UnsupportedFormat | UndecodableImage | ImageTooSmall) => 400,
            (_, Overloaded) => 503,
            _ => code.status(),
        }
    }

    /// The error's final answer. `headers` are those that the error's response had, e.g. `Allow`.
    pub(super) fn render(self, error: &Error, request_id: &str, mut headers: HeaderMap) -> Response {
        headers.remove(header::CONTENT_LENGTH);
        if let Some(wait) = error.retry_after {
            // Whole seconds, rounded up: who comes back earlier comes in vain.
            headers.insert(header::RETRY_AFTER, HeaderValue::from(wait.as_secs_f64().ceil().max(1.0) as u64));
        }
        let (content_type, body) = match self {
            Self::Problem => ("application/problem+json", problem::body(error, request_id)),
            Self::Triton => ("application/json", json!({ "error": error.detail }).to_string()),
            Self::Grpc => return grpc::render(error, headers),
        };
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
        let status = StatusCode::from_u16(self.status(error.code)).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        (status, headers, body).into_response()
    }
}
