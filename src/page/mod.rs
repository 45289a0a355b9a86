//! The pages for people, `/`, `/docs` and `/errors`, and what they load. All of it is in the binary: no other host is asked.

use std::sync::{Arc, LazyLock};

use axum::{
    Router,
    extract::Path,
    http::{HeaderName, HeaderValue, header},
    response::{IntoResponse, Response},
    routing::get,
};

use crate::{
    error::{
        Code::{self, NotFound},
        Error,
    },
    server::{AppState, Route},
};

/// The pages' routes.
pub const ROUTES: &[Route] = &[
    Route { path: "/", method: "GET", codes: &[] },
    Route { path: "/docs", method: "GET", codes: &[] },
    Route { path: "/errors", method: "GET", codes: &[] },
    Route { path: "/assets/{file}", method: "GET", codes: &[&[NotFound]] },
];

/// Their handlers.
pub fn router() -> Router<Arc<AppState>> {
    Router::new()
        .route("/", get(index))
        .route("/docs", get(docs))
        .route("/errors", get(errors))
        .route("/assets/{file}", get(asset))
}

const HTML: &str = "text/html; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";

/// What the pages load: name, media type, content.
const ASSETS: &[(&str, &str, &str)] = &[
    ("docs.js", SCRIPT, include_str!("docs.js")),
    ("icon.svg", "image/svg+xml", include_str!("icon.svg")),
    ("overlay.js", SCRIPT, include_str!("overlay.js")),
    ("page.js", SCRIPT, include_str!("page.js")),
    ("style.css", "text/css; charset=utf-8", include_str!("style.css")),
];

/// What a browser lets the pages do: load from here, talk to here, nothing else (CSP level 3).
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
    base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'";

const HEADERS: [(HeaderName, HeaderValue); 4] = [
    (header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY)),
    (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
    // A page belongs to the server's version.
    (header::CACHE_CONTROL, HeaderValue::from_static("no-cache")),
];

/// `GET /`: judge images in the browser.
async fn index() -> Response {
    answer(HTML, include_str!("index.html"))
}

/// `GET /docs`: the API document, to be read.
async fn docs() -> Response {
    answer(HTML, include_str!("docs.html"))
}

/// `GET /errors`: what each error code means, the place that a problem's `type` points to.
async fn errors() -> Response {
    answer(HTML, &ERRORS)
}

/// Made once: it does not change while the server runs.
static ERRORS: LazyLock<String> = LazyLock::new(|| {
    let row = |code: &Code| {
        let (name, remedy) = (code.as_str(), code.remedy().replace('<', "&lt;"));
        // Texts mark names as Markdown does.
        let remedy = remedy
            .split('`')
            .enumerate()
            .map(|(index, part)| if index % 2 == 1 { format!("<code>{part}</code>") } else { part.to_owned() });
        let remedy: String = remedy.collect();
        let (status, title) = (code.status(), code.title());
        format!(
            "<section id=\"{name}\"><h2><code>{name}</code> {status}</h2><p>{title}.</p><p>{remedy}</p></section>\n"
        )
    };
    include_str!("errors.html").replace("CODES\n", &Code::ALL.iter().map(row).collect::<String>())
});

/// `GET /assets/{file}`: what the pages load.
async fn asset(Path(file): Path<String>) -> Result<Response, Error> {
    let found = ASSETS.iter().find(|(name, ..)| *name == file);
    let (_, media_type, content) = found.ok_or_else(|| Error::new(Code::NotFound, "there is no such file"))?;
    Ok(answer(media_type, content))
}

fn answer(media_type: &'static str, content: &'static str) -> Response {
    (HEADERS, [(header::CONTENT_TYPE, HeaderValue::from_static(media_type))], content).into_response()
}
