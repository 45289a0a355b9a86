//! How errors are written: each transport has its own form. The access layer finds a request's dialect by its path.

use axum::{
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};

use super::problem;
use crate::error::{Code, Error};

/// A form in which errors are written.
pub trait Dialect: std::fmt::Debug + Sync {
    /// The status for a code, as metrics and log have it.
    fn status(&self, code: Code) -> u16;

    /// The whole answer. `headers` are those that the error's response had, e.g. `Allow`.
    fn render(&self, error: &Error, request_id: &str, headers: HeaderMap) -> Response;

    /// The error inside an answer that the transport's own library made.
    fn error_in(&self, _: &Response) -> Option<Error> {
        None
    }

    /// The error for a path that no route has.
    fn no_such_route(&self) -> Error {
        Error::new(Code::NotFound, "there is no such route")
    }
}

/// The dialects by the beginning of a path; other paths have [`ProblemJson`].
#[derive(Debug, Clone, Copy)]
pub struct Dialects(pub &'static [(&'static str, &'static dyn Dialect)]);

impl Dialects {
    /// The dialect of a path or a path template.
    pub(super) fn of(self, path: &str) -> &'static dyn Dialect {
        let found = self.0.iter().find(|(prefix, _)| {
            path.strip_prefix(prefix)
                .is_some_and(|rest| prefix.ends_with('.') || rest.is_empty() || rest.starts_with('/'))
        });
        found.map_or(&ProblemJson, |&(_, dialect)| dialect)
    }
}

/// `application/problem+json` (RFC 9457), one status a code.
#[derive(Debug)]
pub struct ProblemJson;

impl Dialect for ProblemJson {
    fn status(&self, code: Code) -> u16 {
        code.status()
    }

    fn render(&self, error: &Error, request_id: &str, headers: HeaderMap) -> Response {
        json(self.status(error.code), "application/problem+json", problem::body(error, request_id), error, headers)
    }
}

/// An error's answer over HTTP, with `Retry-After` where the error has one.
pub(crate) fn json(
    status: u16,
    content_type: &'static str,
    body: String,
    error: &Error,
    mut headers: HeaderMap,
) -> Response {
    headers.remove(header::CONTENT_LENGTH);
    retry_after(error, &mut headers);
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    (status, headers, body).into_response()
}

/// Whole seconds, rounded up: a caller that comes back earlier is refused again.
pub(crate) fn retry_after(error: &Error, headers: &mut HeaderMap) {
    if let Some(wait) = error.retry_after {
        headers.insert(header::RETRY_AFTER, HeaderValue::from(wait.as_secs_f64().ceil().max(1.0) as u64));
    }
}
