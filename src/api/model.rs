//! `/v1/model`: what judges, by which rules, and within which limits.

use std::sync::Arc;

use axum::{Json, extract::State};
use serde::Serialize;
use utoipa::ToSchema;

use crate::{
    image::Format,
    judge::{Class, Evidence, OperatingPoint, RegionChoice, RegionRules, Warning, Weights},
    served::{Models, Served},
    server::AppState,
};

/// The model that is served; of several the one that judges what no route names, or their combination.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ModelResponse {
    #[serde(flatten)]
    model: ModelAbout,
    limits: LimitsInfo,
    /// All models, only where there are several; of a combination in the order of its weights.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    models: Vec<RoutedAbout>,
}

/// One of several models.
#[derive(Debug, Serialize, ToSchema)]
struct RoutedAbout {
    #[serde(flatten)]
    model: ModelAbout,
    /// The classes of file that it judges, alone or in the combination.
    classes: Vec<Class>,
}

/// A model.
#[derive(Debug, Serialize, ToSchema)]
struct ModelAbout {
    name: String,
    version: String,
    /// Digest of the weights.
    digest: String,
    /// Digest of all else that can change an answer: the manifest's rules and evidence, and the server's settings.
    rules: String,
    /// What the licences of the training data allow.
    licence_class: String,
    /// `crop`: regions of the input's size are judged; `resize`: the whole picture, brought to that size.
    preprocessing: &'static str,
    /// Width and height of the network's input.
    input: [u32; 2],
    /// Whether `/v1/explain` is answered; a graph without Top-K places cannot be explained.
    explains: bool,
    /// How many regions are judged, unless a caller asks for another number.
    regions: RegionChoice,
    /// The rules of `auto`, and of when regions disagree. Null for a model that judges one region.
    region_rules: Option<RegionRules>,
    /// The operating point in force. Null for a model without evidence, and where the operator set a threshold.
    operating_point: Option<OperatingPoint>,
    /// By class of file: calibration, and how validation pictures score. Null for a model without evidence.
    evidence: Option<Evidence>,
    /// By class of file: what the logits of the models are multiplied with, in the order of `models`. Only of a combination.
    #[serde(skip_serializing_if = "Option::is_none")]
    weights: Option<Weights>,
    /// Score above which an image counts as fake where a threshold decides.
    threshold: f64,
    /// Scores between which it is uncertain then.
    band: Option<[f64; 2]>,
    /// Warnings that make the verdict uncertain, and score and logit null.
    voiding: Vec<Warning>,
    /// How good the model is, as its export measured it.
    figures: serde_json::Value,
}

/// What this server takes.
#[derive(Debug, Serialize, ToSchema)]
struct LimitsInfo {
    /// Formats, told by the content.
    formats: Vec<&'static str>,
    /// Largest request body.
    max_body_bytes: u64,
    /// Most pixels of an image.
    max_pixels: u64,
    /// Smallest width and height.
    min_side: u32,
    /// Images in one request.
    max_batch_images: usize,
}

impl ModelAbout {
    fn of(Served { manifest, judge }: &Served) -> Self {
        let rules = judge.rules();
        Self {
            name: manifest.name.clone(),
            version: manifest.version.clone(),
            digest: manifest.digest.clone(),
            rules: judge.digest().to_owned(),
            licence_class: manifest.licence_class.clone(),
            preprocessing: manifest.preprocessing.as_str(),
            input: manifest.preprocessing.input(),
            explains: manifest.explains(),
            regions: judge.settings().regions,
            region_rules: rules.regions,
            operating_point: judge.operating_point(),
            evidence: rules.evidence.clone(),
            weights: rules.weights.clone(),
            threshold: judge.threshold(),
            band: rules.band,
            voiding: rules.voiding.clone(),
            figures: manifest.metrics.clone(),
        }
    }
}

impl RoutedAbout {
    /// All models, if there are several.
    fn all(models: &Models) -> Vec<Self> {
        let about = |(number, served)| Self { model: ModelAbout::of(served), classes: models.classes_of(number) };
        models.listed().filter(|_| models.are_several()).map(about).collect()
    }
}

/// What judges, by which rules, and within which limits.
#[utoipa::path(get, path = "/v1/model", tag = "model", security(("bearer" = []), ("api_key" = []), ()),
    responses((status = 200, description = "The model", body = ModelResponse)))]
pub(super) async fn model(State(state): State<Arc<AppState>>) -> Json<ModelResponse> {
    let limits = &state.config.limits;
    let images = limits.image();
    let read = Format::ALL.into_iter().filter(|&format| images.reads(format));
    Json(ModelResponse {
        model: ModelAbout::of(state.models.first()),
        limits: LimitsInfo {
            formats: read.map(Format::as_str).collect(),
            max_body_bytes: limits.max_body_bytes.as_u64(),
            max_pixels: limits.max_pixels.0,
            min_side: limits.min_side,
            max_batch_images: state.config.max_batch_images,
        },
        models: RoutedAbout::all(&state.models),
    })
}
