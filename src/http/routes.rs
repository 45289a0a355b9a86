//! The routes that exist, with what each can answer: the metrics' series come from here, and the OpenAPI
//! document is held against it.

use crate::error::Code::{self, *};

/// A route.
#[derive(Debug, Clone, Copy)]
pub struct Route {
    /// Path template.
    pub path: &'static str,
    /// HTTP method.
    pub method: &'static str,
    /// Codes that it can answer with, beside 200.
    pub codes: &'static [Code],
}

/// The label of every request that matches no route.
pub const UNMATCHED: &str = "unmatched";

/// What any route that takes an image can answer.
const IMAGE_CODES: &[Code] = &[
    EmptyBody,
    BadRequest,
    Unauthorized,
    BodyTimeout,
    BodyTooLarge,
    ImageTooLarge,
    UnsupportedMediaType,
    UnsupportedFormat,
    UndecodableImage,
    ImageTooSmall,
    Overloaded,
    InferenceFailed,
    Draining,
    NotReady,
    DeadlineExceeded,
];

/// As [`IMAGE_CODES`], with the choice of a media type.
const EXPLAIN_CODES: &[Code] = &[
    EmptyBody,
    BadRequest,
    Unauthorized,
    NotAcceptable,
    BodyTimeout,
    BodyTooLarge,
    ImageTooLarge,
    UnsupportedMediaType,
    UnsupportedFormat,
    UndecodableImage,
    ImageTooSmall,
    Overloaded,
    InferenceFailed,
    Draining,
    NotReady,
    DeadlineExceeded,
];

/// What a batch as a whole can answer: what is wrong with one image stands in its own result.
const BATCH_CODES: &[Code] = &[
    EmptyBody,
    BadRequest,
    Unauthorized,
    BodyTimeout,
    BodyTooLarge,
    TooManyImages,
    UnsupportedMediaType,
    Overloaded,
    InferenceFailed,
    Draining,
    NotReady,
    DeadlineExceeded,
];

/// All routes.
pub const ROUTES: &[Route] = &[
    Route { path: "/v1/score", method: "POST", codes: IMAGE_CODES },
    Route { path: "/v1/score/batch", method: "POST", codes: BATCH_CODES },
    Route { path: "/v1/explain", method: "POST", codes: EXPLAIN_CODES },
    Route { path: "/livez", method: "GET", codes: &[NotReady] },
    Route { path: "/readyz", method: "GET", codes: &[Draining, NotReady] },
    Route { path: "/startupz", method: "GET", codes: &[NotReady] },
    Route { path: "/metrics", method: "GET", codes: &[InferenceFailed] },
    Route { path: "/openapi.json", method: "GET", codes: &[] },
];

/// (route, method, statuses) of every series that can exist with a known method.
pub fn series() -> impl Iterator<Item = (&'static str, &'static str, Vec<u16>)> {
    let matched = ROUTES.iter().map(|route| {
        let mut statuses: Vec<u16> = route.codes.iter().map(|code| code.status()).chain([200]).collect();
        statuses.sort_unstable();
        statuses.dedup();
        (route.path, route.method, statuses)
    });
    matched.chain([(UNMATCHED, "GET", vec![NotFound.status()])])
}
