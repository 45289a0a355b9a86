//! The operators of the domain `lfm`: the convolutions ([`conv`]), and `lfm:TopKPooling`, the Top-K of every feature
//! map.
//!
//! `TopKPooling`'s input: float32 (N, C, H, W). Attribute: `k`, an integer from 1 to H*W. Outputs: `values` float32
//! (N, C, k) and `indices` int64 (N, C, k), each index into the flattened H*W map, in the order that [`crate::topk`]
//! documents. N may be 0.
//!
//! `TopKPooling` exists for the CPU and for CUDA ([`cuda`]), with identical results.
//!
//! Rows are not distributed over ONNX Runtime's threads: together they take about a thousandth of a run, and a session
//! usually has one thread.

mod conv;
mod cuda;

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Mutex, PoisonError},
};

use ort::{
    operator::{
        ComputeContext, Kernel, KernelContext, Operator, OperatorDomain, OperatorInput, OperatorOutput,
        ShapeInferenceContext,
    },
    session::{Session, builder::SessionBuilder},
    value::{Shape, SymbolicDimensions, TensorElementType, ValueType},
};

use self::conv::Convolution;
pub use self::conv::Layers;
use crate::{conv::Arena, topk};

/// The domain `lfm` with its operators. Not `Send`: each session has its own, created on the thread that builds it.
///
/// # Errors
/// Those of ONNX Runtime.
pub fn operator_domain(layers: &Layers) -> ort::Result<OperatorDomain> {
    let arena = Arc::new(Arena::default());
    OperatorDomain::new("lfm")?
        .add(TopKPooling)?
        .add(cuda::TopKPooling)?
        .add(Convolution { arena: Arc::clone(&arena), layers: layers.residue() })?
        .add(Convolution { arena, layers: layers.winograd() })
}

/// Builds a session on `graph`, with the domain `lfm`; its convolutions are those of `layers`, where they are equal.
///
/// # Errors
/// Those of ONNX Runtime.
pub fn commit(builder: SessionBuilder, graph: &[u8], layers: &Layers) -> ort::Result<Session> {
    commit_with(|| operator_domain(layers), builder, graph)
}

fn commit_with(
    domain: impl FnOnce() -> ort::Result<OperatorDomain>,
    builder: SessionBuilder,
    graph: &[u8],
) -> ort::Result<Session> {
    // ONNX Runtime has one table of domains per process. Two sessions built at the same time both find `lfm`
    // missing and both add it: one fails with "the domain is already exist". Seen on 1.31.1.
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    builder.with_operators(domain()?)?.commit_from_memory(graph)
}

struct TopKPooling;

impl Operator for TopKPooling {
    type Kernel<'attr> = Pooling;

    fn name(&self) -> &str {
        "TopKPooling"
    }

    fn inputs(&self) -> impl IntoIterator<Item = OperatorInput> {
        inputs()
    }

    fn outputs(&self) -> impl IntoIterator<Item = OperatorOutput> {
        outputs()
    }

    fn create_kernel<'attr>(&self, context: &KernelContext<'attr>) -> ort::Result<Pooling> {
        without_unwinding(|| Ok(Pooling { node: Node::new(context)?, top_k: topk::Kernel::fastest() }))
    }

    fn infer_shape(&self, context: &mut ShapeInferenceContext) -> ort::Result<()> {
        without_unwinding(|| infer_shape(context))
    }
}

fn inputs() -> [OperatorInput; 1] {
    [OperatorInput::required(TensorElementType::Float32)]
}

fn outputs() -> [OperatorOutput; 2] {
    [OperatorOutput::required(TensorElementType::Float32), OperatorOutput::required(TensorElementType::Int64)]
}

/// The operator at one node of a graph, on the CPU.
struct Pooling {
    node: Node,
    top_k: topk::Kernel,
}

impl Kernel for Pooling {
    fn compute(&mut self, context: &ComputeContext) -> ort::Result<()> {
        without_unwinding(|| self.pool(context)).map_err(|error| at_node(&self.node.name, &error))
    }
}

impl Pooling {
    fn pool(&self, context: &ComputeContext) -> ort::Result<()> {
        let input = required(context.input(0)?)?;
        let (shape, maps) = input.try_extract_tensor::<f32>()?;
        let (map_len, pooled) = self.node.pooled(shape)?;
        let mut values = required(context.output(0, pooled)?)?;
        let mut indices = required(context.output(1, pooled)?)?;
        let (_, values) = values.try_extract_tensor_mut::<f32>()?;
        let (_, indices) = indices.try_extract_tensor_mut::<i64>()?;
        self.top_k.top_k(self.node.k, map_len, maps, values, indices).map_err(ort::Error::wrap)
    }
}

