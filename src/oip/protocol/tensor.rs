//! The input and output tensors: names, types, shapes and encoding.

use std::sync::Arc;

use bytes::Bytes;

use crate::{
    declared::Declared,
    judge::Judgement,
    model::{self, Manifest},
};

/// Those of the protocol's element types that we use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DataType {
    /// Bytes.
    Uint8,
    /// Whole numbers.
    Int64,
    /// Single-precision floats.
    Fp32,
    /// Byte strings of any length.
    Bytes,
}

impl DataType {
    /// The protocol's name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Uint8 => "UINT8",
            Self::Int64 => "INT64",
            Self::Fp32 => "FP32",
            Self::Bytes => "BYTES",
        }
    }

    /// The name in a model's configuration.
    pub const fn config_name(self) -> &'static str {
        match self {
            Self::Uint8 => "TYPE_UINT8",
            Self::Int64 => "TYPE_INT64",
            Self::Fp32 => "TYPE_FP32",
            Self::Bytes => "TYPE_STRING",
        }
    }
}

/// Name, type and shape of a tensor. The first dimension of each is the number of images; it is not among `dims`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spec {
    /// Its name.
    pub name: &'static str,
    /// Its elements.
    pub datatype: DataType,
    /// Its dimensions for one image.
    pub dims: Vec<i64>,
}

impl Spec {
    /// The shape for this many images; -1 stands for any number.
    pub fn shape(&self, images: i64) -> Vec<i64> {
        [&[images], self.dims.as_slice()].concat()
    }
}

/// Name of the input of encoded files.
pub(super) const IMAGE: &str = "image";
/// Name of the input of the network's pixels.
pub(super) const PIXELS: &str = "pixels";

/// The inputs. A request has exactly one of them.
pub fn inputs(manifest: &Manifest) -> [Spec; 2] {
    let [width, height] = manifest.preprocessing.input().map(i64::from);
    [
        Spec { name: IMAGE, datatype: DataType::Bytes, dims: Vec::new() },
        Spec { name: PIXELS, datatype: DataType::Uint8, dims: vec![height, width, 3] },
    ]
}

/// The available outputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Output {
    /// Probability of fake; not a number where the verdict is void.
    Score,
    /// Log-odds of fake; not a number where the verdict is void.
    Logit,
    /// `real`, `fake` or `uncertain`.
    Verdict,
    /// The warnings, separated by commas.
    Warnings,
    /// What the file says of itself, in JSON; empty where nothing was read. Only if it is asked for.
    Declared,
    /// The Top-K values of each map, of the first region.
    TopkValues,
    /// Their indices.
    TopkIndices,
    /// The network's own logit, the mean over the regions, before calibration; a number whatever the verdict.
    LogitRaw,
}

impl Output {
    /// The outputs of an answer to a request that names none, in their order, of a graph with Top-K places.
    const BY_DEFAULT: [Self; 6] =
        [Self::Score, Self::Logit, Self::Verdict, Self::Warnings, Self::TopkValues, Self::TopkIndices];

    /// The outputs of an answer to a request that names none, in their order.
    pub fn by_default(manifest: &Manifest) -> impl Iterator<Item = Self> {
        let explains = manifest.explains();
        Self::BY_DEFAULT.into_iter().filter(move |output| explains || !output.is_pooled())
    }

    /// Every output of the model.
    pub fn all(manifest: &Manifest) -> impl Iterator<Item = Self> {
        Self::by_default(manifest).chain([Self::LogitRaw, Self::Declared])
    }

    /// The model's output of this name.
    pub fn named(manifest: &Manifest, name: &str) -> Option<Self> {
        Self::all(manifest).find(|output| output.name() == name)
    }

