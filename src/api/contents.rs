//! What the body of a request holds, whatever its form.

use bytes::Bytes;

use super::fields::Fields;
use crate::error::{Code, Error};

/// One image of a request.
#[derive(Debug)]
pub(super) struct Part {
    /// The caller's name for it: `id` in JSON, the file name in multipart.
    pub(super) id: Option<String>,
    /// The file.
    pub(super) bytes: Bytes,
}

/// What a body holds. An image that cannot be read fails alone, with its name.
#[derive(Debug, Default)]
pub(super) struct Contents {
    pub(super) images: Vec<Result<Part, (Option<String>, Error)>>,
    /// Settings beside the images.
    pub(super) fields: Fields,
}

/// The refusal of more images than the route takes.
pub(super) fn too_many(most: usize) -> Error {
    Error::new(Code::TooManyImages, format!("the request holds more images than the limit of {most}"))
}
