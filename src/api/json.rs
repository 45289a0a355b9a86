//! JSON bodies, read in one pass: a picture's text is decoded where it stands, without a copy in between, and reading
//! stops at the first thing that is too much.

use std::{borrow::Cow, fmt};

use bytes::Bytes;
use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};

use super::{
    contents::{Contents, Part, too_many},
    fields::{Fields, bad, id, shown},
};
use crate::{
    encoded::{self, Fault},
    error::Error,
};

/// How many images a route takes.
#[derive(Debug, Clone, Copy)]
pub(super) enum Count {
    /// `image`.
    One,
    /// `images`, at most so many.
    UpTo(usize),
}

/// Most memory that the images of a body take.
pub(super) fn decoded(body: &[u8]) -> u64 {
    encoded::most_bytes(body.len()) as u64
}

/// Most memory that [`read`] takes beside the body and the images: a text with escapes is first written without them,
/// into a buffer that grows by doubling.
pub(super) fn unescaped(body: &[u8]) -> u64 {
    if body.contains(&b'\\') { 2 * body.len() as u64 } else { 0 }
}

/// Reads a request.
///
/// # Errors
/// `bad_request`, `too_many_images`; `overloaded` when there is no memory.
pub(super) fn read(body: Bytes, count: Count) -> Result<Contents, Error> {
    // Editors and .NET put a byte order mark in front.
    let body = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&body);
    let mut contents = Contents::default();
    // Errors of our own; serde's can carry only text.
    let mut refused = None;
    let mut json = serde_json::Deserializer::from_slice(body);
    let request = Request { count, contents: &mut contents, refused: &mut refused };
    let read = request.deserialize(&mut json).and_then(|()| json.end());
    match (read, refused) {
        (Ok(()), None) => Ok(contents),
        (_, Some(refused)) => Err(refused),
        (Err(error), None) => {
            Err(bad(format!("the JSON body is not what this route takes: {}", shown(&error.to_string()))))
        }
    }
}

/// A visitor's answers to what it does not expect, without a copy of what it found.
macro_rules! refuse_texts {
    ($expected:literal) => {
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str($expected)
        }

        fn visit_str<E: serde::de::Error>(self, _: &str) -> Result<Self::Value, E> {
            Err(E::custom(concat!("found a string, expected ", $expected)))
        }
    };
}

struct Request<'a> {
    count: Count,
    contents: &'a mut Contents,
    refused: &'a mut Option<Error>,
}

impl Request<'_> {
    fn stop<T, E: serde::de::Error>(&mut self, error: Error) -> Result<T, E> {
        stop(self.refused, error)
    }
}

/// Keeps an error of our own and stops the reader.
fn stop<T, E: serde::de::Error>(refused: &mut Option<Error>, error: Error) -> Result<T, E> {
    *refused = Some(error);
    Err(E::custom("refused"))
}

impl<'de> DeserializeSeed<'de> for Request<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<(), D::Error> {
        json.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Request<'_> {
    type Value = ();

    refuse_texts!("an object");

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<(), A::Error> {
        let (name, plural) = match self.count {
            Count::One => ("image", false),
            Count::UpTo(_) => ("images", true),
        };
        let mut found = false;
        while let Some(Short(key)) = map.next_key_seed(ShortText("the name of a field"))? {
            let key = key.unwrap_or_default();
            if key == name {
                if std::mem::replace(&mut found, true) {
                    return self.stop(bad(format!("the field `{name}` stands twice in the JSON body")));
                }
                if plural {
                    map.next_value_seed(Images(&mut self))?;
                } else {
                    let bytes = match map.next_value_seed(Image)? {
                        Ok(bytes) => bytes,
                        Err(error) => return self.stop(error),
                    };
                    self.contents.images.push(Ok(Part { id: None, bytes: bytes.into() }));
                }
                continue;
            }
            if let Err(error) = self.contents.fields.check(&key, name) {
                return self.stop(error);
            }
            let Short(value) = map.next_value_seed(ShortText("a string, a number or null"))?;
            if let Err(error) = value.map_or(Ok(()), |value| self.contents.fields.push(key.into(), value.into())) {
                return self.stop(error);
            }
        }
        if found { Ok(()) } else { self.stop(missing(name)) }
    }
}

fn missing(name: &str) -> Error {
    let example = if name == "image" {
        r#"{"image":"<the file in base64>"}"#
    } else {
        r#"{"images":[{"id":"..","image":"<the file in base64>"}]}"#
    };
    bad(format!("the JSON body has no `{name}`: send {example}{}", Fields::known()))
}

struct Images<'a, 'b>(&'a mut Request<'b>);

