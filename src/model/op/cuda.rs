//! `TopKPooling` for CUDA: maps and results are in GPU memory, the work runs on ONNX Runtime's stream.

use std::{ptr::NonNull, sync::OnceLock};

use ort::{
    operator::{ComputeContext, Kernel, KernelContext, Operator, OperatorInput, OperatorOutput, ShapeInferenceContext},
    value::TensorValueType,
};

use super::{Node, at_node, infer_shape, inputs, outputs, required, without_unwinding};
use crate::cuda::{CudaError, Driver, Rows, Stream, TopK};

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
        without_unwinding(|| Ok(Pooling { node: Node::new(context)?, top_k: OnceLock::new() }))
    }

    fn infer_shape(&self, context: &mut ShapeInferenceContext) -> ort::Result<()> {
        without_unwinding(|| infer_shape(context))
    }
}

/// The operator at one node of a graph, on a GPU.
pub(super) struct Pooling {
    node: Node,
    /// Loaded at the first run: only then ONNX Runtime has a stream, which identifies the GPU. Threads may share a
    /// session, and its first run.
    top_k: OnceLock<TopK>,
}

impl Kernel for Pooling {
    fn compute(&mut self, context: &ComputeContext) -> ort::Result<()> {
        without_unwinding(|| self.pool(context)).map_err(|error| at_node(&self.node.name, &error))
    }
}

impl Pooling {
    fn pool(&self, context: &ComputeContext) -> ort::Result<()> {
        let stream = context.stream()?.map(NonNull::as_ptr);
        let stream = stream.ok_or_else(|| ort::Error::new("ONNX Runtime gives no CUDA stream"))?;
        let input = required(context.input(0)?)?.downcast::<TensorValueType<f32>>()?;
        if input.memory_info().is_cpu_accessible() {
            return Err(ort::Error::new("the input is not in the GPU's memory"));
        }
        self.launch(context, Driver::get().map_err(ort::Error::wrap)?, stream)
    }

    fn loaded(&self, driver: &'static Driver, stream: Stream) -> Result<&TopK, CudaError> {
        if let Some(loaded) = self.top_k.get() {
            return Ok(loaded);
        }
        // Of several threads one keeps its kernel, the others unload theirs.
        let new = TopK::load(driver, stream)?;
        Ok(self.top_k.get_or_init(|| new))
    }

    /// Enqueues the Top-K of the input on `stream`; the input is in the memory of the stream's GPU.
    fn launch(&self, context: &ComputeContext, driver: &'static Driver, stream: Stream) -> ort::Result<()> {
        let input = required(context.input(0)?)?.downcast::<TensorValueType<f32>>()?;
        let (map_len, pooled) = self.node.pooled(input.shape())?;
        let [n, c, _] = pooled;
        let rows = n.checked_mul(c).and_then(|rows| usize::try_from(rows).ok());
        let rows = rows.ok_or_else(|| ort::Error::new("N*C is out of range"))?;
        let values = required(context.output(0, pooled)?)?.downcast::<TensorValueType<f32>>()?;
        let indices = required(context.output(1, pooled)?)?.downcast::<TensorValueType<i64>>()?;
        let top_k = self.loaded(driver, stream).map_err(ort::Error::wrap)?;
        let work = Rows {
            rows,
            row_len: map_len,
            k: self.node.k,
            input: input.data_ptr().cast(),
            // `ort` has no mutable pointer for outputs; it is the same pointer (GetTensorMutableData).
            values: values.data_ptr().cast_mut().cast(),
            indices: indices.data_ptr().cast_mut().cast(),
        };
        #[allow(unsafe_code, reason = "the GPU's memory is reached through pointers")]
        // SAFETY: ONNX Runtime allocated tensors of these shapes for this node on this stream's GPU, and keeps them
        // until its stream has completed the node.
        unsafe { top_k.launch(stream, work) }.map_err(ort::Error::wrap)
    }
}

#[cfg(test)]
mod tests {
    use ort::{
        operator::OperatorDomain,
        session::{Session, SessionInputValue},
        value::Tensor,
    };

    use super::*;
    use crate::{
        cuda::tests::{alone, driver, stream},
        model::{op::commit_with, runtime},
        topk::by_stable_sort,
    };

