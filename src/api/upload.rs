//! The forms in which images come: a raw body, multipart, JSON with base64.

use axum::http::{HeaderMap, header};
use bytes::Bytes;
use tokio::task::spawn_blocking;

use super::{
    contents::{Contents, Part},
    fields::{Fields, bad, shown},
    json::{self, Count},
    multipart,
};
use crate::{
    error::{Code, Error},
    scheduler::{Scheduler, Share},
};

/// What a request's content type says of its body.
#[derive(Debug, PartialEq, Eq)]
enum Form {
    Raw,
    /// What curl says of a body unless told otherwise.
    UrlEncoded,
    Multipart(String),
    Json,
}

/// Bodies above this many bytes are not parsed on an async thread.
const LARGE: usize = 64 * 1024;

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
        Form::Raw | Form::UrlEncoded => {
            Err(unsupported("several images come as multipart/form-data or application/json"))
        }
        Form::Multipart(_) | Form::Json => Ok(()),
    }
}

/// The one image of a request, the settings beside it, and the share of the bytes that stay held.
///
/// # Errors
/// `bad_request`, `unsupported_media_type`, `empty_body`; `overloaded` when reading it takes more bytes than are free.
pub(super) async fn single(
    headers: &HeaderMap,
    body: Bytes,
    held: Share,
    scheduler: &Scheduler,
) -> Result<(Bytes, Fields, Share), Error> {
    let (contents, held) = contents(headers, body, held, Count::One, scheduler).await?;
    let Contents { mut images, fields } = contents;
    let image = images.pop().ok_or_else(|| {
        bad(format!("the form has no file: send it as a part named `image`, with a file name{}", Fields::known()))
    })?;
    Ok((image.map_err(|(_, error)| error)?.bytes, fields, held))
}

/// The images of a request, at most `most`, in order. Otherwise as [`single`].
///
/// # Errors
/// Those of [`single`]; `too_many_images`.
pub(super) async fn several(
    headers: &HeaderMap,
    body: Bytes,
    held: Share,
    most: usize,
    scheduler: &Scheduler,
) -> Result<(Contents, Share), Error> {
    let (contents, held) = contents(headers, body, held, Count::UpTo(most), scheduler).await?;
    if contents.images.is_empty() { Err(bad("the request holds no image")) } else { Ok((contents, held)) }
}

async fn contents(
    headers: &HeaderMap,
    body: Bytes,
    held: Share,
    count: Count,
    scheduler: &Scheduler,
) -> Result<(Contents, Share), Error> {
    let form = form(headers)?;
    let raw = |bytes: Bytes| Contents { images: vec![Ok(Part { id: None, bytes })], fields: Fields::default() };
    // What stays held, and what is held until the body is parsed.
    let (kept, freed) = match form {
        Form::Raw | Form::UrlEncoded => {
            if form == Form::UrlEncoded {
                check_url_encoded(&body)?;
            }
            return Ok((raw(body), held));
        }
        Form::Multipart(_) => (held, vec![scheduler.admit_bytes(multipart::copied(&body))?]),
        Form::Json => {
            let decoded = scheduler.admit_bytes(json::decoded(&body))?;
            (decoded, vec![scheduler.admit_bytes(json::unescaped(&body))?, held])
        }
    };
    let large = body.len() > LARGE;
    let parse = move || {
        let contents = match form {
            Form::Multipart(boundary) => {
                let most = match count {
                    Count::One => 1,
                    Count::UpTo(most) => most,
                };
                multipart::read(body, boundary, most)
            }
            _ => json::read(body, count),
        };
        // Here, where the bytes are: a request that is given up holds its shares until its parsing ends.
        drop(freed);
        contents.map(|contents| (contents, kept))
    };
    if large { spawn_blocking(parse).await.map_err(|_| Error::inference_failed())? } else { parse() }
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
        "application/x-www-form-urlencoded" => Ok(Form::UrlEncoded),
        "multipart/form-data" => multer::parse_boundary(value).map(Form::Multipart).map_err(|_| {
            bad("the Content-Type header names no multipart boundary: leave the header to the HTTP library")
        }),
        // The subtype is not believed: SVG is refused for what it holds.
        image if image.starts_with("image/") => Ok(Form::Raw),
        other => Err(unsupported(&format!(
            "`{}` is not taken: send the image as image/*, application/octet-stream, multipart/form-data or \
             application/json",
            shown(other)
        ))),
    }
}

/// curl's type for `-d` and `--data-binary`: the image is in the body all the same, unless `-d` has damaged it or the body
/// really is a form.
fn check_url_encoded(body: &[u8]) -> Result<(), Error> {
    if body.is_ascii() && body.contains(&b'=') {
        return Err(unsupported(
            "the body is a form without a file: send it as multipart/form-data (curl -F image=@photo.jpg)",
        ));
    }
    // Every byte value is common in an image of this size.
    const SURE: usize = 4096;
    if body.len() >= SURE && !body.iter().any(|byte| matches!(byte, b'\0' | b'\r' | b'\n')) {
        return Err(bad("the file has lost its line ends and NUL bytes, as with curl -d: use --data-binary or -F"));
    }
    Ok(())
}

fn unsupported(detail: &str) -> Error {
    Error::new(Code::UnsupportedMediaType, detail)
}
