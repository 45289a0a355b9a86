//! Runs at fixed addresses: for each batch size the session's input and outputs are bound to tensors that stay (IoBinding),
//! as CUDA graphs demand. In the host's memory it works too, and is tested there.

use std::{fmt::Debug, sync::Arc};

use ort::{
    memory::{AllocationDevice, Allocator, AllocatorType, MemoryInfo, MemoryType},
    session::{IoBinding, RunOptions, Session},
    value::{PrimitiveTensorElementType, Tensor},
};

use super::{RunError, runtime};
use crate::{
    cuda::{Copies, Driver},
    image::Pixels,
};

/// The run option that names the CUDA graph to capture or replay.
const GRAPH_ID: &str = "gpu_graph_id";

/// Memory for bound tensors.
pub(super) struct Memory {
    pub(super) bound: Allocator,
    /// Pinned memory, where the host cannot reach the other.
    pub(super) staging: Option<(Allocator, Arc<Copies>)>,
}

impl Memory {
    /// The GPU's.
    ///
    /// # Errors
    /// Those of ONNX Runtime and the driver.
    pub(super) fn gpu(session: &Session) -> Result<Self, anyhow::Error> {
        let memory = MemoryInfo::new(AllocationDevice::CUDA, 0, AllocatorType::Device, MemoryType::Default)?;
        let copies = Copies::new(Driver::get()?)?;
        Ok(Self { bound: Allocator::new(session, memory)?, staging: Some((pinned(session)?, Arc::new(copies))) })
    }
}

/// A tensor that stays where it is, and its copy in pinned memory where the host cannot reach it.
struct Fixed<T: PrimitiveTensorElementType + Debug> {
    bound: Tensor<T>,
    staged: Option<(Tensor<T>, Arc<Copies>)>,
}

impl<T: PrimitiveTensorElementType + Debug + Copy> Fixed<T> {
    fn new(memory: &Memory, shape: Vec<i64>) -> ort::Result<Self> {
        let staged = match &memory.staging {
            Some((pinned, copies)) => Some((Tensor::new(pinned, shape.clone())?, Arc::clone(copies))),
            None => None,
        };
        Ok(Self { bound: Tensor::new(&memory.bound, shape)?, staged })
    }

    /// Reads it after a run.
    fn read(&mut self) -> Result<&[T], RunError> {
        let Some((staged, copies)) = &mut self.staged else {
            return Ok(self.bound.try_extract_tensor::<T>().map_err(failed)?.1);
        };
        let (_, values) = staged.try_extract_tensor_mut::<T>().map_err(failed)?;
        #[allow(unsafe_code, reason = "a copy out of the GPU's memory")]
        // SAFETY: both tensors have this type and one shape; the run that wrote it is over.
        unsafe { copies.to_host(self.bound.data_ptr(), values) }.map_err(failed)?;
        Ok(values)
    }
}

impl Fixed<u8> {
    /// Writes a batch of its size before a run.
    fn write(&mut self, batch: &[Pixels]) -> Result<(), RunError> {
        let host = self.staged.as_mut().map_or(&mut self.bound, |(staged, _)| staged);
        let (_, bytes) = host.try_extract_tensor_mut::<u8>().map_err(failed)?;
        fill(bytes, batch);
        if let Some((staged, copies)) = &self.staged {
            let (_, bytes) = staged.try_extract_tensor::<u8>().map_err(failed)?;
            #[allow(unsafe_code, reason = "a copy into the GPU's memory")]
            // SAFETY: both tensors have one shape, `staged` is in pinned memory, and no run is in progress.
            unsafe { copies.to_gpu(bytes, self.bound.data_ptr_mut()) }.map_err(failed)?;
        }
        Ok(())
    }
}

/// What a run gives, as the graph has it.
pub(super) struct Raw<'a> {
    pub(super) logits: &'a [f32],
    /// Values and places, of a graph that has them.
    pub(super) topk: Option<(&'a [f32], &'a [i64])>,
}

