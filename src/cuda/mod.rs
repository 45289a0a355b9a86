//! NVIDIA GPUs through the driver's own API, and the Top-K kernel for them. Knows neither ONNX Runtime nor tokio.
//!
//! `topk.cu` is the kernel, `topk.ptx` what NVRTC makes of it (`make ptx`). Without a GPU its tests run it on an
//! emulated warp behind an emulated driver (`emulation.c`).

mod driver;
#[cfg(test)]
pub(crate) mod tests;
mod topk;

pub use driver::{CudaError, Device, Driver, Stream};
pub use topk::{Rows, TopK};
