//! What goes over the wire, as types: serde writes them, OpenAPI describes them.

use std::{sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::{
    answer::{AttributionInfo, EvidenceInfo, ImageInfo, JudgedInfo},
    declared::Declared,
    image::ImageFacts,
    judge::{Asked, Judgement, Part, RegionChoice, Verdict, Warning},
    served::{Choice, Models},
    server::probes::ModelInfo,
    timings::Timings,
};

/// The judgement of one image.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ScoreResponse {
    /// The request's id.
    #[schema(value_type = String)]
    pub(super) id: Arc<str>,
    /// The caller's own id for the image.
    pub(super) external_id: Option<String>,
    pub(super) verdict: Verdict,
    /// Probability that the image is generated: the sigmoid of the logit. Null under a warning that voids the verdict.
    #[schema(minimum = 0.0, maximum = 1.0)]
    pub(super) score: Option<f64>,
    /// Log-odds of fake, calibrated for the class of file: it tells scores apart where the sigmoid saturates. Null under
    /// a warning that voids the verdict.
    pub(super) logit: Option<f32>,
    /// The network's own output, the mean over the regions.
    pub(super) logit_raw: f32,
    /// The score above which the image counts as fake. Null where the evidence decides.
    #[schema(minimum = 0.0, maximum = 1.0)]
    pub(super) threshold: Option<f64>,
    /// What weakens the score.
    pub(super) warnings: Vec<Warning>,
    pub(super) judged: JudgedInfo,
    /// What the verdict rests on. Null for a model without evidence.
    pub(super) evidence: Option<EvidenceInfo>,
    /// What the file says of itself. It can be stripped and forged, and never moves the score. Null where the server does
    /// not report it.
    pub(super) declared: Option<Declared>,
    pub(super) model: ModelInfo,
    /// The models whose logits were combined, each with its part; only where several judge together.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) models: Vec<PartInfo>,
    pub(super) image: ImageInfo,
    pub(super) timings_ms: TimingsMs,
}

/// The part of one of several models in a judgement.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct PartInfo {
    #[serde(flatten)]
    model: ModelInfo,
    /// Its own output, the mean over its regions.
    logit_raw: f32,
    /// What the output is multiplied with in the class of file; the sum of these products is the answer's `logit_raw`.
    weight: f64,
}

/// Time spent, in milliseconds.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct TimingsMs {
    /// Decoding and resizing.
    decode: f64,
    /// Waiting, for a decoder and for a session.
    queue: f64,
    /// The run of the image's batch.
    inference: f64,
    /// From the request's head to here.
    total: f64,
}

impl TimingsMs {
    pub(super) fn new(timings: &Timings, total: Duration) -> Self {
        // Microseconds are as fine as the numbers mean anything.
        let ms = |time: Duration| (time.as_secs_f64() * 1e6).round() / 1e3;
        Self {
            decode: ms(timings.decode),
            queue: ms(timings.queue),
            inference: ms(timings.inference),
            total: ms(total),
        }
    }
}

impl ScoreResponse {
    pub(super) fn new(
        id: Arc<str>,
        external_id: Option<String>,
        models: &Models,
        judgement: &Judgement,
        image: &ImageFacts,
        declared: Option<&Declared>,
        timings_ms: TimingsMs,
    ) -> Self {
        let chosen = models.choose(Choice::ByClass, &image.header);
        let part = |(number, &Part { weight, logit_raw }): (usize, &Part)| PartInfo {
            model: ModelInfo::of(&models.all()[number]),
            logit_raw,
            weight,
        };
        Self {
            id,
            external_id,
            verdict: judgement.verdict,
            score: judgement.score,
            logit: judgement.logit,
            logit_raw: judgement.logit_raw,
            threshold: judgement.threshold,
            warnings: judgement.warnings.clone(),
            judged: JudgedInfo::new(judgement, &image.header),
            evidence: judgement.evidence.as_ref().map(EvidenceInfo::from),
            declared: declared.cloned(),
            model: ModelInfo::of(chosen.served),
            models: chosen.numbers().zip(&judgement.parts).map(part).collect(),
            image: image.into(),
            timings_ms,
        }
    }
}

