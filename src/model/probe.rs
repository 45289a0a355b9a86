//! One graph of a model folder in its own session, to inspect it and compare it with another.

use super::{Execution, Output, RunError, SessionOptions, session::Runner};
use crate::{
    config::{Auto, ModelConfig},
    conv,
    image::Pixels,
};

/// A graph in a session, for `doctor` and `bench`.
pub struct GraphProbe {
    pub(super) runner: Runner,
}

impl GraphProbe {
    /// Reads the graph `name` of the model folder and builds a session on the CPU.
    ///
    /// # Errors
    /// One line for the operator.
    pub fn start(config: &ModelConfig, name: &'static str) -> Result<Self, anyhow::Error> {
        Self::start_on(conv::Kernel::fastest(), config, name)
    }

    /// The same with the convolutions of `kernel`.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn start_on(kernel: conv::Kernel, config: &ModelConfig, name: &'static str) -> Result<Self, anyhow::Error> {
        let options = SessionOptions::read_graph(config, Auto::Fixed(1), name, Execution::CPU)?.on_kernel(kernel);
        Self::of(&options)
    }

    /// A session of these options.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub(super) fn of(options: &SessionOptions) -> Result<Self, anyhow::Error> {
        Ok(Self { runner: Runner::new(options)? })
    }

    /// Digest of the weights, from the graph's metadata.
    pub fn digest(&self) -> Option<String> {
        self.runner.session.metadata().ok()?.custom("lfm.digest")
    }

    /// Runs one image.
    ///
    /// # Errors
    /// If the graph does not run, or its outputs do not match the interface.
    pub fn run(&mut self, pixels: &Pixels) -> Result<Output, RunError> {
        let mut outputs = self.run_all(std::slice::from_ref(pixels))?;
        outputs.pop().ok_or_else(|| RunError("the graph gave no output".into()))
    }

    /// An image of noise of the graph's input size.
    pub fn noise(&self, seed: u32) -> Option<Pixels> {
        let [width, height] = self.runner.input();
        let mut state = seed;
        let bytes = std::iter::repeat_with(|| {
            // Numerical Recipes' linear congruential generator; its upper bits are the random ones.
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        });
        Pixels::sized(bytes.take(width as usize * height as usize * 3).collect(), width, height)
    }

    /// The largest difference between the logits of images run together and run alone. It is not 0 where kernels for
    /// other batch sizes sum in another order; a large one means that the graph mixes the images of a batch.
    ///
    /// # Errors
    /// If the graph does not run, or a logit is not finite.
    pub fn batch_dependence(&mut self) -> Result<f32, RunError> {
        let images: Vec<_> = (1..=4).filter_map(|seed| self.noise(seed)).collect();
        let together = self.run_all(&images)?;
        let mut most = 0.0_f32;
        for (pixels, together) in images.iter().zip(together) {
            let alone = self.run(pixels)?;
            let apart = (alone.logit - together.logit).abs();
            if !apart.is_finite() {
                return Err(RunError(format!("it gives the logits {} and {}", alone.logit, together.logit)));
            }
            most = most.max(apart);
        }
        Ok(most)
    }

    /// Runs images as one batch.
    ///
    /// # Errors
    /// As [`Self::run`].
    pub fn run_all(&mut self, batch: &[Pixels]) -> Result<Vec<Output>, RunError> {
        self.runner.run(batch)
    }
}
