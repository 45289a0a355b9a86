//! Errors in gRPC.

use std::{error::Error as _, sync::Arc};

use axum::{
    body::Body,
    http::{HeaderMap, header},
    response::Response,
};
use tonic::{Status, metadata::MetadataValue};

use crate::{
    error::{Code, Error},
    server::{Dialect, retry_after},
};

use super::super::http::TritonJson;

/// How long a caller should wait before it tries again, in milliseconds (gRFC A6).
const PUSHBACK: &str = "grpc-retry-pushback-ms";

const fn code(code: Code) -> tonic::Code {
    use Code::*;
    match code {
        EmptyBody | BadRequest | ImageTooLarge | TooManyImages | UnsupportedFormat | UndecodableImage
        | ImageTooSmall | NotAcceptable => tonic::Code::InvalidArgument,
        Unauthorized => tonic::Code::Unauthenticated,
        NotFound => tonic::Code::NotFound,
        MethodNotAllowed | UnsupportedMediaType => tonic::Code::Unimplemented,
        BodyTooLarge => tonic::Code::ResourceExhausted,
        BodyTimeout | DeadlineExceeded => tonic::Code::DeadlineExceeded,
        Overloaded | Draining | NotReady => tonic::Code::Unavailable,
        InferenceFailed => tonic::Code::Internal,
        NotExplainable => tonic::Code::Unimplemented,
        Changed => tonic::Code::Aborted,
        Unreadable => tonic::Code::FailedPrecondition,
    }
}

impl From<Error> for Status {
    fn from(error: Error) -> Self {
        let mut status = Self::new(code(error.code), error.detail.clone());
        if let Some(wait) = error.retry_after {
            let wait = u32::try_from(wait.as_millis()).unwrap_or(u32::MAX);
            status.metadata_mut().insert(PUSHBACK, MetadataValue::from(wait));
        }
        // Read by the access layer.
        status.set_source(Arc::new(error));
        status
    }
}

/// A gRPC status. The HTTP status is then 200; metrics and log have the one of Triton's dialect.
#[derive(Debug)]
pub struct GrpcStatus;

impl Dialect for GrpcStatus {
    fn status(&self, code: Code) -> u16 {
        TritonJson.status(code)
    }

    fn render(&self, error: &Error, _: &str, mut headers: HeaderMap) -> Response {
        retry_after(error, &mut headers);
        let mut response: Response<Body> = Status::from(error.clone()).into_http();
        for ours in [header::CONTENT_LENGTH, header::CONTENT_TYPE, Status::GRPC_STATUS, Status::GRPC_MESSAGE] {
            headers.remove(ours);
        }
        response.headers_mut().extend(headers);
        response
    }

    /// tonic itself refuses only messages that it cannot read, and reports them as internal errors.
    fn error_in(&self, response: &Response) -> Option<Error> {
        let status = response.extensions().get::<Status>()?;
        let ours = status.source().and_then(|source| source.downcast_ref::<Error>()).cloned();
        let code = match status.code() {
            tonic::Code::OutOfRange => Code::BodyTooLarge,
            tonic::Code::Unimplemented => Code::UnsupportedMediaType,
            _ => Code::BadRequest,
        };
        Some(ours.unwrap_or_else(|| Error::new(code, "the message cannot be read")))
    }

    /// gRPC clients must see UNIMPLEMENTED.
    fn no_such_route(&self) -> Error {
        Error::new(Code::MethodNotAllowed, "there is no such call")
    }
}
