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
    codes: &'static [&'static [Code]],
}

impl Route {
    /// Codes that it can answer with, beside 200.
    pub fn codes(&self) -> impl Iterator<Item = Code> + use<> {
        self.codes.iter().copied().flatten().copied()
    }
}

/// The label of every request that matches no route.
pub const UNMATCHED: &str = "unmatched";

/// What a request with a body can answer, whatever is in it.
const BODY: &[Code] = &[
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
const IMAGE: &[Code] = &[ImageTooLarge, UnsupportedFormat, UndecodableImage, ImageTooSmall];

/// All routes.
pub const ROUTES: &[Route] = &[
    Route { path: "/v1/score", method: "POST", codes: &[BODY, IMAGE] },
    Route { path: "/v1/score/batch", method: "POST", codes: &[BODY, &[TooManyImages]] },
    Route { path: "/v1/explain", method: "POST", codes: &[BODY, IMAGE, &[NotAcceptable]] },
    Route { path: "/livez", method: "GET", codes: &[&[NotReady]] },
    Route { path: "/readyz", method: "GET", codes: &[&[Draining, NotReady]] },
    Route { path: "/startupz", method: "GET", codes: &[&[NotReady]] },
    Route { path: "/metrics", method: "GET", codes: &[&[InferenceFailed]] },
    Route { path: "/openapi.json", method: "GET", codes: &[] },
    Route { path: "/", method: "GET", codes: &[] },
    Route { path: "/docs", method: "GET", codes: &[] },
    Route { path: "/assets/{file}", method: "GET", codes: &[&[NotFound]] },
];

/// (route, method, statuses) of every series that can exist with a known method.
pub fn series() -> impl Iterator<Item = (&'static str, &'static str, Vec<u16>)> {
    let matched = ROUTES.iter().map(|route| {
        let mut statuses: Vec<u16> = route.codes().map(Code::status).chain([200]).collect();
        statuses.sort_unstable();
        statuses.dedup();
        (route.path, route.method, statuses)
    });
    matched.chain([(UNMATCHED, "GET", vec![NotFound.status()])])
}