    /// The operator as ONNX Runtime's CPU provider calls it, on the emulated GPU, whose memory is the CPU's.
    struct Emulated;

    struct EmulatedPooling(Pooling);

    impl Operator for Emulated {
        type Kernel<'attr> = EmulatedPooling;

        fn name(&self) -> &str {
            TopKPooling.name()
        }

        fn inputs(&self) -> impl IntoIterator<Item = OperatorInput> {
            inputs()
        }

        fn outputs(&self) -> impl IntoIterator<Item = OperatorOutput> {
            outputs()
        }

        fn create_kernel<'attr>(&self, context: &KernelContext<'attr>) -> ort::Result<EmulatedPooling> {
            TopKPooling.create_kernel(context).map(EmulatedPooling)
        }
    }

    impl Kernel for EmulatedPooling {
        fn compute(&mut self, context: &ComputeContext) -> ort::Result<()> {
            let _alone = alone();
            self.0.launch(context, driver(), stream(1))
        }
    }

    /// The operator itself, on an ONNX Runtime without a GPU.
    struct OnTheCpu;

    impl Operator for OnTheCpu {
        type Kernel<'attr> = Pooling;

        fn name(&self) -> &str {
            TopKPooling.name()
        }

        fn inputs(&self) -> impl IntoIterator<Item = OperatorInput> {
            inputs()
        }

        fn outputs(&self) -> impl IntoIterator<Item = OperatorOutput> {
            outputs()
        }

        fn create_kernel<'attr>(&self, context: &KernelContext<'attr>) -> ort::Result<Pooling> {
            TopKPooling.create_kernel(context)
        }
    }

    fn session(operator: impl Operator + 'static) -> Session {
        let environment = runtime::environment(None).expect("ONNX Runtime is there");
        let graph = include_bytes!("../../../tests/data/ops/pool.onnx");
        let builder = Session::builder(environment).expect("a builder");
        commit_with(|| OperatorDomain::new("lfm")?.add(operator), builder, graph).expect("a session")
    }

    fn maps(shape: [usize; 4]) -> Tensor<f32> {
        let values: Vec<f32> = (0..shape.iter().product()).map(|i: usize| (i * 7919 % 613) as f32).collect();
        Tensor::from_array((shape, values)).expect("the shape fits the values")
    }

    #[test]
    fn onnx_runtime_runs_the_operator_on_the_emulated_gpu() {
        let mut session = session(Emulated);
        for shape in [[1, 64, 30, 30], [3, 2, 4, 4], [0, 64, 30, 30], [2, 0, 30, 30]] {
            let maps = maps(shape);
            let outputs = session.run(ort::inputs![&maps]).expect("it runs");
            let (pooled, values) = outputs["values"].try_extract_tensor::<f32>().expect("values");
            let (_, indices) = outputs["indices"].try_extract_tensor::<i64>().expect("indices");
            assert_eq!(**pooled, [shape[0] as i64, shape[1] as i64, 16]);
            let rows = maps.extract_tensor().1.chunks(shape[2] * shape[3]);
            for (row, (values, indices)) in rows.zip(values.chunks(16).zip(indices.chunks(16))) {
                let bits: Vec<u32> = values.iter().map(|value| value.to_bits()).collect();
                assert_eq!((bits, indices.to_vec()), by_stable_sort(row, 16));
            }
        }
    }

    #[track_caller]
    fn assert_refused<'v>(session: &mut Session, input: impl Into<SessionInputValue<'v>>, reason: &str) {
        let error = session.run(ort::inputs![input]).map(drop).expect_err("it should fail").to_string();
        assert!(error.contains(reason) && !error.contains("panicked"), "{error}");
    }

    #[test]
    fn operator_errors_fail_the_run() {
        assert_refused(
            &mut session(Emulated),
            maps([1, 64, 3, 5]),
            "k is 16, must be from 1 to the 15 values of a row",
        );
        let reason = "lfm:TopKPooling node \"pool\": ONNX Runtime gives no CUDA stream";
        assert_refused(&mut session(OnTheCpu), maps([1, 1, 4, 4]), reason);
    }
}
