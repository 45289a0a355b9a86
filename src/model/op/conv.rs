//! `lfm:ResidueConv` and `lfm:WinogradConv`: the convolutions of [`crate::conv`] in ONNX Runtime, on its CPU provider.
//!
//! | operator | input | weight | bias | output, float32 |
//! |---|---|---|---|---|
//! | `ResidueConv` | uint8 (N, H, W, 3), H and W even | float32 (M, 3, 2, 2) | float32 (M) | (N, H/2-1, W/2-1, M) |
//! | `WinogradConv`, `pool` 0 | float32 (N, H, W, C) | float32 (M, C, 2, 2) | float32 (M) | (N, H-1, W-1, M) |
//! | `WinogradConv`, `pool` 1 | the same | the same | the same | (N, (H-1)/2, (W-1)/2, M), rounded down |
//!
//! Weight and bias must be constants of the graph: they are transformed once, when the session is built. Sessions with
//! equal constants share what they became (34 MB in the bundled model). N may be 0.

use std::{
    collections::HashMap,
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicBool, Ordering},
    },
};

use ort::{
    operator::{ComputeContext, Kernel, KernelContext, Operator, OperatorInput, OperatorOutput},
    value::{PrimitiveTensorElementType, TensorElementType, TensorValueType},
};

use sha2::{Digest, Sha256};

use super::{located, required, without_unwinding};
use crate::conv::{self, Arena, Bands, ResidueConv, WinogradConv};

/// The differences between the two operators.
pub(super) trait Layer: Bands<Input: PrimitiveTensorElementType> + Send + Sized + 'static {
    const NAME: &'static str;
    const INPUT: TensorElementType;

    /// Whether the layer pools: the node's attribute, if it has one.
    fn pools(context: &KernelContext<'_>) -> ort::Result<bool>;

    /// The lengths of `weight` (M, C, 2, 2) and `bias` have been checked against their shapes.
    fn build(target: Target, weight: &[f32], bias: &[f32], pool: bool) -> ort::Result<Self>;
}

impl Layer for ResidueConv {
    const NAME: &'static str = "ResidueConv";
    const INPUT: TensorElementType = TensorElementType::Uint8;

    fn pools(_: &KernelContext<'_>) -> ort::Result<bool> {
        Ok(false)
    }

    fn build(target: Target, weight: &[f32], bias: &[f32], _: bool) -> ort::Result<Self> {
        Self::new(target.kernel, weight, bias).map_err(ort::Error::wrap)
    }
}

impl Layer for WinogradConv {
    const NAME: &'static str = "WinogradConv";
    const INPUT: TensorElementType = TensorElementType::Float32;

    fn pools(context: &KernelContext<'_>) -> ort::Result<bool> {
        match context.get::<i64>("pool") {
            Some(0) => Ok(false),
            Some(1) => Ok(true),
            other => {
                let found = other.map_or_else(|| "missing".into(), |other| other.to_string());
                Err(ort::Error::new(format!("the attribute pool is {found}, must be 0 or 1")))
            }
        }
    }

    fn build(target: Target, weight: &[f32], bias: &[f32], pool: bool) -> ort::Result<Self> {
        let layer = Self::new(target.kernel, weight, bias, pool).map_err(ort::Error::wrap)?;
        Ok(layer.for_threads(target.threads))
    }
}

/// What the layers of a model's sessions are built for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Target {
    kernel: conv::Kernel,
    /// Threads of a session.
    threads: usize,
}

/// The layers of the sessions that live, to be shared by the next ones.
#[derive(Debug, Clone)]
pub struct Layers {
    residue: Arc<Shared<ResidueConv>>,
    winograd: Arc<Shared<WinogradConv>>,
}

impl Layers {
    /// For sessions of `threads` threads on `kernel`.
    #[must_use]
    pub fn new(kernel: conv::Kernel, threads: usize) -> Self {
        let target = Target { kernel, threads };
        Self { residue: Arc::new(Shared::new(target)), winograd: Arc::new(Shared::new(target)) }
    }

    pub(super) fn residue(&self) -> Arc<Shared<ResidueConv>> {
        Arc::clone(&self.residue)
    }

