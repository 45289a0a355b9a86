//! `/v1`: the HTTP API. `score`, `batch` and `explain` are short handlers over one `judge`.

mod accept;
mod contents;
mod explain;
mod fields;
mod json;
mod model;
mod multipart;
pub mod openapi;
mod score;
mod upload;
mod wire;

use std::sync::Arc;

use axum::{
    Router,
    routing::{get, post},
};

use crate::{
    error::Code::*,
    server::{
        self, AppState, Route,
        codes::{BODY, IMAGE},
    },
};

/// The API's routes.
pub const ROUTES: &[Route] = &[
    Route { path: "/v1/score", method: "POST", codes: &[BODY, IMAGE] },
    Route { path: "/v1/score/batch", method: "POST", codes: &[BODY, &[TooManyImages]] },
    Route { path: "/v1/explain", method: "POST", codes: &[BODY, IMAGE, &[NotAcceptable, NotExplainable]] },
    Route { path: "/v1/model", method: "GET", codes: &[&[Unauthorized]] },
    Route { path: "/openapi.json", method: "GET", codes: &[] },
];

/// Their handlers.
pub fn router(state: &Arc<AppState>) -> Router<Arc<AppState>> {
    let work = Router::new()
        .route("/v1/score", post(score::score))
        .route("/v1/score/batch", post(score::score_batch))
        .route("/v1/explain", post(explain::explain))
        .route("/v1/model", get(model::model));
    server::behind_keys(work, state).route("/openapi.json", get(openapi::openapi_json))
}