/// Name and attributes of a node.
struct Node {
    /// For errors: a graph may have several such nodes.
    name: String,
    k: usize,
}

impl Node {
    fn new(context: &KernelContext<'_>) -> ort::Result<Self> {
        let name = context.node_name()?;
        let k: Option<i64> = context.get("k");
        let k = k.ok_or_else(|| at_node(&name, &"the integer attribute k is missing"))?;
        match usize::try_from(k) {
            Ok(k) if k > 0 => Ok(Self { name, k }),
            _ => Err(at_node(&name, &format!("k is {k}, must be at least 1"))),
        }
    }

    /// The number of values in a map, and the shape of the outputs, for an input of this shape.
    fn pooled(&self, shape: &Shape) -> ort::Result<(usize, [i64; 3])> {
        let &[n, c, h, w] = &**shape else {
            let message = format!("the input has the shape {shape}, must be (N, C, H, W)");
            return Err(ort::Error::new(message));
        };
        // An empty batch may have sides whose product overflows.
        let map_len = h.checked_mul(w).and_then(|len| usize::try_from(len).ok());
        let map_len = map_len.ok_or_else(|| ort::Error::new("H*W is out of range"))?;
        // Before the outputs are allocated: a wrong k may be large.
        topk::check(self.k, map_len).map_err(ort::Error::wrap)?;
        Ok((map_len, [n, c, self.k as i64]))
    }
}

fn infer_shape(context: &mut ShapeInferenceContext) -> ort::Result<()> {
    // No error is reported here: ONNX Runtime 1.31 ignores (and leaks) errors of shape inference, and leaks
    // memory when given a negative dimension. The kernel checks everything.
    let Some(k) = context.attr::<i64>("k").ok().filter(|&k| k > 0) else {
        return Ok(());
    };
    let inputs = context.inputs();
    let Some(ValueType::Tensor { shape, dimension_symbols, .. }) = inputs.first() else {
        return Ok(());
    };
    // An unknown rank is 0.
    let (&[n, c, _, _], [n_symbol, c_symbol, ..]) = (&**shape, &**dimension_symbols) else {
        return Ok(());
    };
    // An unknown size is -1 and must have a symbol: without one ONNX Runtime takes -1 as the actual size, and
    // warns at every run that the outputs have a different one.
    let symbol = |size: i64, symbol: &String, name: &str| match size {
        ..0 if symbol.is_empty() => name.to_owned(),
        _ => symbol.clone(),
    };
    for (output, ty) in [TensorElementType::Float32, TensorElementType::Int64].into_iter().enumerate() {
        let symbols = [symbol(n, n_symbol, "pooled_n"), symbol(c, c_symbol, "pooled_c"), String::new()];
        let pooled =
            ValueType::Tensor { ty, shape: Shape::new([n, c, k]), dimension_symbols: SymbolicDimensions::new(symbols) };
        context.set_output(output, &pooled)?;
    }
    Ok(())
}

/// An input or output that the operator declares as required.
fn required<T>(value: Option<T>) -> ort::Result<T> {
    value.ok_or_else(|| ort::Error::new("a required input or output is missing"))
}

fn at_node(node: &str, error: &dyn std::fmt::Display) -> ort::Error {
    located("TopKPooling", node, error)
}

fn located(operator: &str, node: &str, error: &dyn std::fmt::Display) -> ort::Error {
    ort::Error::new(format!("lfm:{operator} node \"{node}\": {error}"))
}

/// Turns a panic into an error: unwinding into ONNX Runtime's C++ aborts the process.
fn without_unwinding<T>(f: impl FnOnce() -> ort::Result<T>) -> ort::Result<T> {
    // The state is not used after a panic: a failed kernel is not created, a failed run is dropped.
    catch_unwind(AssertUnwindSafe(f)).unwrap_or_else(|_| Err(ort::Error::new("panicked")))
}

#[cfg(test)]
mod tests {
    use super::*;

    // Uses ONNX Runtime at ORT_DYLIB_PATH: an `ort::Error` is made by the library.
    #[test]
    fn a_panic_becomes_an_error_that_names_the_node() {
        let result = without_unwinding(|| -> ort::Result<()> { panic!("in a kernel") });
        let error = result.map_err(|error| at_node("pool", &error)).unwrap_err();
        assert_eq!(error.message(), "lfm:TopKPooling node \"pool\": panicked");
    }
}