    pub(super) fn winograd(&self) -> Arc<Shared<WinogradConv>> {
        Arc::clone(&self.winograd)
    }
}

impl Default for Layers {
    /// On the fastest kernel, for sessions of several threads.
    fn default() -> Self {
        Self::new(conv::Kernel::fastest(), 2)
    }
}

pub(super) struct Shared<L> {
    target: Target,
    /// By a hash of their constants: names of nodes repeat in other models' graphs.
    layers: Mutex<HashMap<[u8; 32], Weak<L>>>,
}

impl<L> fmt::Debug for Shared<L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("target", &self.target).finish_non_exhaustive()
    }
}

impl<L: Layer> Shared<L> {
    fn new(target: Target) -> Self {
        Self { target, layers: Mutex::default() }
    }

    fn get_or_build(&self, weight: &[f32], bias: &[f32], pool: bool) -> ort::Result<Arc<L>> {
        let mut hash = Sha256::new_with_prefix([u8::from(pool)]);
        hash.update(weight.len().to_le_bytes());
        weight.iter().chain(bias).for_each(|value| hash.update(value.to_le_bytes()));
        let key = hash.finalize().into();
        // Held while the layer is built: sessions that start side by side wait for it instead of building it too.
        let mut layers = self.layers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(layer) = layers.get(&key).and_then(Weak::upgrade) {
            return Ok(layer);
        }
        layers.retain(|_, layer| layer.strong_count() > 0);
        let layer = Arc::new(L::build(self.target, weight, bias, pool)?);
        layers.insert(key, Arc::downgrade(&layer));
        Ok(layer)
    }
}

/// The operator of a layer.
pub(super) struct Convolution<L> {
    /// Working memory of all operators of a domain; in the server each session has its own domain.
    pub(super) arena: Arc<Arena>,
    pub(super) layers: Arc<Shared<L>>,
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
        match without_unwinding(|| build(context, &self.layers)) {
            Ok(layer) => Ok(Node { name, layer, arena: Arc::clone(&self.arena) }),
            Err(error) => Err(located(L::NAME, &name, &error)),
        }
    }
}

fn build<L: Layer>(context: &KernelContext<'_>, layers: &Shared<L>) -> ort::Result<Arc<L>> {
    let constant = |at: usize, name: &str| {
        let constant = context.constant_input::<TensorValueType<f32>>(at);
        constant.map_err(|error| ort::Error::new(format!("the {name} must be a constant: {}", error.message())))
    };
    let (weight, bias) = (constant(1, "weight")?, constant(2, "bias")?);
    let ((shape, weight), (maps, bias)) = (weight.extract_tensor(), bias.extract_tensor());
    match (&**shape, &**maps) {
        (&[m, _, 2, 2], &[maps]) if m == maps => layers.get_or_build(weight, bias, L::pools(context)?),
        _ => Err(ort::Error::new(format!("weight {shape} and bias {maps} must have the shapes (M, C, 2, 2) and (M)"))),
    }
}

/// The operator at one node of a graph.
pub(super) struct Node<L> {
    /// For errors: a graph has several.
    name: String,
    layer: Arc<L>,
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
        let done = conv::run(&*self.layer, size, images, output, &self.arena, |bands, work| {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_layers_are_shared_while_one_lives() {
        let layers = Shared::<WinogradConv>::new(Target { kernel: conv::Kernel::fastest(), threads: 1 });
        let (weight, bias) = (vec![0.5; 2 * 3 * 4], vec![0.25; 2]);
        let get = |weight: &[f32], pool| layers.get_or_build(weight, &bias, pool).expect("a layer");
        let first = get(&weight, true);
        assert!(Arc::ptr_eq(&first, &get(&weight, true)));
        assert!(!Arc::ptr_eq(&first, &get(&weight, false)));
        let mut other = weight.clone();
        other[23] = 0.75;
        assert!(!Arc::ptr_eq(&first, &get(&other, true)));

        let gone = Arc::downgrade(&first);
        drop(first);
        assert!(gone.upgrade().is_none(), "the cache keeps no layer alive");
        get(&other, true);
        assert_eq!(layers.layers.lock().expect("no panic").len(), 1);
    }
}
