//! Routes with what each can answer: the metrics' series come from here, and the OpenAPI document is tested against it.

use super::{Dialect, ProblemJson};
use crate::error::Code;

/// A route.
#[derive(Debug, Clone, Copy)]
pub struct Route {
    /// Path template.
    pub path: &'static str,
    /// HTTP method.
    pub method: &'static str,
    /// Codes that it can answer with, beside 200.
    pub codes: &'static [&'static [Code]],
}

impl Route {
    /// Codes that it can answer with, beside 200.
    pub fn codes(&self) -> impl Iterator<Item = Code> + use<> {
        self.codes.iter().copied().flatten().copied()
    }

    /// Statuses that it can answer with in a dialect, each once.
    pub fn statuses(&self, dialect: &dyn Dialect) -> Vec<u16> {
        let mut statuses: Vec<u16> = self.codes().map(|code| dialect.status(code)).chain([200]).collect();
        statuses.sort_unstable();
        statuses.dedup();
        statuses
    }
}

/// The label of every request that matches no route.
pub const UNMATCHED: &str = "unmatched";

/// Sets of codes that several routes share.
pub mod codes {
    use crate::error::Code::{self, *};

    /// What a request with a body can answer, whatever is in it.
    pub const BODY: &[Code] = &[
        EmptyBody,
        BadRequest,
        Unauthorized,
        BodyTimeout,
        BodyTooLarge,
        UnsupportedMediaType,
        Overloaded,
        InferenceFailed,
        Draining,
        NotReady,
        DeadlineExceeded,
    ];

    /// What can be wrong with one image. In a batch it stands in the image's own result.
    pub const IMAGE: &[Code] = &[ImageTooLarge, UnsupportedFormat, UndecodableImage, ImageTooSmall];
}

/// (route, method, statuses) of every series that can exist with a known method.
pub fn series<'a>(
    routes: &'a [Route],
    dialect: &'a dyn Dialect,
) -> impl Iterator<Item = (&'static str, &'static str, Vec<u16>)> + 'a {
    routes.iter().map(|route| (route.path, route.method, route.statuses(dialect)))
}

/// The series of requests that match no route.
pub fn unmatched() -> (&'static str, &'static str, Vec<u16>) {
    (UNMATCHED, "GET", vec![ProblemJson.status(Code::NotFound)])
}
