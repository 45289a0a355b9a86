//! The network's convolutions on a CPU: 2x2, stride 1, no padding, with bias, ReLU and, where the network pools, the
//! following 2x2 max-pool. Images are NHWC, so that a vector holds channels of one pixel.
//!
//! [`WinogradConv`] computes them by Winograd's minimal filtering F(6x6, 2x2) (Lavin and Gray, "Fast Algorithms for
//! Convolutional Neural Networks", CVPR 2016): 49 multiplications for 36 outputs, where the direct sum needs 144.
//! [`ResidueConv`] is the first layer, whose input is the NPR residue of the pixels.
//!
//! An output value does not depend on its batch, its band or the number of threads, to the last bit. The rounding error
//! of a Winograd layer scales with the largest input of the tile. The kernels differ from each other by rounding.

mod gemm;
mod kernel;
mod peak;
mod residue;
#[cfg(test)]
mod tests;
mod transform;
mod winograd;

use std::sync::{Mutex, PoisonError};

use aligned_vec::{AVec, ConstAlign};

pub use kernel::Kernel;
pub use residue::ResidueConv;
pub use winograd::WinogradConv;

/// Why a convolution cannot be built or run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConvError {
    /// The weight must be (M, C, 2, 2) with M and C above 0, and the bias (M).
    #[error("the weight has {weight} values and the bias {bias}, must be 4 * {maps} * {channels} and {maps}, none 0")]
    Weights {
        /// Values in the weight.
        weight: usize,
        /// Values in the bias.
        bias: usize,
        /// Output channels.
        maps: usize,
        /// Input channels.
        channels: usize,
    },
    /// The ReLU would turn NaN into zero, so that a broken model gave a plausible logit.
    #[error("a weight or bias is not finite")]
    NotFinite,
    /// The input is smaller than a 2x2 window, or than a window of the pool.
    #[error("an input of {height} x {width} is too small, must be at least {least} x {least}")]
    TooSmall {
        /// Rows.
        height: usize,
        /// Columns.
        width: usize,
        /// The least of either.
        least: usize,
    },
    /// The residue is computed in blocks of 2x2 pixels.
    #[error("an image of {height} x {width} has an odd side")]
    Odd {
        /// Rows.
        height: usize,
        /// Columns.
        width: usize,
    },
    /// A slice's length does not match its shape, or sizes overflow.
    #[error("an input or output has another number of values than its shape")]
    Length,
}

/// Rows and columns.
pub type Size = [usize; 2];

/// Floats in a cache line: a vector of AVX-512.
const LINE: usize = 16;

/// Floats that begin at a cache line.
type Floats = AVec<f32, ConstAlign<64>>;

fn floats(len: usize) -> Floats {
    let mut floats = AVec::new(64);
    floats.resize(len, 0.0);
    floats
}

/// Working memory shared by layers: one buffer per thread that runs one of them, as large as the largest layer needs.
/// It grows in the first run and then stays.
#[derive(Debug, Default)]
pub struct Arena(Mutex<Vec<Floats>>);

impl Arena {
    fn with<T>(&self, len: usize, use_it: impl FnOnce(&mut [f32]) -> T) -> T {
        let lock = || self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut buffer = lock().pop().unwrap_or_else(|| floats(0));
        if buffer.len() < len {
            buffer.resize(len, 0.0);
        }
        let done = use_it(&mut buffer[..len]);
        lock().push(buffer);
        done
    }
}

fn check_finite(weight: &[f32], bias: &[f32]) -> Result<(), ConvError> {
    let mut all = weight.iter().chain(bias);
    if all.all(|value| value.is_finite()) { Ok(()) } else { Err(ConvError::NotFinite) }
}

/// A layer that computes its output in bands: a band is some rows of one image's output.
///
/// Bands are independent: the caller may run them in any order and on any threads.
pub trait Bands: Sync {
    /// Element type of the input.
    type Input: Sync;

    /// The output's rows, columns and channels for an input of this size.
    ///
    /// # Errors
    /// If the input is too small or has an unsupported size.
    fn output(&self, input: Size) -> Result<[usize; 3], ConvError>;

    /// Values of one pixel of the input.
    fn channels(&self) -> usize;

    /// Output rows of a band; the last one of an image may have fewer.
    fn band_rows(&self, input: Size) -> usize;

    /// Computes the band that begins at row `first` of `image`'s output into `band`.
    fn run_band(&self, image: &[Self::Input], input: Size, first: usize, band: &mut [f32], arena: &Arena);
}

/// Runs `conv` on `images` (N, H, W, C) into `output` (N, H', W', M).
///
/// `parallel` gets the number of bands and a function to call that many times, on any threads; its argument is ignored.
///
/// # Errors
/// [`ConvError`]; nothing is written then.
pub fn run<C: Bands>(
    conv: &C,
    input: Size,
    images: &[C::Input],
    output: &mut [f32],
    arena: &Arena,
    parallel: impl FnOnce(usize, &(dyn Fn(usize) + Sync)),
) -> Result<(), ConvError> {
    let [rows, columns, maps] = conv.output(input)?;
    let product = |sides: [usize; 3]| sides.into_iter().try_fold(1, usize::checked_mul).ok_or(ConvError::Length);
    let (image_len, output_len) = (product([input[0], input[1], conv.channels()])?, product([rows, columns, maps])?);
    let images_in = images.len() / image_len;
    if images.len() != images_in * image_len || Some(output.len()) != images_in.checked_mul(output_len) {
        return Err(ConvError::Length);
    }
    let band_rows = conv.band_rows(input);
    let bands = output.chunks_exact_mut(output_len).zip(images.chunks_exact(image_len)).flat_map(|(output, image)| {
        let bands = output.chunks_mut(band_rows * columns * maps).enumerate();
        bands.map(move |(number, band)| (image, number * band_rows, band))
    });
    let todo = Mutex::new(bands);
    parallel(images_in * rows.div_ceil(band_rows), &|_| {
        let next = todo.lock().unwrap_or_else(PoisonError::into_inner).next();
        if let Some((image, first, band)) = next {
            conv.run_band(image, input, first, band, arena);
        }
    });
    Ok(())
}
