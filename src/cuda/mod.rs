//! NVIDIA GPUs through the driver API, and their Top-K kernel. Independent of ONNX Runtime and tokio.
//!
//! `topk.cu` is the kernel, `topk.ptx` its NVRTC output (`make ptx`). Without a GPU the tests run it on an emulated
//! warp behind an emulated driver (`emulation.c`).

mod copies;
mod driver;
#[cfg(test)]
pub(crate) mod tests;
mod topk;

pub use copies::Copies;
pub use driver::{CudaError, Device, Driver, Stream};
pub use topk::{Rows, TopK};
