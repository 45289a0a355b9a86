//! Warm-up: a session runs every batch size before it is ready, and measures the cost curve.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use super::{Provider, SessionOptions, session::Runner};
use crate::{config::Auto, image::Pixels};

/// A warmed-up session and its cost curve.
pub(super) fn warm(options: &SessionOptions) -> Result<(Runner, Vec<Duration>), anyhow::Error> {
    let provider = options.execution().provider;
    if provider == Provider::TensorRt {
        let cache = options.engine_cache.as_deref();
        let cache = cache.map_or("none, give --engine-cache-dir".into(), Path::to_string_lossy);
        tracing::info!(%cache, "TensorRT builds its engine where the cache has none, which takes minutes");
    }
    let mut runner = Runner::new(options)?;
    let costs = cost_curve(&mut runner, options)?;
    if provider == Provider::Cpu && options.max_batch_size == Auto::Auto && costs.len() < options.largest() {
        // Rebuilt, because a session never frees the memory of its largest run, some 50 MB an image.
        runner = Runner::new(options)?;
        measure(&mut runner, costs.len())?;
    }
    Ok((runner, costs))
}

/// Measures the cost curve, so that the first request finds a warm session and an unsuitable graph fails at start-up.
/// Its length is the largest batch: as given, or the smallest within 5 % of the highest throughput.
fn cost_curve(runner: &mut Runner, options: &SessionOptions) -> Result<Vec<Duration>, anyhow::Error> {
    let largest = options.largest();
    // Powers of two, and the largest itself; the curve is interpolated linearly between them.
    let powers = std::iter::successors(Some(1), |size| Some(size * 2)).take_while(|&size| size < largest);
    let mut measured = vec![(0, Duration::ZERO)];
    let mut sizes: Vec<usize> = powers.chain([largest]).collect();
    // The largest first: its arena then also serves the smaller ones; an arena that grows keeps every smaller block.
    while let Some(size) = sizes.pop() {
        let took = measure(runner, size)?;
        measured.insert(1, (size, took));
        if options.execution().provider != Provider::Cpu {
            tracing::info!(images = size, run_ms = took.as_secs_f64() * 1e3, "warmed up for a batch size");
        }
    }
    let per_image = |&(size, cost): &(usize, Duration)| cost.as_secs_f64() / size.max(1) as f64;
    let best = measured.iter().skip(1).map(per_image).fold(f64::INFINITY, f64::min);
    let good_enough = measured.iter().skip(1).find(|point| per_image(point) <= 1.05 * best);
    let chosen = options.max_batch_size.or_else(|| good_enough.map_or(1, |&(size, _)| size));
    Ok((1..=chosen).map(|size| interpolate(&measured, size)).collect())
}

/// The faster of two runs of black images, after one that pays the cost of a first run.
fn measure(runner: &mut Runner, size: usize) -> Result<Duration, anyhow::Error> {
    let [width, height] = runner.input();
    let black = Pixels::sized(vec![0; width as usize * height as usize * 3], width, height)
        .ok_or_else(|| anyhow::anyhow!("the input size is wrong"))?;
    let batch = vec![black; size];
    let mut best = Duration::MAX;
    for _ in 0..3 {
        let began = Instant::now();
        runner.run(&batch).map_err(|error| anyhow::anyhow!("the model does not run: {error}"))?;
        best = best.min(began.elapsed());
    }
    Ok(best)
}

/// The cost of a batch of `size`, interpolated linearly between its measured neighbours.
fn interpolate(measured: &[(usize, Duration)], size: usize) -> Duration {
    let between = measured.windows(2).find_map(|pair| match pair {
        &[(low, cheap), (high, dear)] if (low..=high).contains(&size) && low < high => {
            let share = (size - low) as f64 / (high - low) as f64;
            Some(cheap.as_secs_f64() + share * (dear.as_secs_f64() - cheap.as_secs_f64()))
        }
        _ => None,
    });
    Duration::from_secs_f64(between.unwrap_or(0.0).max(0.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cost_curve_is_linear_between_measurements() {
        let measured = [(0, 0), (1, 10), (2, 16), (8, 40)].map(|(size, ms)| (size, Duration::from_millis(ms)));
        for (size, ms) in [(1, 10), (2, 16), (5, 28), (8, 40)] {
            assert_eq!(interpolate(&measured, size), Duration::from_millis(ms), "{size}");
        }
    }
}
