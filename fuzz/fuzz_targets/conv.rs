//! Any sizes, weights and pixels: every kernel of the convolutions gives what the plain sum gives.

#![no_main]

use lfm_serve::conv::{Arena, Bands, Kernel, ResidueConv, WinogradConv, run};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some((&[kind, high, wide, channels, maps], rest)) = data.split_first_chunk::<5>() else { return };
    if rest.is_empty() {
        return;
    }
    let [high, wide, channels, maps] = [high % 24, wide % 24, channels % 40 + 1, maps % 70 + 1].map(usize::from);
    // Some images are wide enough for several bands.
    let wide = if channels < 4 { wide * 7 } else { wide };
    // Few bytes make all values: of whole numbers, so that the plain sum is exact.
    let bytes = |len: usize, from: usize| (0..len).map(move |at| rest[(at * 7 + from) % rest.len()]);
    let floats = |len, from| bytes(len, from).map(|byte| f32::from(byte as i8)).collect::<Vec<_>>();
    let bias = floats(maps, 1);
    let (residue, pool) = (kind % 3 == 0, kind % 3 == 1);
    for kernel in Kernel::all() {
        if residue {
            let pixels: Vec<u8> = bytes(high * wide * 3, 3).collect();
            let weight = floats(maps * 12, 2);
            let npr: Vec<f64> = (0..pixels.len())
                .map(|at| {
                    let (y, x, colour) = (at / 3 / wide, at / 3 % wide, at % 3);
                    f64::from(pixels[at].abs_diff(pixels[(y / 2 * 2 * wide + x / 2 * 2) * 3 + colour]))
                })
                .collect();
            let conv = ResidueConv::new(kernel, &weight, &bias).expect("the weights fit");
            check(kernel, &conv, [high, wide], &pixels, &npr, &weight, &bias, true);
        } else {
            let (weight, pixels) = (floats(maps * channels * 4, 2), floats(high * wide * channels, 3));
            let wide_pixels: Vec<f64> = pixels.iter().map(|&x| x.into()).collect();
            let conv = WinogradConv::new(kernel, &weight, &bias, pool).expect("the weights fit");
            check(kernel, &conv, [high, wide], &pixels, &wide_pixels, &weight, &bias, pool);
        }
    }
});

#[allow(clippy::too_many_arguments)]
fn check<C: Bands>(
    kernel: Kernel,
    conv: &C,
    size: [usize; 2],
    pixels: &[C::Input],
    seen: &[f64],
    weight: &[f32],
    bias: &[f32],
    pool: bool,
) {
    let mut output = Vec::new();
    let Ok([high, wide, maps]) = conv.output(size) else {
        assert!(run(conv, size, pixels, &mut output, &Arena::default(), |_, _| {}).is_err());
        return;
    };
    output.resize(high * wide * maps, f32::NAN);
    let serial = |times: usize, work: &(dyn Fn(usize) + Sync)| (0..times).for_each(work);
    run(conv, size, pixels, &mut output, &Arena::default(), serial).expect("the sizes fit");
    let (side, channels) = (if pool { 2 } else { 1 }, conv.channels());
    for (at, &got) in output.iter().enumerate() {
        let (y, x, map) = (at / maps / wide, at / maps % wide, at % maps);
        let (mut most, mut magnitude) = (0.0_f64, 0.0_f64);
        for place in 0..side * side {
            let (y, x) = (y * side + place / side, x * side + place % side);
            let (mut sum, mut size_of) = (f64::from(bias[map]), f64::from(bias[map]).abs());
            for (tap, &weight) in weight[map * channels * 4..][..channels * 4].iter().enumerate() {
                let term = f64::from(weight) * seen[((y + tap / 2 % 2) * size[1] + x + tap % 2) * channels + tap / 4];
                (sum, size_of) = (sum + term, size_of + term.abs());
            }
            (most, magnitude) = (most.max(sum), magnitude.max(size_of));
        }
        let apart = (f64::from(got) - most).abs();
        // A tile's error is in the size of its neighbours too: 49 places of up to 128 * 128 * 4 a channel.
        let scale = magnitude.max(128.0 * 128.0 * 4.0 * channels as f64);
        assert!(apart <= 2e-5 * scale, "{} at {at}: {got}, not {most}", kernel.name());
    }
}
