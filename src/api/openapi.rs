//! The OpenAPI 3.1 document, made from the handlers and the wire types, so that it cannot drift from them.

use std::sync::LazyLock;

use axum::{
    body::Bytes,
    http::{HeaderValue, header},
    response::{IntoResponse, Response},
};
use serde_json::{Map, Value, json};
use utoipa::{
    OpenApi,
    openapi::security::{ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityScheme},
};

use super::{ROUTES, explain, model, score, wire};
use crate::{
    error::{Code, Error},
    server::{Problem, probes},
};

#[derive(OpenApi)]
#[openapi(
    info(
        title = "lfm-serve",
        description = "Real or generated? Scores from the LFM detector. Errors are `application/problem+json` (RFC 9457) with a stable `code`; other paths answer `not_found` (404), other methods `method_not_allowed` (405). The Open Inference Protocol under `/v2` has a specification of its own.",
        license(name = "Apache-2.0", identifier = "Apache-2.0")
    ),
    paths(
        score::score,
        score::score_batch,
        explain::explain,
        model::model,
        probes::livez,
        probes::readyz,
        probes::startupz,
        probes::metrics_text,
        openapi_json
    ),
    components(schemas(Problem, wire::ImageForm, wire::ImagesForm))
)]
struct Document;

const KEYS: &str = "Asked for only by a server that runs with --api-keys-file.";

/// The document as JSON, indented.
pub fn document() -> String {
    let mut document = Document::openapi();
    let bearer = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).description(Some(KEYS)).build();
    let api_key = ApiKey::Header(ApiKeyValue::with_description("X-API-Key", KEYS));
    let components = document.components.get_or_insert_default();
    components.add_security_scheme("bearer", SecurityScheme::Http(bearer));
    components.add_security_scheme("api_key", SecurityScheme::ApiKey(api_key));
    // Serialising a document of strings and maps cannot fail.
    let mut document = serde_json::to_value(document).unwrap_or_default();
    document["components"]["headers"] = headers();
    add_settings(&mut document);
    for route in ROUTES.iter().chain(probes::ROUTES) {
        let item = document["paths"].get_mut(route.path);
        let Some(operation) = item.and_then(|item| item.get_mut(route.method.to_ascii_lowercase())) else { continue };
        let responses = &mut operation["responses"];
        responses["200"]["headers"] = json!({"X-Request-Id": reference("X-Request-Id")});
        if let Some(example) = example(route.path) {
            responses["200"]["content"]["application/json"]["example"] = example;
        }
        if route.path == "/v1/explain" {
            responses["200"]["content"]["application/json"]["examples"] = explained();
        }
        for status in route.codes().map(Code::status) {
            let codes: Vec<_> = route.codes().filter(|code| code.status() == status).collect();
            responses[status.to_string()] = problem(&codes);
        }
    }
    // In one order, whether or not some other crate makes `serde_json` keep the order of insertion.
    document.sort_all_objects();
    serde_json::to_string_pretty(&document).unwrap_or_default()
}

/// This document.
#[utoipa::path(get, path = "/openapi.json", tag = "operation",
    responses((status = 200, description = "OpenAPI 3.1", body = serde_json::Value)))]
pub(super) async fn openapi_json() -> Response {
    static DOCUMENT: LazyLock<Bytes> = LazyLock::new(|| document().into());
    ([(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))], DOCUMENT.clone()).into_response()
}

/// The query's parameters, once more as fields of the bodies that carry them beside the image.
fn add_settings(document: &mut Value) {
    let parameters = document["paths"]["/v1/score"]["post"]["parameters"].clone();
    let parameters = parameters.as_array().into_iter().flatten().filter(|parameter| parameter["in"] == "query");
    for parameter in parameters {
        let (Some(name), mut schema) = (parameter["name"].as_str(), parameter["schema"].clone()) else { continue };
        schema["description"] = parameter["description"].clone();
        for body in ["ScoreRequest", "BatchRequest", "ImageForm", "ImagesForm"] {
            document["components"]["schemas"][body]["properties"][name] = schema.clone();
        }
    }
}

/// A status' answer. One that several codes share lists them all.
fn problem(codes: &[Code]) -> Value {
    let description: Vec<_> = codes.iter().map(|code| format!("`{}`: {}.", code.as_str(), code.title())).collect();
    let examples = codes.iter().map(|&code| {
        let problem = Problem::new(&Error::new(code, code.title()), "01a207dd-885b-7021-a269-c10a360e4355");
        (code.as_str().to_owned(), json!({"summary": code.title(), "value": problem}))
    });
    let mut headers = vec!["X-Request-Id"];
    if codes.contains(&Code::Overloaded) || codes.contains(&Code::Draining) {
        headers.push("Retry-After");
    }
    if codes.contains(&Code::Unauthorized) {
        headers.push("WWW-Authenticate");
    }
    json!({
        "description": description.join(" "),
        "headers": headers.into_iter().map(|name| (name.to_owned(), reference(name))).collect::<Map<_, _>>(),
        "content": {"application/problem+json": {
            "schema": {"$ref": "#/components/schemas/Problem"},
            "examples": examples.collect::<Map<_, _>>(),
        }},
    })
}

/// The headers of answers that callers rely on.
fn headers() -> Value {
    json!({
        "X-Request-Id": {"description": "The request's id: the caller's, or made.", "schema": {"type": "string"}},
        "Retry-After": {
            "description": "Seconds after which trying again makes sense. Always with `overloaded` and `draining`.",
            "schema": {"type": "integer", "minimum": 1},
        },
        "WWW-Authenticate": {"description": "How to send a key (RFC 6750).", "schema": {"type": "string"}},
    })
}

fn reference(name: &str) -> Value {
    json!({"$ref": format!("#/components/headers/{name}")})
}

/// What `/v1/explain` answers to the same picture.
fn explained() -> Value {
    let mut answer = example("/v1/score").unwrap_or_default();
    answer["attribution"] = serde_json::from_str(include_str!("attribution.json")).unwrap_or_default();
    json!({"rocket": {"summary": "`map` to five digits, `regions` cut to the first, `cells` to the first three", "value": answer}})
}

/// What a route answers to `tests/golden/images/orig_rocket.jpg`; README shows the same.
fn example(route: &str) -> Option<Value> {
    let scored: Value = serde_json::from_str(include_str!("example.json")).unwrap_or_default();
    match route {
        "/v1/score" => Some(scored),
        "/v1/score/batch" => {
            let error = json!({"code": "unsupported_format", "detail": "the bytes are no image in a supported format"});
            Some(json!({"results": [{"id": "rocket.jpg", "result": scored}, {"id": "notes.txt", "error": error}]}))
        }
        "/livez" | "/readyz" | "/startupz" => Some(json!({"status": "ok", "model": scored["model"]})),
        _ => None,
    }
}
