//! The Open Inference Protocol (KServe v2) over HTTP and gRPC.
//!
//! [`protocol`] is what both transports share, and is pure: what the model's tensors are, what a request asks for, what
//! its answer holds. `infer` judges the images of one request.

pub mod grpc;
pub mod http;
mod infer;
pub mod protocol;
