//! The Open Inference Protocol (KServe v2, with the extensions of Triton that it names), as far as its two
//! transports share it: what the model's tensors are, what a request asks for, what its answer holds. Pure.
//!
//! HTTP ([`json`]) and gRPC bring a request into the form of [`WrittenRequest`];
//! [`Request::check`] turns that into images and wishes; [`Output::tensor`] makes the answer's tensors.

mod few;
pub mod json;
pub mod limits;
mod model;
mod request;
mod statistics;
mod tensor;

pub use model::{ConfigInput, ConfigOutput, ModelConfig, ModelMetadata, ServerMetadata, TensorMetadata, check_model};
pub use request::{Contents, Image, Parameters, Request, Wanted, WrittenInput, WrittenOutput, WrittenRequest};
pub use statistics::{BatchStatistics, Duration, InferStatistics, ModelStatistics};
pub use tensor::{Data, DataType, Judged, Output, Spec, Tensor, inputs};
