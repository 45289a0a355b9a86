//! Every kernel against the direct sum in float64, on random sizes.

use proptest::{collection::vec, prelude::*};

use super::{Arena, Bands, ConvError, Kernel, ResidueConv, Size, WinogradConv, run};

fn serial(times: usize, work: &(dyn Fn(usize) + Sync)) {
    (0..times).for_each(work);
}

/// Bands in reverse order, each on its own thread.
fn scattered(times: usize, work: &(dyn Fn(usize) + Sync)) {
    std::thread::scope(|scope| {
        for number in (0..times).rev() {
            scope.spawn(move || work(number));
        }
    });
}

fn output<C: Bands>(conv: &C, size: Size, images: &[C::Input]) -> Result<Vec<f32>, ConvError> {
    let [height, width, maps] = conv.output(size)?;
    let count = images.len() / (size[0] * size[1] * conv.channels());
    // Values that are not written stay NaN.
    let mut output = vec![f32::NAN; count * height * width * maps];
    run(conv, size, images, &mut output, &Arena::default(), serial)?;
    Ok(output)
}

/// A layer by its definition: each output value, and the sum of its terms' magnitudes, the scale of the error of a
/// float32 sum.
struct Plain<'a> {
    weight: &'a [f32],
    bias: &'a [f32],
    pool: bool,
}

impl Plain<'_> {
    fn run(&self, [height, width]: Size, images: &[f64]) -> Vec<(f64, f64)> {
        let maps = self.bias.len();
        let channels = self.weight.len() / 4 / maps;
        let side = if self.pool { 2 } else { 1 };
        let mut output = Vec::new();
        for image in images.chunks_exact(height * width * channels) {
            let places = (0..(height - 1) / side).flat_map(|y| (0..(width - 1) / side).map(move |x| (y, x)));
            for ((y, x), map) in places.flat_map(|place| (0..maps).map(move |map| (place, map))) {
                let sum = |y: usize, x: usize| {
                    let bias = f64::from(self.bias[map]);
                    let taps = self.weight[map * channels * 4..][..channels * 4].iter().enumerate();
                    taps.fold((bias, bias.abs()), |(sum, size), (at, &tap)| {
                        let (channel, i, j) = (at / 4, at / 2 % 2, at % 2);
                        let term = f64::from(tap) * image[((y + i) * width + x + j) * channels + channel];
                        (sum + term, size + term.abs())
                    })
                };
                let window = (0..side * side).map(|at| sum(y * side + at / side, x * side + at % side));
                output.push(window.fold((0.0_f64, 0.0_f64), |(most, size), (a, b)| (most.max(a), size.max(b))));
            }
        }
        output
    }
}

/// `floor`: the smallest scale of an error. A tile's error scales with its largest input.
#[track_caller]
fn assert_close(kernel: Kernel, got: &[f32], expected: &[(f64, f64)], floor: f64) {
    assert_eq!(got.len(), expected.len());
    for (at, (&got, &(value, size))) in got.iter().zip(expected).enumerate() {
        // A wrong tap, position or sign is off by a whole term, a hundred times this.
        let apart = (f64::from(got) - value).abs();
        assert!(apart <= 2e-5 * size.max(floor), "{} at {at}: {got}, not {value}", kernel.name());
    }
}

fn floats(len: usize) -> impl Strategy<Value = Vec<f32>> {
    vec(-1.0_f32..1.0, len)
}

/// Height, width, channels and maps: sizes around a vector's length, and images with several bands.
fn sizes() -> impl Strategy<Value = [usize; 4]> {
    prop_oneof![[3..24_usize, 3..24, 1..40, 1..70], [3..30_usize, 80..160, 1..4, 1..6],]
}

prop_compose! {
    fn winograd()(pool in any::<bool>(), images in 0..3_usize, size in sizes())(
        weight in floats(size[3] * size[2] * 4), bias in floats(size[3]),
        pixels in floats(images * size[0] * size[1] * size[2]),
        pool in Just(pool), size in Just([size[0], size[1]]),
    ) -> (Size, bool, Vec<f32>, Vec<f32>, Vec<f32>) {
        (size, pool, weight, bias, pixels)
    }
}