    const fn is_pooled(self) -> bool {
        matches!(self, Self::TopkValues | Self::TopkIndices)
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Score => "score",
            Self::Logit => "logit",
            Self::Verdict => "verdict",
            Self::Warnings => "warnings",
            Self::Declared => "declared",
            Self::TopkValues => "topk_values",
            Self::TopkIndices => "topk_indices",
            Self::LogitRaw => "logit_raw",
        }
    }

    /// Its name, type and shape.
    pub fn spec(self, manifest: &Manifest) -> Spec {
        let datatype = match self {
            Self::Score | Self::Logit | Self::LogitRaw | Self::TopkValues => DataType::Fp32,
            Self::Verdict | Self::Warnings | Self::Declared => DataType::Bytes,
            Self::TopkIndices => DataType::Int64,
        };
        let dims = if self.is_pooled() { vec![model::MAPS as i64, manifest.k as i64] } else { Vec::new() };
        Spec { name: self.name(), datatype, dims }
    }

    /// The output's tensor for these images.
    pub fn tensor(self, manifest: &Manifest, judged: &[Judged]) -> Tensor {
        let words = |judgement: &Judgement| -> Arc<str> {
            judgement.warnings.iter().map(|warning| warning.as_str()).collect::<Vec<_>>().join(",").into()
        };
        let judgements = judged.iter().map(|one| &one.judgement);
        let data = match self {
            // A void verdict has neither score nor logit; the protocol has no null.
            Self::Score => {
                Data::Fp32(judgements.map(|judgement| judgement.score.map_or(f32::NAN, |s| s as f32)).collect())
            }
            Self::Logit => Data::Fp32(judgements.map(|judgement| judgement.logit.unwrap_or(f32::NAN)).collect()),
            Self::LogitRaw => Data::Fp32(judgements.map(|judgement| judgement.logit_raw).collect()),
            Self::Verdict => Data::Bytes(judgements.map(|judgement| judgement.verdict.as_str().into()).collect()),
            Self::Warnings => Data::Bytes(judgements.map(words).collect()),
            Self::Declared => Data::Bytes(judged.iter().map(|one| one.declared_json()).collect()),
            Self::TopkValues => {
                Data::Fp32(judged.iter().flat_map(|one| one.output.topk_values.iter().copied()).collect())
            }
            Self::TopkIndices => {
                Data::Int64(judged.iter().flat_map(|one| one.output.topk_indices.iter().copied()).collect())
            }
        };
        let spec = self.spec(manifest);
        Tensor { name: spec.name, datatype: spec.datatype, shape: spec.shape(judged.len() as i64), data }
    }
}

/// One image's answer.
#[derive(Debug)]
pub struct Judged {
    /// The service's judgement.
    pub judgement: Judgement,
    /// What its file says of itself; none for pixels.
    pub declared: Option<Declared>,
    /// The network's output for its first region.
    pub output: model::Output,
}

impl Judged {
    /// As the output `declared` has it: empty where nothing was read.
    fn declared_json(&self) -> Arc<str> {
        let json = self.declared.as_ref().and_then(|declared| serde_json::to_string(declared).ok());
        json.unwrap_or_default().into()
    }
}

/// An output of an answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Tensor {
    /// Its name.
    pub name: &'static str,
    /// Its elements' type.
    pub datatype: DataType,
    /// Its shape.
    pub shape: Vec<i64>,
    /// Its elements, in row-major order.
    pub data: Data,
}

/// Elements of an output.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
#[serde(untagged)]
pub enum Data {
    /// FP32.
    Fp32(Vec<f32>),
    /// INT64.
    Int64(Vec<i64>),
    /// BYTES; ours are short strings.
    Bytes(Vec<Arc<str>>),
}

impl Data {
    /// The elements in the encoding of the binary tensor data extension and of gRPC's raw contents: little-endian, a
    /// string preceded by its length in four bytes.
    pub fn to_raw(&self) -> Bytes {
        match self {
            Self::Fp32(values) => values.iter().flat_map(|value| value.to_le_bytes()).collect(),
            Self::Int64(values) => values.iter().flat_map(|value| value.to_le_bytes()).collect(),
            Self::Bytes(values) => {
                // Our words are short.
                let framed = |word: &Arc<str>| [&(word.len() as u32).to_le_bytes(), word.as_bytes()].concat();
                values.iter().flat_map(framed).collect()
            }
        }
    }
}

/// The elements of a BYTES tensor's raw form: each preceded by its length in four bytes, little-endian. `None` if the
/// lengths do not fit the bytes or there are more than `most`.
pub(super) fn split_strings(mut raw: Bytes, most: usize) -> Option<Vec<Bytes>> {
    let mut strings = Vec::new();
    while !raw.is_empty() {
        let length = raw.split_to_checked(4)?;
        let length = u32::from_le_bytes(length.as_ref().try_into().ok()?);
        if strings.len() == most {
            return None;
        }
        strings.push(raw.split_to_checked(usize::try_from(length).ok()?)?);
    }
    Some(strings)
}

/// [`Bytes::split_to`] without the panic.
pub(super) trait SplitChecked: Sized {
    /// Removes and returns the first `length` bytes; `None` if there are fewer.
    fn split_to_checked(&mut self, length: usize) -> Option<Self>;
}

impl SplitChecked for Bytes {
    fn split_to_checked(&mut self, length: usize) -> Option<Self> {
        (length <= self.len()).then(|| self.split_to(length))
    }
}
