//! A request, as received and as checked.

use std::{collections::BTreeMap, time::Duration};

use bytes::Bytes;
use serde_json::Value;

use super::{
    limits::LONGEST_ID,
    tensor::{IMAGE, Output, PIXELS, Spec, inputs, split_strings},
};
use crate::{
    error::{Code, Error},
    image::Pixels,
    model::Manifest,
};

/// Parameters of a request, an input or an output: their values are strings, numbers and booleans.
pub type Parameters = BTreeMap<String, Value>;

/// A request as received, in either transport.
#[derive(Debug, Default)]
pub struct WrittenRequest {
    /// The caller's id for it, sent back; may be empty.
    pub id: String,
    /// Parameters of the whole.
    pub parameters: Parameters,
    /// Its inputs.
    pub inputs: Vec<WrittenInput>,
    /// The requested outputs; none: all.
    pub outputs: Vec<WrittenOutput>,
}

/// An input as received.
#[derive(Debug)]
pub struct WrittenInput {
    /// Its name.
    pub name: String,
    /// Its elements' type.
    pub datatype: String,
    /// Its shape.
    pub shape: Vec<i64>,
    /// Its parameters.
    pub parameters: Parameters,
    /// Its elements.
    pub contents: Contents,
}

/// A requested output.
#[derive(Debug)]
pub struct WrittenOutput {
    /// Its name.
    pub name: String,
    /// Its parameters.
    pub parameters: Parameters,
}

/// Elements of an input.
#[derive(Debug)]
pub enum Contents {
    /// In the encoding of the binary tensor data extension and of gRPC's raw contents.
    Raw(Bytes),
    /// Byte strings, split.
    Strings(Vec<Bytes>),
    /// Numbers from 0 to 255.
    Numbers(Vec<u8>),
}

/// A checked request.
#[derive(Debug)]
pub struct Request {
    /// The caller's id for it, sent back; may be empty.
    pub id: String,
    /// The images, at least one.
    pub images: Vec<Image>,
    /// The outputs, in the order of the answer.
    pub outputs: Vec<Wanted>,
    /// The caller's timeout.
    pub timeout: Option<Duration>,
}

/// One image.
#[derive(Debug)]
pub enum Image {
    /// An encoded file.
    File(Bytes),
    /// The network's input.
    Pixels(Pixels),
}

/// A requested output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wanted {
    /// Which.
    pub output: Output,
    /// Over HTTP: whether it is sent as a binary tensor.
    pub binary: bool,
}

impl Request {
    /// Checks a request against the model's inputs, with at most `most` images.
    ///
    /// # Errors
    /// `bad_request`, `too_many_images`.
    pub fn check(manifest: &Manifest, written: WrittenRequest, most: usize) -> Result<Self, Error> {
        if written.id.chars().nth(LONGEST_ID).is_some() {
            return Err(bad(format!("the request's id is longer than {LONGEST_ID} characters")));
        }
        let timeout = timeout(&written.parameters)?;
        refuse_priority(&written.parameters)?;
        let all_binary = flag(&written.parameters, "binary_data_output")?.unwrap_or(false);
        let outputs = wanted(manifest, &written.outputs, all_binary)?;
        let mut inputs = written.inputs.into_iter();
        let (Some(input), None) = (inputs.next(), inputs.next()) else {
            return Err(bad("a request has exactly one input: `image` or `pixels`"));
        };
        Ok(Self { id: written.id, images: images(manifest, input, most)?, outputs, timeout })
    }
}

fn images(manifest: &Manifest, input: WrittenInput, most: usize) -> Result<Vec<Image>, Error> {
    refuse_shared_memory(&input.parameters)?;
    let name = &input.name;
    let Some(spec) = inputs(manifest).into_iter().find(|spec| spec.name == name) else {
        return Err(bad(format!("unexpected inference input '{name}': the model has `image` and `pixels`")));
    };
    if input.datatype != spec.datatype.as_str() {
        let (given, wanted) = (&input.datatype, spec.datatype.as_str());
        return Err(bad(format!("inference input '{name}' has the datatype {given:?}, expected {wanted}")));
    }
    let count = count(&spec, &input.shape, most)?;
    let wrong = || bad(format!("the data of '{name}' do not have the size of its shape {:?}", input.shape));
    match (spec.name, input.contents) {
        (IMAGE, Contents::Raw(raw)) => split_strings(raw, count).filter(|files| files.len() == count),
        (IMAGE, Contents::Strings(files)) => Some(files).filter(|files| files.len() == count),
        (PIXELS, Contents::Raw(raw)) => return pixels(manifest, &raw, count).ok_or_else(wrong),
        (PIXELS, Contents::Numbers(numbers)) => return pixels(manifest, &numbers, count).ok_or_else(wrong),
        _ => return Err(bad(format!("the data of '{name}' are not {}", spec.datatype.as_str()))),
    }
    .map(|files| files.into_iter().map(Image::File).collect())
    .ok_or_else(wrong)
}

