//! Metadata of the server and the model.

use serde::{Serialize, Serializer};

use super::tensor::{DataType, Output, Spec, inputs};
use crate::{
    error::{Code, Error},
    model::Manifest,
    served::Models,
};

/// The number of the served model of this name. No version, or an empty one, matches any.
///
/// # Errors
/// `not_found`.
pub fn find_model(models: &Models, name: &str, version: Option<&str>) -> Result<usize, Error> {
    let version = version.filter(|version| !version.is_empty());
    let is_it =
        |manifest: &Manifest| name == manifest.name && version.is_none_or(|version| version == manifest.version);
    models.all().iter().position(|served| is_it(&served.manifest)).ok_or_else(|| {
        let version = version.map_or(String::new(), |version| format!(" version {version:?}"));
        Error::new(Code::NotFound, format!("Request for unknown model: {name:?}{version} is not found"))
    })
}

/// The answer to server metadata.
#[derive(Debug, Serialize)]
pub struct ServerMetadata {
    /// The server.
    pub name: &'static str,
    /// Its version.
    pub version: &'static str,
    /// Extensions of the protocol that it has.
    pub extensions: &'static [&'static str],
}

impl ServerMetadata {
    /// This server's.
    pub const OURS: Self = Self {
        name: env!("CARGO_PKG_NAME"),
        version: env!("CARGO_PKG_VERSION"),
        extensions: &["binary_tensor_data", "model_configuration", "parameters", "statistics"],
    };
}

/// The answer to model metadata.
#[derive(Debug, Serialize)]
pub struct ModelMetadata {
    /// The model.
    pub name: String,
    /// Its versions: one.
    pub versions: Vec<String>,
    /// The backend.
    pub platform: &'static str,
    /// Inputs.
    pub inputs: Vec<TensorMetadata>,
    /// Outputs.
    pub outputs: Vec<TensorMetadata>,
}

/// A tensor in model metadata.
#[derive(Debug, Serialize)]
pub struct TensorMetadata {
    /// Its name.
    pub name: &'static str,
    /// Its elements' type.
    pub datatype: &'static str,
    /// Its shape; -1 is the number of images.
    pub shape: Vec<i64>,
}

/// Triton's name for ONNX graphs.
const PLATFORM: &str = "onnxruntime_onnx";

fn outputs(manifest: &Manifest) -> impl Iterator<Item = Spec> {
    Output::all(manifest).map(|output| output.spec(manifest))
}

impl ModelMetadata {
    /// This model's.
    pub fn of(manifest: &Manifest) -> Self {
        let tensor =
            |spec: Spec| TensorMetadata { name: spec.name, datatype: spec.datatype.as_str(), shape: spec.shape(-1) };
        Self {
            name: manifest.name.clone(),
            versions: vec![manifest.version.clone()],
            platform: PLATFORM,
            inputs: inputs(manifest).map(tensor).into(),
            outputs: outputs(manifest).map(tensor).collect(),
        }
    }
}

/// The answer to model configuration: those of Triton's settings that apply here.
#[derive(Debug, Serialize)]
pub struct ModelConfig {
    /// The model.
    pub name: String,
    /// The backend.
    pub platform: &'static str,
    /// The backend.
    pub backend: &'static str,
    /// Which versions are served.
    pub version_policy: VersionPolicy,
    /// 0: the shapes include the number of images as their first dimension. Otherwise Triton's tools expect shapes
    /// without it, and cannot use what is then left of `image`'s shape.
    pub max_batch_size: i32,
    /// Inputs: a request has exactly one of them.
    pub input: Vec<ConfigInput>,
    /// Outputs.
    pub output: Vec<ConfigOutput>,
}

/// Versions that are served.
#[derive(Debug, Serialize)]
pub struct VersionPolicy {
    /// The served version.
    pub specific: SpecificVersions,
}

/// Versions by number.
#[derive(Debug, Serialize)]
pub struct SpecificVersions {
    /// The versions that are numbers.
    pub versions: Vec<i64>,
}

/// An input in the configuration.
#[derive(Debug, Serialize)]
pub struct ConfigInput {
    /// Its name.
    pub name: &'static str,
    /// Its elements' type.
    #[serde(serialize_with = "config_name")]
    pub data_type: DataType,
    /// Its shape; -1 is the number of images.
    pub dims: Vec<i64>,
    /// Either input may be omitted, but not both.
    pub optional: bool,
}

/// An output in the configuration.
#[derive(Debug, Serialize)]
pub struct ConfigOutput {
    /// Its name.
    pub name: &'static str,
    /// Its elements' type.
    #[serde(serialize_with = "config_name")]
    pub data_type: DataType,
    /// Its shape; -1 is the number of images.
    pub dims: Vec<i64>,
}

fn config_name<S: Serializer>(datatype: &DataType, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(datatype.config_name())
}

impl ModelConfig {
    /// This model's.
    pub fn of(manifest: &Manifest) -> Self {
        let input = |spec: Spec| ConfigInput {
            name: spec.name,
            data_type: spec.datatype,
            dims: spec.shape(-1),
            optional: true,
        };
        let output = |spec: Spec| ConfigOutput { name: spec.name, data_type: spec.datatype, dims: spec.shape(-1) };
        Self {
            name: manifest.name.clone(),
            platform: PLATFORM,
            backend: "onnxruntime",
            version_policy: VersionPolicy {
                specific: SpecificVersions { versions: manifest.version.parse().into_iter().collect() },
            },
            max_batch_size: 0,
            input: inputs(manifest).map(input).into(),
            output: outputs(manifest).map(output).collect(),
        }
    }
}