impl<'de> DeserializeSeed<'de> for Images<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<(), D::Error> {
        json.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Images<'_, '_> {
    type Value = ();

    refuse_texts!("an array of images");

    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<(), A::Error> {
        let request = self.0;
        let most = match request.count {
            Count::One => 1,
            Count::UpTo(most) => most,
        };
        loop {
            if request.contents.images.len() == most {
                // Only whether there is one more: it is not read.
                return match sequence.next_element::<IgnoredFirst>() {
                    Ok(None) => Ok(()),
                    Ok(Some(IgnoredFirst)) | Err(_) => request.stop(too_many(most)),
                };
            }
            match sequence.next_element_seed(BatchImage(request.refused))? {
                Some(part) => request.contents.images.push(part),
                None => return Ok(()),
            }
        }
    }
}

/// An element that is not read.
struct IgnoredFirst;

impl<'de> serde::Deserialize<'de> for IgnoredFirst {
    fn deserialize<D: Deserializer<'de>>(_: D) -> Result<Self, D::Error> {
        Err(D::Error::custom("one too many"))
    }
}

/// One image of several. What is wrong with its text is its own error, what is wrong with its shape the request's.
struct BatchImage<'a>(&'a mut Option<Error>);

impl<'de> DeserializeSeed<'de> for BatchImage<'_> {
    type Value = Result<Part, (Option<String>, Error)>;

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<Self::Value, D::Error> {
        json.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for BatchImage<'_> {
    type Value = Result<Part, (Option<String>, Error)>;

    refuse_texts!("an object with `image` and `id`");

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let (mut name, mut image) = (None, None);
        while let Some(Short(key)) = map.next_key_seed(ShortText("the name of a field"))? {
            match key.as_deref().unwrap_or_default() {
                "image" if image.is_none() => image = Some(map.next_value_seed(Image)?),
                "id" if name.is_none() => {
                    let Short(given) = map.next_value_seed(ShortText("a string"))?;
                    name = match given.map(|given| id(given.into())).transpose() {
                        Ok(given) => Some(given),
                        Err(error) => return stop(self.0, error),
                    };
                }
                twice @ ("image" | "id") => {
                    return stop(self.0, bad(format!("the field `{twice}` stands twice in one of `images`")));
                }
                other => {
                    let text = "is no field of one of `images`: there are `image` and `id`";
                    return stop(self.0, bad(format!("`{}` {text}", shown(other))));
                }
            }
        }
        let Some(image) = image else { return stop(self.0, bad("one of `images` has no `image`")) };
        let id = name.flatten();
        Ok(match image {
            Ok(bytes) => Ok(Part { id, bytes: bytes.into() }),
            Err(error) => Err((id, error)),
        })
    }
}

/// A picture in base64.
struct Image;

impl<'de> DeserializeSeed<'de> for Image {
    type Value = Result<Vec<u8>, Error>;

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<Self::Value, D::Error> {
        json.deserialize_any(self)
    }
}

impl Visitor<'_> for Image {
    type Value = Result<Vec<u8>, Error>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a file in base64")
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Self::Value, E> {
        Ok(encoded::decode(text).map_err(|fault| match fault {
            Fault::Memory => Error::out_of_memory("there is no memory for the image"),
            fault => bad(format!("`image` cannot be read: {fault}")),
        }))
    }
}

/// A short text or number; `null` is none.
struct ShortText(&'static str);

struct Short<'de>(Option<Cow<'de, str>>);

/// Most bytes of a name or of a value that is no picture.
const LONGEST: usize = 4096;

impl<'de> DeserializeSeed<'de> for ShortText {
    type Value = Short<'de>;

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<Short<'de>, D::Error> {
        json.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for ShortText {
    type Value = Short<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }

    fn visit_borrowed_str<E: serde::de::Error>(self, text: &'de str) -> Result<Short<'de>, E> {
        if text.len() > LONGEST { too_long(self.0) } else { Ok(Short(Some(Cow::Borrowed(text)))) }
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Short<'de>, E> {
        if text.len() > LONGEST { too_long(self.0) } else { Ok(Short(Some(Cow::Owned(text.to_owned())))) }
    }

    fn visit_u64<E>(self, number: u64) -> Result<Short<'de>, E> {
        Ok(Short(Some(Cow::Owned(number.to_string()))))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Short<'de>, E> {
        Ok(Short(Some(Cow::Owned(number.to_string()))))
    }

    fn visit_f64<E>(self, number: f64) -> Result<Short<'de>, E> {
        Ok(Short(Some(Cow::Owned(number.to_string()))))
    }

    fn visit_unit<E>(self) -> Result<Short<'de>, E> {
        Ok(Short(None))
    }
}

fn too_long<T, E: serde::de::Error>(what: &str) -> Result<T, E> {
    Err(E::custom(format_args!("a text of more than {LONGEST} bytes stands for {what}")))
}
