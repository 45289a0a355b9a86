//! Requests and answers over HTTP: JSON, followed by binary tensors (Triton's binary tensor data extension).

use std::fmt;

use bytes::{Bytes, BytesMut};
use serde::{
    Deserialize, Deserializer, Serialize,
    de::{SeqAccess, Visitor},
};

use super::{
    few::{Few, parameters},
    limits::{MOST_DIMENSIONS, MOST_INPUTS, MOST_STRINGS},
    request::{Contents, Parameters, Wanted, WrittenInput, WrittenOutput, WrittenRequest},
    tensor::{Data, DataType, SplitChecked, Tensor},
};
use crate::{
    encoded,
    error::{Code, Error},
    model::Manifest,
};

#[derive(Deserialize)]
struct JsonRequest {
    #[serde(default)]
    id: String,
    #[serde(default, deserialize_with = "parameters")]
    parameters: Parameters,
    inputs: Few<JsonInput, MOST_INPUTS>,
    #[serde(default)]
    outputs: Few<JsonOutput, MOST_INPUTS>,
}

#[derive(Deserialize)]
struct JsonInput {
    name: String,
    shape: Few<i64, MOST_DIMENSIONS>,
    datatype: String,
    #[serde(default, deserialize_with = "parameters")]
    parameters: Parameters,
    data: Option<Elements>,
}

#[derive(Deserialize)]
struct JsonOutput {
    name: String,
    #[serde(default, deserialize_with = "parameters")]
    parameters: Parameters,
}

/// Upper bound of the memory of a parsed request's JSON, in addition to its text, in bytes: numbers take at most half
/// of the text's size, strings three quarters, decoded while parsing.
pub fn parsed_bytes(body: &Bytes, json_length: Option<usize>) -> u64 {
    json_length.unwrap_or(body.len()).min(body.len()) as u64
}

/// Parses a request. The first `json_length` bytes are its JSON, or all of them.
///
/// # Errors
/// `bad_request`.
pub fn read(mut body: Bytes, json_length: Option<usize>) -> Result<WrittenRequest, Error> {
    let length = json_length.unwrap_or(body.len());
    let json = body.split_to_checked(length).ok_or_else(|| {
        bad(format!("Inference-Header-Content-Length is {length}, the body has {} bytes", body.len()))
    })?;
    // A byte order mark.
    let text = json.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&json);
    let request: JsonRequest =
        serde_json::from_slice(text).map_err(|error| bad(format!("the JSON is not an inference request: {error}")))?;
    let inputs = request.inputs.0.into_iter().map(|input| take_input(input, &mut body)).collect::<Result<_, _>>()?;
    if !body.is_empty() {
        return Err(bad(format!("{} bytes after the JSON belong to no input", body.len())));
    }
    let outputs = request.outputs.0.into_iter();
    Ok(WrittenRequest {
        id: request.id,
        parameters: request.parameters,
        inputs,
        outputs: outputs.map(|JsonOutput { name, parameters }| WrittenOutput { name, parameters }).collect(),
    })
}

/// An input with its data, from the JSON or from the start of the bytes that follow it.
fn take_input(input: JsonInput, behind: &mut Bytes) -> Result<WrittenInput, Error> {
    let JsonInput { name, shape: Few(shape), datatype, parameters, data } = input;
    let contents = match (data, parameters.get("binary_data_size")) {
        (Some(_), Some(_)) => return Err(bad(format!("input '{name}' has both `data` and `binary_data_size`"))),
        (None, None) => return Err(bad(format!("input '{name}' has no data"))),
        (None, Some(size)) => {
            let size = size.as_u64().and_then(|size| usize::try_from(size).ok());
            let raw = size.and_then(|size| behind.split_to_checked(size));
            Contents::Raw(
                raw.ok_or_else(|| bad(format!("`binary_data_size` of input '{name}' does not fit the body")))?,
            )
        }
        (Some(Elements::Numbers(numbers)), None) => Contents::Numbers(numbers),
        (Some(Elements::Strings(strings)), None) => Contents::Strings(strings),
    };
    Ok(WrittenInput { name, datatype, shape, parameters, contents })
}

