//! The OpenAPI 3.1 document, made from the handlers and the wire types, so that it cannot drift from them.

use utoipa::{
    OpenApi,
    openapi::{
        ContentBuilder, RefOr, Response, ResponseBuilder,
        schema::Ref,
        security::{ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityScheme},
    },
};

use crate::error::Code;

use super::{explain, probes, problem::Problem, routes::ROUTES, score, wire};

#[derive(OpenApi)]
#[openapi(
    info(
        title = "lfm-serve",
        description = "Real or generated? Scores from the LFM detector. Errors are `application/problem+json` (RFC 9457) with a stable `code`.",
        license(name = "Apache-2.0", identifier = "Apache-2.0")
    ),
    paths(score::score, score::score_batch, explain::explain, probes::livez, probes::readyz, probes::startupz),
    components(schemas(Problem, wire::ImageForm, wire::ImagesForm))
)]
struct Document;

const KEYS: &str = "Asked for only by a server that runs with --api-keys-file.";

/// The document as JSON, indented.
pub fn document() -> String {
    let mut document = Document::openapi();
    let bearer = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).description(Some(KEYS)).build();
    let header = ApiKey::Header(ApiKeyValue::with_description("X-API-Key", KEYS));
    let components = document.components.get_or_insert_default();
    components.add_security_scheme("bearer", SecurityScheme::Http(bearer));
    components.add_security_scheme("api_key", SecurityScheme::ApiKey(header));
    for route in ROUTES {
        let Some(item) = document.paths.paths.get_mut(route.path) else { continue };
        let operation = match route.method {
            "POST" => item.post.as_mut(),
            _ => item.get.as_mut(),
        };
        let Some(operation) = operation else { continue };
        // A status that several codes share lists them all.
        for status in route.codes().map(Code::status) {
            let codes: Vec<_> = route
                .codes()
                .filter(|code| code.status() == status)
                .map(|code| format!("`{}`: {}.", code.as_str(), code.title()))
                .collect();
            let response = problem_response(&codes.join(" "));
            operation.responses.responses.insert(status.to_string(), RefOr::T(response));
        }
    }
    // Serialising a document of strings and maps cannot fail.
    document.to_pretty_json().unwrap_or_default()
}

fn problem_response(description: &str) -> Response {
    let content = ContentBuilder::new().schema(Some(Ref::from_schema_name("Problem"))).build();
    ResponseBuilder::new().description(description).content("application/problem+json", content).build()
}
