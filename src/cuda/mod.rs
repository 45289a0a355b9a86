//! NVIDIA GPUs through the driver's own API. Knows neither ONNX Runtime nor tokio.

mod driver;

pub use driver::{CudaError, Device, Driver};

/// The least compute capability that CUDA 13, and so ONNX Runtime's build for it, runs on.
pub const LEAST_CAPABILITY: (i32, i32) = (7, 5);
