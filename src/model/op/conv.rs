//! `lfm:ResidueConv` and `lfm:WinogradConv`: the convolutions of [`crate::conv`] in ONNX Runtime, on its CPU provider.
//!
//! | operator | input | weight | bias | output, float32 |
//! |---|---|---|---|---|
//! | `ResidueConv` | uint8 (N, H, W, 3), H and W even | float32 (M, 3, 2, 2) | float32 (M) | (N, H/2-1, W/2-1, M) |
//! | `WinogradConv`, `pool` 0 | float32 (N, H, W, C) | float32 (M, C, 2, 2) | float32 (M) | (N, H-1, W-1, M) |
//! | `WinogradConv`, `pool` 1 | the same | the same | the same | (N, (H-1)/2, (W-1)/2, M), rounded down |
//!
//! Weight and bias must be constants of the graph: they are transformed once, when the session is built. N may be 0.

use std::{
    marker::PhantomData,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use ort::{
    operator::{ComputeContext, Kernel, KernelContext, Operator, OperatorInput, OperatorOutput},
    value::{PrimitiveTensorElementType, TensorElementType, TensorValueType},
};

use super::{located, required, without_unwinding};
use crate::conv::{self, Arena, Bands, ResidueConv, WinogradConv};

/// The differences between the two operators.
pub(super) trait Layer: Bands<Input: PrimitiveTensorElementType> + Send + Sized + 'static {
    const NAME: &'static str;
    const INPUT: TensorElementType;

    /// The lengths of `weight` (M, C, 2, 2) and `bias` have been checked against their shapes.
    fn build(context: &KernelContext<'_>, weight: &[f32], bias: &[f32]) -> ort::Result<Self>;
}

impl Layer for ResidueConv {
    const NAME: &'static str = "ResidueConv";
    const INPUT: TensorElementType = TensorElementType::Uint8;

    fn build(_: &KernelContext<'_>, weight: &[f32], bias: &[f32]) -> ort::Result<Self> {
        Self::new(conv::Kernel::fastest(), weight, bias).map_err(ort::Error::wrap)
    }
}

impl Layer for WinogradConv {
    const NAME: &'static str = "WinogradConv";
    const INPUT: TensorElementType = TensorElementType::Float32;

    fn build(context: &KernelContext<'_>, weight: &[f32], bias: &[f32]) -> ort::Result<Self> {
        let pool = match context.get::<i64>("pool") {
            Some(0) => false,
            Some(1) => true,
            other => {
                let found = other.map_or_else(|| "missing".into(), |other| other.to_string());
                return Err(ort::Error::new(format!("the attribute pool is {found}, must be 0 or 1")));
            }
        };
        Self::new(conv::Kernel::fastest(), weight, bias, pool).map_err(ort::Error::wrap)
    }
}

/// The operator of a layer.
pub(super) struct Convolution<L> {
    arena: Arc<Arena>,
    layer: PhantomData<fn() -> L>,
}

impl<L> Convolution<L> {
    /// All operators of a domain share its working memory; in the server each session has its own domain.
    pub(super) fn new(arena: &Arc<Arena>) -> Self {
        Self { arena: Arc::clone(arena), layer: PhantomData }
    }
}

impl<L: Layer> Operator for Convolution<L> {
    type Kernel<'attr> = Node<L>;

    fn name(&self) -> &str {
        L::NAME
    }

    fn inputs(&self) -> impl IntoIterator<Item = OperatorInput> {
        [L::INPUT, TensorElementType::Float32, TensorElementType::Float32].map(OperatorInput::required)
    }

    fn outputs(&self) -> impl IntoIterator<Item = OperatorOutput> {
        [OperatorOutput::required(TensorElementType::Float32)]
    }

    fn create_kernel<'attr>(&self, context: &KernelContext<'attr>) -> ort::Result<Node<L>> {
        let name = context.node_name()?;
        match without_unwinding(|| build(context)) {
            Ok(layer) => Ok(Node { name, layer, arena: Arc::clone(&self.arena) }),
            Err(error) => Err(located(L::NAME, &name, &error)),
        }
    }
}

fn build<L: Layer>(context: &KernelContext<'_>) -> ort::Result<L> {
    let constant = |at: usize, name: &str| {
        let constant = context.constant_input::<TensorValueType<f32>>(at);
        constant.map_err(|error| ort::Error::new(format!("the {name} must be a constant: {}", error.message())))
    };
    let (weight, bias) = (constant(1, "weight")?, constant(2, "bias")?);
    let ((shape, weight), (maps, bias)) = (weight.extract_tensor(), bias.extract_tensor());
    match (&**shape, &**maps) {
        (&[m, _, 2, 2], &[maps]) if m == maps => L::build(context, weight, bias),
        _ => Err(ort::Error::new(format!("weight {shape} and bias {maps} must have the shapes (M, C, 2, 2) and (M)"))),
    }
}

/// The operator at one node of a graph.
pub(super) struct Node<L> {
    /// For errors: a graph has several.
    name: String,
    layer: L,
    arena: Arc<Arena>,
}

impl<L: Layer> Kernel for Node<L> {
    fn compute(&mut self, context: &ComputeContext) -> ort::Result<()> {
        without_unwinding(|| self.convolve(context)).map_err(|error| located(L::NAME, &self.name, &error))
    }
}

impl<L: Layer> Node<L> {
    fn convolve(&self, context: &ComputeContext) -> ort::Result<()> {
        let input = required(context.input(0)?)?;
        let (shape, images) = input.try_extract_tensor::<L::Input>()?;
        let channels = self.layer.channels();
        let wrong = || ort::Error::new(format!("the input has the shape {shape}, must be (N, H, W, {channels})"));
        let &[n, height, width, found] = &**shape else { return Err(wrong()) };
        let size = [height, width].map(|side| usize::try_from(side).unwrap_or(0));
        if usize::try_from(found) != Ok(channels) {
            return Err(wrong());
        }
        let output_shape = self.layer.output(size).map_err(ort::Error::wrap)?;
        let [rows, columns, maps] = output_shape.map(|side| side as i64);
        let mut output = required(context.output(0, [n, rows, columns, maps])?)?;
        let (_, output) = output.try_extract_tensor_mut::<f32>()?;

        let panicked = AtomicBool::new(false);
        let mut spread = Ok(());
        let done = conv::run(&self.layer, size, images, output, &self.arena, |bands, work| {
            // Each free thread takes the next band. No panic may unwind into ONNX Runtime's threads.
            spread = context.par_for(bands, bands, |band| {
                if catch_unwind(AssertUnwindSafe(|| work(band))).is_err() {
                    panicked.store(true, Ordering::Relaxed);
                }
            });
        });
        done.map_err(ort::Error::wrap).and(spread)?;
        if panicked.into_inner() { Err(ort::Error::new("panicked")) } else { Ok(()) }
    }
}
