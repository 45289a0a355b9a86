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
    wire::{AttributionInfo, ExplainResponse, RequestHeaders, ScoreQuery},
};
use crate::{
    error::Error,
    explain::Caption,
    judge::{Judge, Judgement},
    model::Manifest,
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
        // Before the body is read: no image changes it.
        if !state.manifest.explains() {
            return Err(Error::not_explainable());
        }
        let Received { query, scheduler, upload, permit, deadline } =
            receive(&state, &context, query, &headers, body).await?;
        let (result, judgement, scored) =
            judge(&state, scheduler, &context, &query, upload.clone(), permit, deadline).await?;
        let attribution = scored.attribution(judgement.calibration.a, judgement.calibration.b)?;
        if form == "png" {
            let caption = caption(&judgement, &state.manifest, &state.judge);
            let png = scheduler.overlay(upload, &scored, attribution, caption, deadline).await?;
            return Ok(([(header::CONTENT_TYPE, HeaderValue::from_static("image/png"))], png).into_response());
        }
        let attribution = AttributionInfo::new(&attribution, &scored.image.header);
        Ok(Json(ExplainResponse { result, attribution }).into_response())
    });
    explained.await
}

/// What the overlay says of a judgement in words.
pub(crate) fn caption(judgement: &Judgement, manifest: &Manifest, judge: &Judge) -> Caption {
    let score = judgement.score.map_or("no score".into(), |score| format!("score {score:.4}"));
    let logit = judgement.logit.map_or(String::new(), |logit| format!(", logit {logit:+.3}"));
    let mut lines = Vec::new();
    if let Some(found) = &judgement.evidence {
        let class = found.class.as_str();
        lines.push(match (found.real_at_or_above, found.fake_at_or_below) {
            (Some(above), Some(below)) => {
                let [above, below] = [above, below].map(|share| format!("{:.1} %", 100.0 * share));
                format!("Of real files like this ({class}) {above} score as high, of generated ones {below} as low")
            }
            _ => format!("class of file: {class}"),
        });
    }
    if !judgement.warnings.is_empty() {
        let words: Vec<_> = judgement.warnings.iter().map(|warning| warning.as_str()).collect();
        lines.push(format!("warnings: {}", words.join(", ")));
    }
    let (digest, rules) = (short(&manifest.digest), short(judge.digest()));
    lines.push(format!("model {} {}, {digest}, rules {rules}", manifest.name, manifest.version));
    Caption { heading: format!("{}, {score}{logit}", judgement.verdict.as_str()), lines }
}

/// As many digits of a digest as tell models apart.
fn short(digest: &str) -> &str {
    const DIGITS: usize = "sha256:".len() + 12;
    digest.get(..DIGITS).unwrap_or(digest)
}
