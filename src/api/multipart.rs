//! Multipart bodies as clients write them: files under any name, settings beside them.

use std::convert::Infallible;

use bytes::Bytes;
use futures_util::{FutureExt, future::ready, stream};
use multer::Field;

use super::{
    contents::{Contents, Part, too_many},
    fields::{bad, id, shown},
};
use crate::error::Error;

/// Names under which clients send a file without saying that it is one.
const FILE_NAMES: &[&str] = &["image", "images", "file", "files", "upload"];

/// Most bytes of a field that is no file.
const LONGEST_FIELD: usize = 4096;

/// Most memory that [`read`] takes beside the body: the parser's copy. The parts are views of it.
pub(super) fn copied(body: &[u8]) -> u64 {
    body.len() as u64
}

/// Reads a form with at most `most` files.
///
/// # Errors
/// `bad_request`, `too_many_images`.
pub(super) fn read(body: Bytes, boundary: String, most: usize) -> Result<Contents, Error> {
    // All of the body is here, so nothing waits.
    parse(body, boundary, most).now_or_never().unwrap_or_else(|| Err(bad("the multipart body is malformed")))
}

async fn parse(body: Bytes, boundary: String, most: usize) -> Result<Contents, Error> {
    let mut form = multer::Multipart::new(stream::once(ready(Ok::<_, Infallible>(body))), boundary);
    let mut contents = Contents::default();
    while let Some(field) = form.next_field().await.map_err(broken)? {
        let name = base_name(field.name().unwrap_or_default()).to_owned();
        check_encoding(&field, &name)?;
        if is_file(&field, &name) {
            if contents.images.len() == most {
                return Err(too_many(most));
            }
            let id = field.file_name().map(|name| id(name.to_owned())).transpose()?;
            let bytes = bytes(field).await?;
            contents.images.push(Ok(Part { id, bytes }));
        } else {
            contents.fields.check(&name, "image")?;
            let value = bytes(field).await?;
            if value.len() > LONGEST_FIELD {
                return Err(bad(format!("the form field `{name}` is longer than {LONGEST_FIELD} bytes")));
            }
            let value =
                String::from_utf8(value.into()).map_err(|_| bad(format!("the form field `{name}` is no text")))?;
            // A form sends a field that was left empty.
            if !value.is_empty() {
                contents.fields.push(name, value)?;
            }
        }
    }
    Ok(contents)
}

/// Without what marks a list: `image[]`, `image[0]`.
fn base_name(name: &str) -> &str {
    name.strip_suffix(']').and_then(|name| name.rsplit_once('[')).map_or(name, |(name, _)| name)
}

fn is_file(field: &Field<'_>, name: &str) -> bool {
    let typed = field.content_type().is_some_and(|kind| kind.type_() != "text" && kind.subtype() != "json");
    field.file_name().is_some() || typed || FILE_NAMES.contains(&name)
}

/// HTTP has no transfer encodings of parts (RFC 7578, section 4.7); mail has.
fn check_encoding(field: &Field<'_>, name: &str) -> Result<(), Error> {
    let Some(encoding) = field.headers().get("content-transfer-encoding") else { return Ok(()) };
    let encoding = encoding.to_str().unwrap_or("unreadable").trim();
    if ["binary", "8bit", "7bit"].iter().any(|identity| encoding.eq_ignore_ascii_case(identity)) {
        return Ok(());
    }
    let (name, encoding) = (shown(name), shown(encoding));
    Err(bad(format!("the part `{name}` has Content-Transfer-Encoding: {encoding}; send the file's bytes as they are")))
}

/// A part's content. What lies in the parser's buffer as a whole is not copied.
async fn bytes(mut field: Field<'_>) -> Result<Bytes, Error> {
    let mut bytes = field.chunk().await.map_err(broken)?.unwrap_or_default();
    while let Some(more) = field.chunk().await.map_err(broken)? {
        bytes = [bytes, more].concat().into();
    }
    Ok(bytes)
}

fn broken(error: multer::Error) -> Error {
    use multer::Error::{IncompleteFieldData, IncompleteHeaders, IncompleteStream};
    bad(match error {
        IncompleteFieldData { .. } | IncompleteHeaders | IncompleteStream => {
            "the multipart body ends before its last boundary: check the boundary in Content-Type, and that all of the \
             body was sent"
                .into()
        }
        error => format!("the multipart body is malformed: {}", shown(&error.to_string())),
    })
}
