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
    let began = Instant::now();
    let mut runner = Runner::new(options)?;
    let built = began.elapsed();
    let costs = cost_curve(&mut runner, options)?;
    // Of the sizes that the curve left out too: none is captured while it serves.
    for size in 1..=runner.bound.len() {
        measure(&mut runner, size, 3)?;
    }
    if provider == Provider::Cpu && options.max_batch_size == Auto::Auto && costs.len() < options.largest() {
        // Rebuilt, because a session never frees the memory of its largest run, some 50 MB an image.
        runner = Runner::new(options)?;
        measure(&mut runner, costs.len(), 1)?;
    }
    let [build_ms, warm_up_ms] = [built, began.elapsed() - built].map(|time| time.as_secs_f64() * 1e3);
    tracing::debug!(build_ms, warm_up_ms, largest_batch = costs.len(), "a session is warm");
    Ok((runner, costs))
}

/// Measures the cost curve, so that the first request finds a warm session and an unsuitable graph fails at start-up.
/// Its length is the largest batch: as given, or the smallest within 5 % of the highest throughput.
fn cost_curve(runner: &mut Runner, options: &SessionOptions) -> Result<Vec<Duration>, anyhow::Error> {
    const CLOSE: f64 = 1.05;
    let largest = options.largest();
    // Powers of two, and the largest itself; the curve is interpolated linearly between them.
    let powers = std::iter::successors(Some(1), |size| Some(size * 2)).take_while(|&size| size < largest);
    let mut sizes: Vec<usize> = powers.chain([largest]).collect();
    let mut measured = vec![(0, Duration::ZERO)];
    let per_image = |&(size, cost): &(usize, Duration)| cost.as_secs_f64() / size.max(1) as f64;
    let best = |measured: &[(usize, Duration)]| measured.iter().skip(1).map(per_image).fold(f64::INFINITY, f64::min);
    if options.execution().provider == Provider::Cpu && options.max_batch_size == Auto::Auto {
        // Until a larger batch gains nothing: these runs are most of the start.
        for size in sizes {
            let point = (size, measure(runner, size, if size == 1 { 3 } else { 2 })?);
            let gains = per_image(&point) * CLOSE <= best(&measured);
            measured.push(point);
            if !gains {
                break;
            }
        }
    } else {
        // The largest first: its arena then also serves the smaller ones; an arena that grows keeps every smaller block.
        while let Some(size) = sizes.pop() {
            let took = measure(runner, size, 3)?;
            measured.insert(1, (size, took));
            if options.execution().provider != Provider::Cpu {
                tracing::info!(images = size, run_ms = took.as_secs_f64() * 1e3, "warmed up for a batch size");
            }
        }
    }
    let best = best(&measured);
    let good_enough = measured.iter().skip(1).find(|point| per_image(point) <= CLOSE * best);
    let chosen = options.max_batch_size.or_else(|| good_enough.map_or(1, |&(size, _)| size));
    Ok((1..=chosen).map(|size| interpolate(&measured, size)).collect())
}

/// The fastest of some runs of black images, of which the first pays for memory and caches.
fn measure(runner: &mut Runner, size: usize, runs: usize) -> Result<Duration, anyhow::Error> {
    let [width, height] = runner.input();
    let black = Pixels::sized(vec![0; width as usize * height as usize * 3], width, height)
        .ok_or_else(|| anyhow::anyhow!("the input size is wrong"))?;
    let batch = vec![black; size];
    let mut best = Duration::MAX;
    for _ in 0..runs {
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
