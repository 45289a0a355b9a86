//! The Open Inference Protocol (KServe v2) over HTTP and gRPC.
//!
//! [`protocol`] is shared by both transports and pure: the model's tensors, requests, answers. `infer` judges the
//! images of one request.

pub mod grpc;
pub mod http;
mod infer;
pub mod protocol;
