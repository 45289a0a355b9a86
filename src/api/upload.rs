//! The forms in which images come: a raw body, multipart, JSON with base64.

use axum::http::{HeaderMap, header};
use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::Bytes;
use futures_util::{future::ready, stream};
use serde::de::DeserializeOwned;
use tokio::task::spawn_blocking;

use super::wire::{BatchRequest, ScoreRequest};
use crate::error::{Code, Error};

/// Name of the multipart parts that hold images.
const PART: &str = "image";

/// One image of a request.
#[derive(Debug)]
pub(super) struct Part {
    /// The caller's name for it: `id` in JSON, the file name in multipart.
    pub(super) id: Option<String>,
    /// The file.
    pub(super) bytes: Bytes,
}

/// What a request's content type says of its body.
#[derive(Debug, PartialEq, Eq)]
enum Form {
    Raw,
    Multipart(String),
    Json,
}

/// Whether the body's type is one that a single image can come in, told from the head alone.
///
/// # Errors
/// `unsupported_media_type`, `bad_request`.
pub(super) fn check_single(headers: &HeaderMap) -> Result<(), Error> {
    form(headers).map(drop)
}

/// As [`check_single`], for several images.
///
/// # Errors
/// `unsupported_media_type`, `bad_request`.
pub(super) fn check_batch(headers: &HeaderMap) -> Result<(), Error> {
    match form(headers)? {
        Form::Raw => Err(unsupported("several images come as multipart/form-data or application/json")),
        Form::Multipart(_) | Form::Json => Ok(()),
    }
}

/// The one image of a request.
///
/// # Errors
/// `bad_request`, `unsupported_media_type`, `empty_body`.
pub(super) async fn single(headers: &HeaderMap, body: Bytes) -> Result<Bytes, Error> {
    match form(headers)? {
        Form::Raw => Ok(body),
        Form::Json => {
            let request: ScoreRequest = json(body.clone()).await?;
            base64_image(request.image).await
        }
        Form::Multipart(boundary) => {
            let mut parts = multipart(body, boundary, 1).await?;
            let part = parts.pop().ok_or_else(|| bad("the multipart body has no part named `image`"))?;
            Ok(part.bytes)
        }
    }
}

/// The images of a request, at most `most`, in order.
///
/// # Errors
/// `bad_request`, `unsupported_media_type`, `too_many_images`.
pub(super) async fn several(
    headers: &HeaderMap,
    body: Bytes,
    most: usize,
) -> Result<Vec<Result<Part, (Option<String>, Error)>>, Error> {
    let parts = match form(headers)? {
        Form::Raw => return Err(unsupported("several images come as multipart/form-data or application/json")),
        Form::Multipart(boundary) => multipart(body, boundary, most).await?.into_iter().map(Ok).collect(),
        Form::Json => {
            let request: BatchRequest = json(body).await?;
            if request.images.len() > most {
                return Err(too_many(most));
            }
            let mut parts = Vec::with_capacity(request.images.len());
            for image in request.images {
                // One image that is not base64 fails alone.
                parts.push(match base64_image(image.image).await {
                    Ok(bytes) => Ok(Part { id: image.id, bytes }),
                    Err(error) => Err((image.id, error)),
                });
            }
            parts
        }
    };
    if parts.is_empty() { Err(bad("the request holds no image")) } else { Ok(parts) }
}

fn form(headers: &HeaderMap) -> Result<Form, Error> {
    let Some(value) = headers.get(header::CONTENT_TYPE) else {
        // The content is sniffed anyway: what came without a label is taken as it is.
        return Ok(Form::Raw);
    };
    let value = value.to_str().map_err(|_| bad("the Content-Type header is not ASCII"))?;
    let essence = value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    match essence.as_str() {
        "application/json" => Ok(Form::Json),
        "application/octet-stream" => Ok(Form::Raw),
        "multipart/form-data" => multer::parse_boundary(value)
            .map(Form::Multipart)
            .map_err(|_| bad("the Content-Type header names no multipart boundary")),
        // The subtype is not believed: SVG is refused for what it holds.
        image if image.starts_with("image/") => Ok(Form::Raw),
        _ => Err(unsupported(
            "send the image as image/*, application/octet-stream, multipart/form-data or application/json",
        )),
    }
}

async fn multipart(body: Bytes, boundary: String, most: usize) -> Result<Vec<Part>, Error> {
    let broken = |error: multer::Error| bad(format!("the multipart body is malformed: {error}"));
    let mut form = multer::Multipart::new(stream::once(ready(Ok::<_, std::convert::Infallible>(body))), boundary);
    let mut parts = Vec::new();
    while let Some(field) = form.next_field().await.map_err(broken)? {
        if field.name() != Some(PART) {
            return Err(bad("every part of the multipart body is named `image`"));
        }
        if parts.len() == most {
            return Err(too_many(most));
        }
        let id = field.file_name().map(str::to_owned);
        let bytes = field.bytes().await.map_err(broken)?;
        parts.push(Part { id, bytes });
    }
    Ok(parts)
}

/// Parses JSON off the async threads: a body can be tens of megabytes.
async fn json<T: DeserializeOwned + Send + 'static>(body: Bytes) -> Result<T, Error> {
    spawn_blocking(move || {
        serde_json::from_slice(&body)
            .map_err(|error| bad(format!("the JSON body is not what this route takes: {error}")))
    })
    .await
    .map_err(|_| Error::inference_failed())?
}

async fn base64_image(text: String) -> Result<Bytes, Error> {
    let decoded = spawn_blocking(move || BASE64_STANDARD.decode(text)).await.map_err(|_| Error::inference_failed())?;
    decoded.map(Bytes::from).map_err(|error| bad(format!("`image` is not base64 (RFC 4648): {error}")))
}

fn bad(detail: impl Into<String>) -> Error {
    Error::new(Code::BadRequest, detail)
}

fn unsupported(detail: &str) -> Error {
    Error::new(Code::UnsupportedMediaType, detail)
}

fn too_many(most: usize) -> Error {
    Error::new(Code::TooManyImages, format!("the request holds more images than the limit of {most}"))
}
