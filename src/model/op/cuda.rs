//! The operator for CUDA: the same node, its maps and results in the GPU's memory, its work on ONNX Runtime's stream.

use std::ptr::NonNull;

use ort::{
    operator::{ComputeContext, Kernel, KernelContext, Operator, OperatorInput, OperatorOutput, ShapeInferenceContext},
    value::TensorValueType,
};

use super::{Node, at_node, infer_shape, inputs, outputs, required, without_unwinding};
use crate::cuda::{Driver, Rows, TopK};

pub(super) struct TopKPooling;

impl Operator for TopKPooling {
    type Kernel<'attr> = Pooling;

    fn name(&self) -> &str {
        "TopKPooling"
    }

    fn execution_provider_type(&self) -> Option<&str> {
        Some("CUDAExecutionProvider")
    }

    fn inputs(&self) -> impl IntoIterator<Item = OperatorInput> {
        inputs()
    }

    fn outputs(&self) -> impl IntoIterator<Item = OperatorOutput> {
        outputs()
    }

    fn create_kernel<'attr>(&self, context: &KernelContext<'attr>) -> ort::Result<Pooling> {
        without_unwinding(|| Ok(Pooling { node: Node::new(context)?, top_k: None }))
    }

    fn infer_shape(&self, context: &mut ShapeInferenceContext) -> ort::Result<()> {
        without_unwinding(|| infer_shape(context))
    }
}

/// The operator at one node of a graph, on a GPU.
pub(super) struct Pooling {
    node: Node,
    /// Loaded at the first run: before, ONNX Runtime has no stream to tell the GPU by.
    top_k: Option<TopK>,
}

impl Kernel for Pooling {
    fn compute(&mut self, context: &ComputeContext) -> ort::Result<()> {
        without_unwinding(|| self.pool(context)).map_err(|error| at_node(&self.node.name, &error))
    }
}

impl Pooling {
    fn pool(&mut self, context: &ComputeContext) -> ort::Result<()> {
        let stream = context.stream()?.map(NonNull::as_ptr);
        let stream = stream.ok_or_else(|| ort::Error::new("ONNX Runtime gives no CUDA stream"))?;
        let input = required(context.input(0)?)?.downcast::<TensorValueType<f32>>()?;
        if input.memory_info().is_cpu_accessible() {
            return Err(ort::Error::new("the input is not in the GPU's memory"));
        }
        let (map_len, pooled) = self.node.pooled(input.shape())?;
        let [n, c, _] = pooled;
        let rows = n.checked_mul(c).and_then(|rows| usize::try_from(rows).ok());
        let rows = rows.ok_or_else(|| ort::Error::new("N*C is out of range"))?;
        let values = required(context.output(0, pooled)?)?.downcast::<TensorValueType<f32>>()?;
        let indices = required(context.output(1, pooled)?)?.downcast::<TensorValueType<i64>>()?;
        let top_k = match &mut self.top_k {
            Some(loaded) => loaded,
            none => {
                none.insert(TopK::load(Driver::get().map_err(ort::Error::wrap)?, stream).map_err(ort::Error::wrap)?)
            }
        };
        let work = Rows {
            rows,
            row_len: map_len,
            k: self.node.k,
            input: input.data_ptr().cast(),
            // `ort` has no mutable one for outputs; ONNX Runtime's own function gives no other (GetTensorMutableData).
            values: values.data_ptr().cast_mut().cast(),
            indices: indices.data_ptr().cast_mut().cast(),
        };
        #[allow(unsafe_code, reason = "the GPU's memory is reached through pointers")]
        // SAFETY: ONNX Runtime allocated tensors of these shapes for this node on this stream's GPU, and keeps them
        // until its stream has come past the node.
        unsafe { top_k.launch(stream, work) }.map_err(ort::Error::wrap)
    }
}
