//! Every way a request can fail: one enum of codes, one mapping to an HTTP status.
//!
//! An [`Error`] is what a client may see. Its `detail` is written for that reader: no paths, no
//! backtraces, no library texts with pointers. What only the operator may see is logged where the
//! failure is handled, once.

use std::{fmt::Write, time::Duration};

use crate::image::ImageError;

/// Declares [`Code`] with its wire name, HTTP status, title and remedy, so that they stay together.
macro_rules! codes {
    ($($variant:ident $name:literal $status:literal $title:literal $remedy:literal;)*) => {
        /// A stable, machine-readable reason. Each has exactly one HTTP status.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Code {
            $(#[doc = concat!("`", $name, "`, HTTP ", $status, ": ", $title, ".")] $variant,)*
        }

        impl Code {
            /// Every code, in order of status.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// The name on the wire, e.g. `empty_body`.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// The HTTP status that carries this code.
            pub const fn status(self) -> u16 {
                match self { $(Self::$variant => $status,)* }
            }

            /// The short title of the problem for people (RFC 9457 `title`): the same for every occurrence.
            pub const fn title(self) -> &'static str {
                match self { $(Self::$variant => $title,)* }
            }

            /// What its reader can do about it. In docs/errors.md and at `/errors`, not in the answer itself.
            pub const fn remedy(self) -> &'static str {
                match self { $(Self::$variant => $remedy,)* }
            }
        }
    };
}

codes! {
    EmptyBody "empty_body" 400 "The body is empty"
        "Send the file's bytes; an empty file, or a form field without a file, are the usual causes.";
    BadRequest "bad_request" 400 "The request is malformed"
        "The detail names the part of the request that is wrong and what is accepted; correct the request.";
    Unauthorized "unauthorized" 401 "A valid API key is required"
        "Send the key as `Authorization: Bearer KEY` or `X-API-Key: KEY`; the operator makes keys with `lfm-serve key NAME`.";
    NotFound "not_found" 404 "No such route"
        "Check the path: images are sent to `/v1/score`, `/v1/score/batch` and `/v1/explain`, and `/docs` lists every route.";
    MethodNotAllowed "method_not_allowed" 405 "The route does not take this method"
        "Use a method that the `Allow` header of the answer names.";
    NotAcceptable "not_acceptable" 406 "None of the accepted media types can be produced"
        "Ask for a media type that the detail names, or leave the `Accept` header out.";
    BodyTimeout "body_timeout" 408 "The body did not arrive in time"
        "Send the body faster or make it smaller; the limit is `--body-timeout`.";
    Changed "changed" 409 "The object changed between listing and reading"
        "Only of `lfm-serve score --from`: run the same command again, which scores the object as it is then.";
    BodyTooLarge "body_too_large" 413 "The body is larger than the limit"
        "Send a smaller file; the limit in the detail is `--max-body-bytes`, and base64 adds a third to a file's size.";
    ImageTooLarge "image_too_large" 413 "The image has more pixels than the limit"
        "Send fewer pixels; the limit is `--max-pixels`. Shrinking an image changes what can be judged, so prefer a crop.";
    TooManyImages "too_many_images" 413 "The request holds more images than the limit"
        "Split the images over several requests; the limit of a batch is `--max-batch-images`, other routes take one image.";
    UnsupportedMediaType "unsupported_media_type" 415 "The content type is not supported"
        "Set `Content-Type` to `image/*`, `application/octet-stream`, `multipart/form-data` or `application/json`.";
    UnsupportedFormat "unsupported_format" 415 "The bytes are no image in a supported format"
        "The detail says what the bytes were recognised as; send a JPEG, PNG, WebP, GIF, BMP, TIFF or AVIF file.";
    UndecodableImage "undecodable_image" 422 "The image cannot be decoded"
        "The file is damaged or incomplete; compare its size and hash with the original and send it again.";
    ImageTooSmall "image_too_small" 422 "The image is smaller than the limit"
        "Send a larger original; the limit is `--min-side`. Enlarging an image does not help: it changes what is judged.";
    Unreadable "unreadable" 424 "The file or object cannot be read"
        "Only of the command line and of Python: the detail says why; after `score --from` run the same command again, which reads it anew.";
    Overloaded "overloaded" 429 "The server is at capacity"
        "Try again after the seconds in `Retry-After`; if it lasts, add replicas (docs/scaling.md).";
    InferenceFailed "inference_failed" 500 "The model could not be run"
        "Try again once; if it stays, the server's log has the cause under the request id.";
    NotExplainable "not_explainable" 501 "The model cannot explain its answers"
        "Ask `/v1/score` instead: the served graph has no Top-K places, from which explanations are computed.";
    Draining "draining" 503 "The server is shutting down"
        "Try again after the seconds in `Retry-After`: another replica, or the new process, answers.";
    NotReady "not_ready" 503 "The server is not ready"
        "Wait until `/readyz` answers 200: the model is being loaded.";
    DeadlineExceeded "deadline_exceeded" 504 "The deadline passed before the answer was ready"
        "Allow more time (`X-Request-Timeout-Ms`, at most `--request-timeout`), or send fewer images at a time.";
}