/// The tensors of one batch size.
pub(super) struct Bound {
    pixels: Fixed<u8>,
    logit: Fixed<f32>,
    /// Values and places, of a graph that has them.
    topk: Option<(Fixed<f32>, Fixed<i64>)>,
    options: RunOptions,
    /// Last, so that it is dropped last: it keeps the session, whose memory the tensors may be in.
    binding: IoBinding,
}

impl Bound {
    /// Binds batches of 1 to `largest` images of this width and height, all before the first run: a graph that is captured
    /// later uses memory that is free then.
    ///
    /// # Errors
    /// Those of ONNX Runtime.
    pub(super) fn up_to(
        largest: usize,
        [width, height]: [u32; 2],
        session: &Session,
        memory: &Memory,
    ) -> ort::Result<Vec<Self>> {
        let bind = |images: usize| {
            let images = images as i64;
            let shape = |name: &str| {
                let output = session.outputs().iter().find(|output| output.name() == name)?;
                // The sides that are not fixed are the batch's.
                let sides = output.dtype().tensor_shape()?.iter();
                Some(sides.map(|&side| if side < 0 { images } else { side }).collect::<Vec<_>>())
            };
            let logit = shape("logit").ok_or_else(|| ort::Error::new("the graph has no output logit"))?;
            let pixels = Fixed::<u8>::new(memory, vec![images, height.into(), width.into(), 3])?;
            let mut logit = Fixed::new(memory, logit)?;
            let mut binding = session.create_binding()?;
            binding.bind_input("pixels", &pixels.bound)?;
            binding.bind_output("logit", &mut logit.bound)?;
            let topk = match (shape("topk_values"), shape("topk_indices")) {
                (Some(values), Some(indices)) => {
                    let (mut values, mut indices) = (Fixed::new(memory, values)?, Fixed::new(memory, indices)?);
                    binding.bind_output("topk_values", &mut values.bound)?;
                    binding.bind_output("topk_indices", &mut indices.bound)?;
                    Some((values, indices))
                }
                _ => None,
            };
            let mut options = RunOptions::new()?;
            options.set(GRAPH_ID, images.to_string())?;
            Ok(Self { pixels, logit, topk, options, binding })
        };
        (1..=largest).map(bind).collect()
    }

    /// Runs a batch of its size. With CUDA graphs the first one is captured, and later ones are replayed.
    ///
    /// # Errors
    /// Those of ONNX Runtime and the driver.
    pub(super) fn run(&mut self, session: &mut Session, batch: &[Pixels]) -> Result<Raw<'_>, RunError> {
        self.pixels.write(batch)?;
        session.run_binding_with_options(&self.binding, &self.options).map_err(failed)?;
        let topk = match &mut self.topk {
            Some((values, indices)) => Some((values.read()?, indices.read()?)),
            None => None,
        };
        Ok(Raw { logits: self.logit.read()?, topk })
    }
}

/// Writes a batch to a tensor of its size.
pub(super) fn fill(bytes: &mut [u8], batch: &[Pixels]) {
    let image = bytes.len() / batch.len().max(1);
    for (place, pixels) in bytes.chunks_exact_mut(image.max(1)).zip(batch) {
        place.copy_from_slice(pixels.as_bytes());
    }
}

/// Allocator of pinned host memory, which the GPU reads by DMA.
pub(super) fn pinned(session: &Session) -> ort::Result<Allocator> {
    let memory = MemoryInfo::new(AllocationDevice::CUDA_PINNED, 0, AllocatorType::Device, MemoryType::CPUInput)?;
    Allocator::new(session, memory)
}

/// Options of a run that is neither captured nor replayed, of a session with CUDA graphs.
///
/// # Errors
/// Those of ONNX Runtime.
pub(super) fn without_graph() -> ort::Result<RunOptions> {
    let mut options = RunOptions::new()?;
    options.set(GRAPH_ID, "-1")?;
    Ok(options)
}

pub(super) fn failed(error: impl std::error::Error) -> RunError {
    RunError(runtime::one_line(&error))
}