/// The judgement of one image, and why.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ExplainResponse {
    #[serde(flatten)]
    pub(super) result: ScoreResponse,
    pub(super) attribution: AttributionInfo,
}

/// Query of the scoring routes.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct ScoreQuery {
    /// The caller's own id for the image, sent back as it is; at most 200 bytes.
    pub(super) external_id: Option<String>,
    /// Score above which the image counts as fake, in place of the manifest's or of the evidence; the manifest's band
    /// moves with it.
    #[param(minimum = 0.0, maximum = 1.0)]
    pub(super) threshold: Option<f64>,
    /// Share of real validation pictures of the image's class of file that may score as high as one that is called
    /// fake, in place of the server's operating point. Not together with `threshold`.
    #[param(minimum = 0.0, maximum = 1.0)]
    pub(super) max_false_alarms: Option<f64>,
    /// Regions of the picture that are judged, in place of the server's `--regions`.
    #[param(inline)]
    pub(super) regions: Option<RegionChoice>,
}

impl ScoreQuery {
    /// What it asks of the judge.
    pub(super) fn asked(&self) -> Asked {
        let &Self { threshold, max_false_alarms, regions, .. } = self;
        Asked { threshold, max_false_alarms, regions, explained: false }
    }
}

/// Headers that the scoring routes take note of, for the document: each is read where it is used.
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
#[expect(dead_code, reason = "described, not read")]
pub(super) struct RequestHeaders {
    /// The caller's deadline in milliseconds; the server's own is the most
    #[param(rename = "X-Request-Timeout-Ms", minimum = 1)]
    timeout: Option<u64>,
    /// Taken over, or made; sent back
    #[param(rename = "X-Request-Id")]
    id: Option<String>,
    /// `text` or `json`: the answer carries an ORCA load report in `endpoint-load-metrics`, for load balancers
    #[param(rename = "Endpoint-Load-Metrics-Format")]
    load_metrics_format: Option<String>,
}

/// One image as JSON. The query's parameters are taken as fields too.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "read by the OpenAPI document alone")]
pub(super) struct ScoreRequest {
    /// The file's bytes in base64 (RFC 4648): either alphabet, padded or not, in lines or not, alone or as a `data:`
    /// URL.
    #[schema(content_encoding = "base64")]
    image: String,
}

/// One image as a multipart form. The file may have any name; the query's parameters are
/// taken as fields too.
#[derive(ToSchema)]
#[expect(dead_code, reason = "read by the OpenAPI document alone")]
pub(super) struct ImageForm {
    /// The file.
    #[schema(value_type = String, format = Binary)]
    image: Vec<u8>,
}

/// Several images as a multipart form. The query's parameters are taken as fields too.
#[derive(ToSchema)]
#[expect(dead_code, reason = "read by the OpenAPI document alone")]
pub(super) struct ImagesForm {
    /// The files, each a part with a file name, which is its result's `id`.
    #[schema(value_type = Vec<String>)]
    image: Vec<Vec<u8>>,
}

/// Several images as JSON. The query's parameters are taken as fields too.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "read by the OpenAPI document alone")]
pub(super) struct BatchRequest {
    images: Vec<BatchImage>,
}

/// One image of several.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "read by the OpenAPI document alone")]
struct BatchImage {
    /// The caller's own id for the image, sent back as it is; at most 200 bytes.
    id: Option<String>,
    /// The file's bytes in base64 (RFC 4648), written as in a request with one image.
    #[schema(content_encoding = "base64")]
    image: String,
}

/// What became of each image, in the request's order.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct BatchResponse {
    pub(super) results: Vec<BatchResult>,
}

/// What became of one image of several.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct BatchResult {
    /// The caller's id; of a multipart request the part's file name.
    pub(super) id: Option<String>,
    #[serde(flatten)]
    pub(super) outcome: BatchOutcome,
}

/// A result or an error.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum BatchOutcome {
    /// The judgement.
    Result(Box<ScoreResponse>),
    /// Why there is none.
    Error(BatchError),
}

/// Why an image of several was not judged.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct BatchError {
    /// For programs.
    pub(super) code: &'static str,
    /// For people.
    pub(super) detail: String,
}
