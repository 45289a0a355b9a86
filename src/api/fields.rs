//! Settings that come beside the file: form fields, fields of the JSON body. They are the query's parameters under the
//! same names; where both are given, the query wins.

use utoipa::{
    IntoParams,
    openapi::path::{Parameter, ParameterIn},
};

use super::wire::ScoreQuery;
use crate::error::{Code, Error};

/// The longest `external_id` or `id`, in bytes.
pub(super) const LONGEST_ID: usize = 200;

/// Most settings in one request.
const MOST: usize = 16;

/// Settings by name, checked to be known.
#[derive(Debug, Default)]
pub(super) struct Fields(Vec<(String, String)>);

impl Fields {
    /// Takes a setting.
    ///
    /// # Errors
    /// `bad_request` if it is given twice, or if there are too many.
    pub(super) fn push(&mut self, name: String, value: String) -> Result<(), Error> {
        if self.0.iter().any(|(known, _)| *known == name) {
            return Err(bad(format!("the field `{}` stands twice", shown(&name))));
        }
        if self.0.len() == MOST {
            return Err(bad(format!("the request has more than {MOST} fields beside the image")));
        }
        self.0.push((name, value));
        Ok(())
    }

    /// Whether a setting of this name exists; `image` is how the route calls the picture.
    ///
    /// # Errors
    /// `bad_request` that lists the names that exist.
    pub(super) fn check(&self, name: &str, image: &str) -> Result<(), Error> {
        if known().any(|parameter| parameter.name == name) {
            return Ok(());
        }
        let text = format!("`{}` is no field of this route: there is `{image}`{}", shown(name), Self::known());
        Err(bad(text))
    }

    /// The names, to be put behind a sentence.
    pub(super) fn known() -> String {
        let names: Vec<_> = known().map(|parameter| format!("`{}`", parameter.name)).collect();
        format!(", and optionally {}", names.join(", "))
    }

    /// The query with these settings added where it does not have them itself; nothing if there are none to add.
    pub(super) fn behind(self, query: Option<&str>) -> Option<String> {
        if self.0.is_empty() {
            return None;
        }
        let query = query.unwrap_or_default();
        let mut merged = form_urlencoded::Serializer::new(query.to_owned());
        for (name, value) in self.0 {
            if form_urlencoded::parse(query.as_bytes()).all(|(given, _)| given != *name) {
                merged.append_pair(&name, &value);
            }
        }
        Some(merged.finish())
    }
}

fn known() -> impl Iterator<Item = Parameter> {
    ScoreQuery::into_params(|| Some(ParameterIn::Query)).into_iter()
}

/// The caller's name for an image, if it is not too long.
///
/// # Errors
/// `bad_request`.
pub(super) fn id(id: String) -> Result<String, Error> {
    if id.len() > LONGEST_ID {
        return Err(bad(format!("an image's `id` or file name is longer than {LONGEST_ID} bytes")));
    }
    Ok(id)
}

/// The request is malformed.
pub(super) fn bad(detail: impl Into<String>) -> Error {
    Error::new(Code::BadRequest, detail)
}

/// A text that can hold a client's, as an error shows it: cut, and control characters escaped.
pub(super) fn shown(text: &str) -> String {
    const LONGEST: usize = 200;
    let mut shown = String::new();
    for character in text.chars() {
        if shown.len() >= LONGEST {
            return shown + " ...";
        }
        match character {
            '"' | '\'' | '\\' => shown.push(character),
            _ => shown.extend(character.escape_debug()),
        }
    }
    shown
}
