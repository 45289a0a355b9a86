//! NVIDIA GPUs through the driver's own API, and the Top-K kernel for them. Knows neither ONNX Runtime nor tokio.
//!
//! `topk.cu` is the kernel, `topk.ptx` what NVRTC makes of it (`make ptx`). Without a GPU its tests run it on an
//! emulated warp behind an emulated driver (`emulation.c`).

mod driver;
#[cfg(test)]
mod tests;
mod topk;

pub use driver::{CudaError, Device, Driver, Stream};
#[cfg(test)]
pub(crate) use tests::emulated_top_k;
pub use topk::{Rows, TopK};
