//! Conversion between gRPC messages and the types shared by both transports.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde_json::Value;

use super::{
    super::{
        infer::Answer,
        protocol::{self, Contents, DataType, Parameters, WrittenInput, WrittenOutput, WrittenRequest},
    },
    proto,
};
use crate::{
    error::{Code, Error},
    model::Manifest,
};

/// Converts a request to the shared type.
///
/// # Errors
/// `bad_request` when inputs and contents do not match.
pub(super) fn request(message: proto::ModelInferRequest) -> Result<WrittenRequest, Error> {
    let mut raw = message.raw_input_contents.into_iter();
    if raw.len() > 0 && raw.len() != message.inputs.len() {
        return Err(bad(format!("{} raw contents for {} inputs", raw.len(), message.inputs.len())));
    }
    let inputs = message.inputs.into_iter().map(|input| {
        let contents = match (raw.next(), input.contents) {
            (Some(raw), None) => Contents::Raw(raw),
            (None, Some(contents)) => typed(contents)?,
            (Some(_), Some(_)) => return Err(bad(format!("input '{}' has raw and typed contents", input.name))),
            (None, None) => return Err(bad(format!("input '{}' has no data", input.name))),
        };
        let parameters = parameters(input.parameters);
        Ok(WrittenInput { name: input.name, datatype: input.datatype, shape: input.shape, parameters, contents })
    });
    let inputs = inputs.collect::<Result<_, _>>()?;
    let outputs = message.outputs.into_iter();
    let outputs = outputs.map(|output| WrittenOutput { name: output.name, parameters: parameters(output.parameters) });
    Ok(WrittenRequest {
        id: message.id,
        parameters: parameters(message.parameters),
        inputs,
        outputs: outputs.collect(),
    })
}

/// The typed contents that our inputs can have; others are ignored.
fn typed(contents: proto::InferTensorContents) -> Result<Contents, Error> {
    if contents.uint_contents.is_empty() {
        return Ok(Contents::Strings(contents.bytes_contents));
    }
    let byte = |number: u32| u8::try_from(number).map_err(|_| bad(format!("{number} is not a UINT8")));
    contents.uint_contents.into_iter().map(byte).collect::<Result<_, _>>().map(Contents::Numbers)
}

fn parameters(given: BTreeMap<String, proto::InferParameter>) -> Parameters {
    use proto::infer_parameter::ParameterChoice::*;
    let value = |parameter: proto::InferParameter| match parameter.parameter_choice {
        Some(BoolParam(flag)) => flag.into(),
        Some(Int64Param(number)) => number.into(),
        Some(Uint64Param(number)) => number.into(),
        Some(DoubleParam(number)) => number.into(),
        Some(StringParam(text)) => text.into(),
        None => Value::Null,
    };
    given.into_iter().map(|(name, parameter)| (name, value(parameter))).collect()
}

/// An answer's message, with its tensors as raw contents.
pub(super) fn answer(manifest: &Manifest, answer: Answer) -> proto::ModelInferResponse {
    let (outputs, raw_output_contents): (_, Vec<Bytes>) = answer
        .outputs
        .into_iter()
        .map(|(_, tensor)| {
            let output = proto::model_infer_response::InferOutputTensor {
                name: tensor.name.into(),
                datatype: tensor.datatype.as_str().into(),
                shape: tensor.shape,
                ..Default::default()
            };
            (output, tensor.data.to_raw())
        })
        .unzip();
    proto::ModelInferResponse {
        model_name: manifest.name.clone(),
        model_version: manifest.version.clone(),
        id: answer.id,
        outputs,
        raw_output_contents,
        ..Default::default()
    }
}

impl From<protocol::ServerMetadata> for proto::ServerMetadataResponse {
    fn from(ours: protocol::ServerMetadata) -> Self {
        let extensions = ours.extensions.iter().map(|&name| name.into()).collect();
        Self { name: ours.name.into(), version: ours.version.into(), extensions }
    }
}

impl From<protocol::ModelMetadata> for proto::ModelMetadataResponse {
    fn from(ours: protocol::ModelMetadata) -> Self {
        let tensor = |tensor: protocol::TensorMetadata| proto::model_metadata_response::TensorMetadata {
            name: tensor.name.into(),
            datatype: tensor.datatype.into(),
            shape: tensor.shape,
        };
        Self {
            name: ours.name,
            versions: ours.versions,
            platform: ours.platform.into(),
            inputs: ours.inputs.into_iter().map(tensor).collect(),
            outputs: ours.outputs.into_iter().map(tensor).collect(),
        }
    }
}

const fn data_type(datatype: DataType) -> proto::DataType {
    match datatype {
        DataType::Uint8 => proto::DataType::TypeUint8,
        DataType::Int64 => proto::DataType::TypeInt64,
        DataType::Fp32 => proto::DataType::TypeFp32,
        DataType::Bytes => proto::DataType::TypeString,
    }
}

impl From<protocol::ModelConfig> for proto::ModelConfig {
    fn from(ours: protocol::ModelConfig) -> Self {
        use proto::model_version_policy::{PolicyChoice, Specific};
        let input = |input: protocol::ConfigInput| proto::ModelInput {
            name: input.name.into(),
            data_type: data_type(input.data_type).into(),
            dims: input.dims,
            optional: input.optional,
        };
        let output = |output: protocol::ConfigOutput| proto::ModelOutput {
            name: output.name.into(),
            data_type: data_type(output.data_type).into(),
            dims: output.dims,
        };
        let versions = Specific { versions: ours.version_policy.specific.versions };
        Self {
            name: ours.name,
            platform: ours.platform.into(),
            version_policy: Some(proto::ModelVersionPolicy { policy_choice: Some(PolicyChoice::Specific(versions)) }),
            max_batch_size: ours.max_batch_size,
            input: ours.input.into_iter().map(input).collect(),
            output: ours.output.into_iter().map(output).collect(),
            backend: ours.backend.into(),
        }
    }
}

impl From<protocol::ModelStatistics> for proto::ModelStatistics {
    fn from(ours: protocol::ModelStatistics) -> Self {
        let time = |protocol::Duration { count, ns }| Some(proto::StatisticDuration { count, ns });
        let parts = ours.inference_stats;
        let batch = |batch: protocol::BatchStatistics| proto::InferBatchStatistics {
            batch_size: batch.batch_size,
            compute_input: time(batch.compute_input),
            compute_infer: time(batch.compute_infer),
            compute_output: time(batch.compute_output),
        };
        Self {
            name: ours.name,
            version: ours.version,
            last_inference: ours.last_inference,
            inference_count: ours.inference_count,
            execution_count: ours.execution_count,
            inference_stats: Some(proto::InferStatistics {
                success: time(parts.success),
                fail: time(parts.fail),
                queue: time(parts.queue),
                compute_input: time(parts.compute_input),
                compute_infer: time(parts.compute_infer),
                compute_output: time(parts.compute_output),
                cache_hit: time(parts.cache_hit),
                cache_miss: time(parts.cache_miss),
            }),
            batch_stats: ours.batch_stats.into_iter().map(batch).collect(),
        }
    }
}

fn bad(detail: String) -> Error {
    Error::new(Code::BadRequest, detail)
}