prop_compose! {
    fn residue()(
        images in 0..3_usize, blocks_high in 2..12_usize, blocks_wide in 2..12_usize, maps in 1..70_usize,
    )(
        weight in floats(maps * 12), bias in floats(maps), pixels in vec(any::<u8>(), images * blocks_high * blocks_wide * 12),
        size in Just([2 * blocks_high, 2 * blocks_wide]),
    ) -> (Size, Vec<f32>, Vec<f32>, Vec<u8>) {
        (size, weight, bias, pixels)
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 2 } else { 48 }))]

    #[test]
    fn winograd_matches_the_direct_sum((size, pool, weight, bias, pixels) in winograd()) {
        let wide: Vec<f64> = pixels.iter().map(|&x| x.into()).collect();
        let expected = Plain { weight: &weight, bias: &bias, pool }.run(size, &wide);
        for kernel in Kernel::all() {
            let conv = WinogradConv::new(kernel, &weight, &bias, pool).unwrap();
            assert_close(kernel, &output(&conv, size, &pixels).unwrap(), &expected, 4.0 * conv.channels() as f64);
        }
    }

    #[test]
    fn residue_matches_the_direct_sum((size, weight, bias, pixels) in residue()) {
        let [height, width] = size;
        let at = |image: usize, y: usize, x: usize, colour: usize| f64::from(pixels[((image * height + y) * width + x) * 3 + colour]);
        let places = (0..pixels.len()).map(|at| (at / 3 / width / height, at / 3 / width % height, at / 3 % width, at % 3));
        let npr: Vec<f64> = places.map(|(n, y, x, c)| (at(n, y, x, c) - at(n, y / 2 * 2, x / 2 * 2, c)).abs()).collect();
        let expected = Plain { weight: &weight, bias: &bias, pool: true }.run(size, &npr);
        for kernel in Kernel::all() {
            let conv = ResidueConv::new(kernel, &weight, &bias).unwrap();
            assert_close(kernel, &output(&conv, size, &pixels).unwrap(), &expected, 1.0);
        }
    }

    #[test]
    fn a_value_does_not_depend_on_its_batch_or_thread((size, pool, weight, bias, pixels) in winograd()) {
        for kernel in Kernel::all() {
            let conv = WinogradConv::new(kernel, &weight, &bias, pool).unwrap();
            let together = output(&conv, size, &pixels).unwrap();
            let mut again = vec![f32::NAN; together.len()];
            run(&conv, size, &pixels, &mut again, &Arena::default(), scattered).unwrap();
            let image = size[0] * size[1] * conv.channels();
            let alone: Vec<f32> = pixels.chunks_exact(image).flat_map(|image| output(&conv, size, image).unwrap()).collect();
            let bits = |values: &[f32]| values.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
            assert_eq!(bits(&together), bits(&alone), "{}", kernel.name());
            assert_eq!(bits(&together), bits(&again), "{}", kernel.name());
        }
    }
}

#[test]
fn wrong_shapes_are_refused() {
    let kernel = Kernel::PORTABLE;
    let weights = |weight, bias| WinogradConv::new(kernel, &vec![0.0; weight], &vec![0.0; bias], false).err();
    assert_eq!(weights(24, 2), None);
    assert_eq!(weights(20, 2), Some(ConvError::Weights { weight: 20, bias: 2, maps: 2, channels: 2 }));
    assert_eq!(weights(0, 2), Some(ConvError::Weights { weight: 0, bias: 2, maps: 2, channels: 0 }));
    assert_eq!(weights(8, 0), Some(ConvError::Weights { weight: 8, bias: 0, maps: 0, channels: 2 }));
    assert!(matches!(ResidueConv::new(kernel, &[0.0; 11], &[0.0]).err(), Some(ConvError::Weights { .. })));

    assert_eq!(WinogradConv::new(kernel, &[f32::NAN; 4], &[0.0], true).err(), Some(ConvError::NotFinite));
    assert_eq!(ResidueConv::new(kernel, &[0.0; 12], &[f32::INFINITY]).err(), Some(ConvError::NotFinite));

    let conv = WinogradConv::new(kernel, &[0.0; 4], &[0.0], true).unwrap();
    assert_eq!(conv.output([3, 4]), Ok([1, 1, 1]));
    assert_eq!(conv.output([2, 9]), Err(ConvError::TooSmall { height: 2, width: 9, least: 3 }));
    let residue = ResidueConv::new(kernel, &[0.0; 12], &[0.0]).unwrap();
    assert_eq!(residue.output([4, 6]), Ok([1, 2, 1]));
    assert_eq!(residue.output([5, 6]), Err(ConvError::Odd { height: 5, width: 6 }));
    assert_eq!(residue.output([2, 6]), Err(ConvError::TooSmall { height: 2, width: 6, least: 4 }));

    let mut output = [7.0; 2];
    let mut lengths = |images: usize, output_len: usize| {
        run(&conv, [3, 4], &vec![1.0; images], &mut output[..output_len], &Arena::default(), serial)
    };
    assert_eq!(lengths(12, 1), Ok(()));
    assert_eq!(lengths(13, 1), Err(ConvError::Length));
    assert_eq!(lengths(24, 1), Err(ConvError::Length));
    assert_eq!(lengths(0, 0), Ok(()));
    let huge = run(&conv, [usize::MAX, 3], &[], &mut [], &Arena::default(), serial);
    assert_eq!(huge, Err(ConvError::Length));
}
