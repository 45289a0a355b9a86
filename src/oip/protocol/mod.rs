//! The Open Inference Protocol (KServe v2, with the Triton extensions that it names), as far as its two transports
//! share it: the model's tensors, requests, answers. Pure.
//!
//! HTTP ([`json`]) and gRPC parse a request into a [`WrittenRequest`]; [`Request::check`] turns that into images and
//! requested outputs; [`Output::tensor`] builds the answer's tensors.

mod few;
pub mod json;
pub mod limits;
mod model;
mod request;
mod statistics;
mod tensor;

pub use model::{ConfigInput, ConfigOutput, ModelConfig, ModelMetadata, ServerMetadata, TensorMetadata, find_model};
pub use request::{Contents, Image, Parameters, Request, Wanted, WrittenInput, WrittenOutput, WrittenRequest};
pub use statistics::{BatchStatistics, Duration, InferStatistics, ModelStatistics};
pub use tensor::{Data, DataType, Judged, Output, Spec, Tensor, inputs};
