//! The trial of CUDA graphs on the model, in the process that may crash: what runs as a graph gives the outputs of a run without.

use super::{
    CudaGraphs, Execution, GraphProbe, Manifest, Output, Provider, SessionOptions, apart, find_folder, graphs::LARGEST,
};
use crate::config::{Auto, ModelConfig, Precision};

/// Runs the trial in this process, and says how it went.
pub(crate) fn answer(config: &ModelConfig) -> String {
    apart::answer(try_here(config))
}

fn try_here(config: &ModelConfig) -> Result<(), String> {
    let graphs = Execution {
        provider: Provider::Cuda,
        precision: Precision::Fp32,
        graphs: CudaGraphs::On,
        passed_over: Vec::new(),
    };
    let start = || {
        let manifest = Manifest::read(&find_folder(config.model.as_deref())?)?;
        let graph = graphs.provider.graph(&manifest);
        GraphProbe::of(&SessionOptions::read_graph(config, Auto::Fixed(LARGEST), graph, graphs)?)
    };
    agree(&mut start().map_err(|error: anyhow::Error| format!("{error:#}"))?)
}

/// Runs images at fixed addresses and at others, in each batch size that has fixed ones and in one that has none, twice: the
/// first time captures, the second replays, with other images and after all others.
fn agree(probe: &mut GraphProbe) -> Result<(), String> {
    for seed in [1, 1001] {
        for images in 1..=probe.runner.bound.len() + 1 {
            let batch: Vec<_> = (seed..).take(images).filter_map(|seed| probe.noise(seed)).collect();
            let fixed = probe.run_all(&batch).map_err(|error| error.to_string())?;
            let free = probe.runner.run_unbound(&batch).map_err(|error| error.to_string())?;
            compare(&fixed, &free).map_err(|apart| format!("{images} images: outputs of a graph are {apart:e} off"))?;
        }
    }
    Ok(())
}

/// # Errors
/// How far outputs of the same images are apart, where that is more than rounding.
fn compare(fixed: &[Output], free: &[Output]) -> Result<(), f32> {
    /// As between graphs of one model.
    const ROUNDING: f32 = 5e-4;
    let numbers = |outputs: &[Output]| {
        let of_image = |output: &Output| [&[output.logit], &*output.topk_values].concat();
        outputs.iter().flat_map(of_image).collect::<Vec<_>>()
    };
    let apart = numbers(fixed).into_iter().zip(numbers(free)).map(|(one, other)| (one - other).abs());
    let too_far = apart.into_iter().find(|apart| apart.is_nan() || *apart > ROUNDING);
    too_far.map_or(Ok(()), Err)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use ort::memory::Allocator;

    use super::*;
    use crate::{
        cuda::{Copies, tests::driver},
        model::{
            GRAPH,
            binding::{Bound, Memory},
        },
    };

    /// A session on the CPU whose batches of up to 5 images run at fixed addresses: in the host's memory, or in that of an
    /// emulated GPU, which is the host's too, with copies there and back.
    fn bound(on_gpu: bool) -> GraphProbe {
        let mut probe = GraphProbe::start(&ModelConfig::default(), GRAPH).expect("the bundled model");
        let copies = || Arc::new(Copies::new(driver()).expect("an emulated GPU"));
        let staging = on_gpu.then(|| (Allocator::default(), copies()));
        let memory = Memory { bound: Allocator::default(), staging };
        let bound = Bound::up_to(5, probe.runner.input(), &probe.runner.session, &memory);
        probe.runner.bound = bound.expect("it binds");
        probe
    }

    #[test]
    fn batches_at_fixed_addresses_give_what_others_give() {
        [false, true].into_iter().for_each(check);
    }

    fn check(on_gpu: bool) {
        let mut probe = bound(on_gpu);
        assert_eq!(agree(&mut probe), Ok(()));
        let noise: Vec<_> = (1..=7).filter_map(|seed| probe.noise(seed)).collect();
        // Sizes by turns, each with other images than before; 6 and 7 are not bound.
        for (first, images) in [(0, 3), (2, 1), (1, 5), (3, 3), (0, 7), (4, 1), (1, 6), (5, 2)] {
            let batch = &noise[first..first + images];
            let free = probe.runner.run_unbound(batch).expect("a run");
            assert_eq!(probe.run_all(batch).expect("a run"), free);
            assert!(free.len() == images && free.iter().all(|output| !output.topk_indices.is_empty()));
        }
    }

    #[test]
    fn outputs_of_other_images_are_told_apart() {
        let mut probe = bound(false);
        let [one, other] = [1, 1001].map(|seed| probe.noise(seed).expect("noise"));
        let [one, other] = [one, other].map(|pixels| probe.run_all(&[pixels]).expect("a run"));
        assert_eq!(compare(&one, &one), Ok(()));
        assert!(compare(&one, &other).is_err(), "a replay of the images before would pass");
        let mut broken = one.clone();
        broken[0].logit = f32::NAN;
        assert!(compare(&one, &broken).is_err());
    }
}
