//! `/v1/explain`.

use std::sync::Arc;

use axum::{
    Extension, Json,
    body::Body,
    extract::{RawQuery, State},
    http::{HeaderMap, HeaderValue, header},
    response::{IntoResponse, Response},
};

use super::{
    accept,
    score::{Received, judge, receive},
    wire::{ExplainResponse, RequestHeaders, ScoreQuery},
};
use crate::{
    answer::{AttributionInfo, caption},
    error::Error,
    judge::Asked,
    served::Served,
    server::{AppState, RequestContext, counted},
};

/// What the route can answer with; the first where the caller does not care.
const OFFERS: &[(&str, &str)] = &[("application", "json"), ("image", "png")];

/// Judge one image and say where the evidence lies.
///
/// Takes what `/v1/score` takes. The logit is a sum over the places of a 30 x 30 map: `application/json` gives it
/// number by number, `image/png` draws it on the picture, upright.
#[utoipa::path(post, path = "/v1/explain", tag = "score", security(("bearer" = []), ("api_key" = []), ()),
    params(ScoreQuery, RequestHeaders),
    request_body(description = "The image", content((Vec<u8> = "application/octet-stream"), (super::wire::ScoreRequest = "application/json"), (super::wire::ImageForm = "multipart/form-data"))),
    responses((status = 200, description = "The judgement and its attribution, or the overlay", content((ExplainResponse = "application/json"), (Vec<u8> = "image/png")))))]
pub(super) async fn explain(
    State(state): State<Arc<AppState>>,
    Extension(context): Extension<RequestContext>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Error> {
    let explained = counted(&state.metrics, &context, async {
        let form = accept::negotiate(&headers, OFFERS)?;
        // Before the body is read, where no image changes it.
        state.models.check(&Asked { explained: true, ..Asked::default() })?;
        let Received { query, scheduler, job } = receive(&state, &context, query, &headers, body).await?;
        let (upload, deadline) = (job.payload.clone(), job.deadline);
        let asked = Asked { explained: true, ..query.asked() };
        let (result, judgement, scored) = judge(&state, scheduler, &context, &query, asked, job).await?;
        let attribution = scored.attribution(judgement.calibration.a, judgement.calibration.b)?;
        if form == "png" {
            let Served { manifest, judge } = &state.models.all()[scored.assigned.first.model];
            let caption = caption(&judgement, manifest, judge);
            let png = scheduler.overlay(upload, &scored, attribution, caption, deadline).await?;
            return Ok(([(header::CONTENT_TYPE, HeaderValue::from_static("image/png"))], png).into_response());
        }
        let attribution = AttributionInfo::new(&attribution, &scored.image.header);
        Ok(Json(ExplainResponse { result, attribution }).into_response())
    });
    explained.await
}