/// A failure as its caller sees it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}: {detail}", code.as_str())]
pub struct Error {
    /// Why, for programs.
    pub code: Code,
    /// Why, for people: this occurrence.
    pub detail: String,
    /// How long to wait before a retry; sent as `Retry-After`.
    pub retry_after: Option<Duration>,
}

impl Error {
    /// A failure that a later retry does not change.
    pub fn new(code: Code, detail: impl Into<String>) -> Self {
        let detail: String = detail.into();
        Self { code, detail: clipped(&detail), retry_after: None }
    }

    /// A temporary failure: the caller should retry after `retry_after`.
    pub fn retry(code: Code, detail: impl Into<String>, retry_after: Duration) -> Self {
        Self { retry_after: Some(retry_after), ..Self::new(code, detail) }
    }

    /// The one text for a failed run: the cause is in the log, not in the answer.
    pub fn inference_failed() -> Self {
        Self::new(Code::InferenceFailed, "the model failed on this image; the server's log says why")
    }

    /// The served graph has no Top-K places.
    pub fn not_explainable() -> Self {
        Self::new(
            Code::NotExplainable,
            "the served model gives a logit only; an explanation needs a graph with Top-K places, as LFM's",
        )
    }

    /// The allocator has no memory for what a client sent.
    pub fn out_of_memory(detail: impl Into<String>) -> Self {
        Self::retry(Code::Overloaded, detail, Duration::from_secs(1))
    }

    /// The deadline passed.
    pub fn deadline_exceeded() -> Self {
        Self::new(Code::DeadlineExceeded, "the request's deadline passed before its answer was ready")
    }
}

/// Most characters of a text that holds what a client sent.
const LONGEST_TEXT: usize = 200;

/// How many of them come from the text's end, which often says what was expected.
const END: usize = 60;

/// A text fit for an answer or a log line, whatever a client put into it: 200 characters at most, with ` … ` where it
/// was cut, and control characters escaped.
pub fn clipped(text: &str) -> String {
    let mut shown = String::with_capacity(text.len().min(4 * LONGEST_TEXT));
    if text.char_indices().nth(LONGEST_TEXT).is_none() {
        escape(text, &mut shown);
    } else {
        const START: usize = LONGEST_TEXT - END - 3;
        let start = text.char_indices().nth(START).map_or(text.len(), |(at, _)| at);
        let end = text.char_indices().rev().nth(END - 1).map_or(0, |(at, _)| at);
        escape(&text[..start], &mut shown);
        shown.push_str(" … ");
        escape(&text[end..], &mut shown);
    }
    shown
}

fn escape(text: &str, shown: &mut String) {
    for char in text.chars() {
        // U+2028 and U+2029 break lines too; the others turn the direction of writing.
        if char.is_control() || matches!(char, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}') {
            // Writing to a string cannot fail.
            let _ = write!(shown, "{}", char.escape_default());
        } else {
            shown.push(char);
        }
    }
}

impl From<ImageError> for Error {
    fn from(error: ImageError) -> Self {
        let code = match &error {
            ImageError::Empty => Code::EmptyBody,
            ImageError::UnknownFormat | ImageError::Foreign(_) | ImageError::UnsupportedFormat { .. } => {
                Code::UnsupportedFormat
            }
            ImageError::Undecodable { .. } => Code::UndecodableImage,
            ImageError::TooLarge { .. } | ImageError::TooLong { .. } | ImageError::TooCostly { .. } => {
                Code::ImageTooLarge
            }
            ImageError::TooSmall { .. } => Code::ImageTooSmall,
            // A decode is cancelled when its deadline has passed or its caller has gone.
            ImageError::Cancelled => Code::DeadlineExceeded,
            ImageError::OutOfMemory => return Self::out_of_memory(error.to_string()),
        };
        Self::new(code, error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_long_text_keeps_its_beginning_and_its_end() {
        let text = format!("no input '{}': expected `image`", "x".repeat(5000));
        let shown = clipped(&text);
        assert!(
            shown.starts_with("no input 'xxx") && shown.contains("x … x") && shown.ends_with("': expected `image`")
        );
        assert_eq!(shown.chars().count(), LONGEST_TEXT);
        assert_eq!(clipped("a\nb\u{1b}[31m"), "a\\nb\\u{1b}[31m");
    }

    proptest! {
        #[test]
        fn any_text_is_short_and_of_one_line(text in any::<String>(), times in 1..50usize) {
            let shown = clipped(&text.repeat(times));
            prop_assert!(shown.chars().count() <= LONGEST_TEXT * 8);
            prop_assert!(!shown.chars().any(char::is_control));
        }
    }
}
