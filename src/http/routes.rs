//! The routes that exist, with what each can answer: the metrics' series come from here, and the OpenAPI
//! document is held against it.

use super::dialect::Dialect;
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

    /// Statuses that it can answer with, each once.
    pub fn statuses(&self) -> Vec<u16> {
        let dialect = Dialect::of(self.path);
        let mut statuses: Vec<u16> = self.codes().map(|code| dialect.status(code)).chain([200]).collect();
        statuses.sort_unstable();
        statuses.dedup();
        statuses
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

/// What a question about a model can answer.
const MODEL: &[&[Code]] = &[&[Unauthorized, NotFound]];

/// What an inference request can answer.
const INFER: &[&[Code]] = &[BODY, IMAGE, &[NotFound, TooManyImages]];

/// What can be wrong with a call's message, whatever it is.
const MESSAGE: &[Code] = &[BadRequest, BodyTooLarge, UnsupportedMediaType];

/// What a call about a model can answer.
const CALL: &[&[Code]] = &[MESSAGE, &[Unauthorized, NotFound]];

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
    Route { path: "/v2", method: "GET", codes: &[&[Unauthorized]] },
    Route { path: "/v2/health/live", method: "GET", codes: &[&[NotReady]] },
    Route { path: "/v2/health/ready", method: "GET", codes: &[&[Draining, NotReady]] },
    Route { path: "/v2/models/stats", method: "GET", codes: &[&[Unauthorized]] },
    Route { path: "/v2/models/{name}", method: "GET", codes: MODEL },
    Route { path: "/v2/models/{name}/versions/{version}", method: "GET", codes: MODEL },
    Route { path: "/v2/models/{name}/ready", method: "GET", codes: &[&[NotFound, Draining, NotReady]] },
    Route {
        path: "/v2/models/{name}/versions/{version}/ready",
        method: "GET",
        codes: &[&[NotFound, Draining, NotReady]],
    },
    Route { path: "/v2/models/{name}/config", method: "GET", codes: MODEL },
    Route { path: "/v2/models/{name}/versions/{version}/config", method: "GET", codes: MODEL },
    Route { path: "/v2/models/{name}/stats", method: "GET", codes: MODEL },
    Route { path: "/v2/models/{name}/versions/{version}/stats", method: "GET", codes: MODEL },
    Route { path: "/v2/models/{name}/infer", method: "POST", codes: INFER },
    Route { path: "/v2/models/{name}/versions/{version}/infer", method: "POST", codes: INFER },
];

/// The calls that `--grpc-listen` adds.
pub const GRPC_ROUTES: &[Route] = &[
    Route { path: "/inference.GRPCInferenceService/ServerLive", method: "POST", codes: &[MESSAGE] },
    Route { path: "/inference.GRPCInferenceService/ServerReady", method: "POST", codes: &[MESSAGE] },
    Route { path: "/inference.GRPCInferenceService/ModelReady", method: "POST", codes: &[MESSAGE, &[NotFound]] },
    Route { path: "/inference.GRPCInferenceService/ServerMetadata", method: "POST", codes: CALL },
    Route { path: "/inference.GRPCInferenceService/ModelMetadata", method: "POST", codes: CALL },
    Route { path: "/inference.GRPCInferenceService/ModelConfig", method: "POST", codes: CALL },
    Route { path: "/inference.GRPCInferenceService/ModelStatistics", method: "POST", codes: CALL },
    Route { path: "/inference.GRPCInferenceService/ModelInfer", method: "POST", codes: INFER },
    Route { path: "/grpc.health.v1.Health/Check", method: "POST", codes: &[MESSAGE, &[NotFound]] },
    Route { path: "/grpc.health.v1.Health/Watch", method: "POST", codes: &[MESSAGE] },
    Route { path: "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", method: "POST", codes: &[MESSAGE] },
    Route { path: "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", method: "POST", codes: &[MESSAGE] },
];

/// (route, method, statuses) of every series that can exist with a known method.
pub fn series() -> impl Iterator<Item = (&'static str, &'static str, Vec<u16>)> {
    series_of(ROUTES).chain([(UNMATCHED, "GET", vec![NotFound.status()])])
}

/// The same of these routes alone.
pub fn series_of(routes: &'static [Route]) -> impl Iterator<Item = (&'static str, &'static str, Vec<u16>)> {
    routes.iter().map(|route| (route.path, route.method, route.statuses()))
}