/// The number of images in a shape.
fn count(spec: &Spec, shape: &[i64], most: usize) -> Result<usize, Error> {
    let count = match shape.split_first() {
        Some((&count, dims)) if dims == spec.dims => usize::try_from(count).ok().filter(|&count| count > 0),
        _ => None,
    };
    match count {
        Some(count) if count > most => {
            Err(Error::new(Code::TooManyImages, format!("the request holds more images than the limit of {most}")))
        }
        Some(count) => Ok(count),
        None => {
            let expected = spec.shape(-1);
            Err(bad(format!("unexpected shape for input '{}': expected {expected:?}, got {shape:?}", spec.name)))
        }
    }
}

fn pixels(manifest: &Manifest, data: &[u8], count: usize) -> Option<Vec<Image>> {
    let (length, [width, height]) = (manifest.preprocessing.input_bytes(), manifest.preprocessing.input());
    if data.len() != count.checked_mul(length)? {
        return None;
    }
    let image = |image: &[u8]| Pixels::sized(image.to_vec(), width, height).map(Image::Pixels);
    data.chunks_exact(length.max(1)).map(image).collect()
}

fn wanted(manifest: &Manifest, outputs: &[WrittenOutput], all_binary: bool) -> Result<Vec<Wanted>, Error> {
    if outputs.is_empty() {
        return Ok(Output::by_default(manifest).map(|output| Wanted { output, binary: all_binary }).collect());
    }
    let mut wanted: Vec<Wanted> = Vec::new();
    for written in outputs {
        let name = &written.name;
        let output =
            Output::named(manifest, name).ok_or_else(|| bad(format!("unexpected inference output '{name}'")))?;
        refuse_shared_memory(&written.parameters)?;
        if written.parameters.get("classification").is_some_and(|classes| classes != 0) {
            return Err(bad("the classification extension is not supported: ask for `verdict`"));
        }
        if wanted.iter().any(|other| other.output == output) {
            return Err(bad(format!("output '{name}' is asked for twice")));
        }
        wanted.push(Wanted { output, binary: flag(&written.parameters, "binary_data")?.unwrap_or(all_binary) });
    }
    Ok(wanted)
}

/// Triton's `timeout`: microseconds, 0 for none.
fn timeout(parameters: &Parameters) -> Result<Option<Duration>, Error> {
    let Some(value) = parameters.get("timeout") else { return Ok(None) };
    let micros = value.as_u64().ok_or_else(|| bad("`timeout` is a whole number of microseconds"))?;
    Ok((micros > 0).then(|| Duration::from_micros(micros)))
}

/// Images are served in the order of their arrival: 0, the default, is the only priority.
fn refuse_priority(parameters: &Parameters) -> Result<(), Error> {
    match parameters.get("priority") {
        Some(priority) if priority != 0 => {
            Err(bad("`priority` is not supported: images are served in the order of their arrival; leave it out"))
        }
        _ => Ok(()),
    }
}

fn refuse_shared_memory(parameters: &Parameters) -> Result<(), Error> {
    match parameters.keys().find(|name| name.starts_with("shared_memory")) {
        Some(_) => Err(bad("the shared memory extensions are not supported")),
        None => Ok(()),
    }
}

fn flag(parameters: &Parameters, name: &str) -> Result<Option<bool>, Error> {
    let value = parameters.get(name);
    value.map(|value| value.as_bool().ok_or_else(|| bad(format!("`{name}` is true or false")))).transpose()
}

fn bad(detail: impl Into<String>) -> Error {
    Error::new(Code::BadRequest, detail)
}