/// Elements of an input in JSON, flat or nested by dimension.
enum Elements {
    Numbers(Vec<u8>),
    Strings(Vec<Bytes>),
}

impl<'de> Deserialize<'de> for Elements {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut flat = Flat::default();
        deserializer.deserialize_seq(&mut flat)?;
        if flat.strings.is_empty() {
            Ok(Self::Numbers(flat.numbers))
        } else if flat.numbers.is_empty() {
            Ok(Self::Strings(flat.strings))
        } else {
            Err(serde::de::Error::custom("`data` holds numbers and strings"))
        }
    }
}

/// Collects elements of nested arrays without an intermediate value for each. serde_json limits the depth.
#[derive(Default)]
struct Flat {
    numbers: Vec<u8>,
    strings: Vec<Bytes>,
}

impl<'de> Visitor<'de> for &mut Flat {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of whole numbers from 0 to 255 or of strings")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        while seq.next_element_seed(Element(self))?.is_some() {}
        Ok(())
    }

    fn visit_u64<E: serde::de::Error>(self, number: u64) -> Result<(), E> {
        let number = u8::try_from(number).map_err(|_| E::custom(format!("{number} is not a UINT8")))?;
        self.numbers.try_reserve(1).map_err(|_| E::custom("out of memory"))?;
        self.numbers.push(number);
        Ok(())
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<(), E> {
        if self.strings.len() == MOST_STRINGS {
            return Err(E::custom(format!("an input has more strings than {MOST_STRINGS}")));
        }
        // The protocol's strings are text, and files are not.
        let decoded = encoded::decode(text);
        let decoded = decoded.map_err(|fault| E::custom(format!("BYTES in JSON are files in base64; {fault}")))?;
        self.strings.push(decoded.into());
        Ok(())
    }
}

/// One element, which may be an array.
struct Element<'a>(&'a mut Flat);

impl<'de> serde::de::DeserializeSeed<'de> for Element<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self.0)
    }
}

#[derive(Serialize)]
struct JsonAnswer<'a> {
    model_name: &'a str,
    model_version: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    id: &'a str,
    outputs: Vec<JsonTensor<'a>>,
}

#[derive(Serialize)]
struct JsonTensor<'a> {
    name: &'a str,
    datatype: &'static str,
    shape: &'a [i64],
    #[serde(skip_serializing_if = "Option::is_none")]
    parameters: Option<BinarySize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<&'a Data>,
}

#[derive(Serialize)]
struct BinarySize {
    binary_data_size: usize,
}

/// A serialised answer.
#[derive(Debug)]
pub struct Written {
    /// JSON, followed by the binary tensors.
    pub body: Bytes,
    /// Length of the JSON, if binary tensors follow it.
    pub json_length: Option<usize>,
}

/// Serialises an answer.
pub fn write(manifest: &Manifest, id: &str, outputs: &[(Wanted, Tensor)]) -> serde_json::Result<Written> {
    let raw: Vec<_> = outputs.iter().map(|(wanted, tensor)| wanted.binary.then(|| tensor.data.to_raw())).collect();
    let tensors = outputs.iter().zip(&raw).map(|((_, tensor), raw)| JsonTensor {
        name: tensor.name,
        datatype: DataType::as_str(tensor.datatype),
        shape: &tensor.shape,
        parameters: raw.as_ref().map(|raw| BinarySize { binary_data_size: raw.len() }),
        data: raw.is_none().then_some(&tensor.data),
    });
    let json = serde_json::to_vec(&JsonAnswer {
        model_name: &manifest.name,
        model_version: &manifest.version,
        id,
        outputs: tensors.collect(),
    })?;
    let json_length = raw.iter().any(Option::is_some).then_some(json.len());
    let mut body = BytesMut::from(json.as_slice());
    raw.into_iter().flatten().for_each(|raw| body.extend_from_slice(&raw));
    Ok(Written { body: body.freeze(), json_length })
}

fn bad(detail: impl Into<String>) -> Error {
    Error::new(Code::BadRequest, detail)
}
