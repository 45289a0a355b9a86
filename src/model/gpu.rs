//! Options of the execution providers for GPUs: CUDA, TensorRT and TensorRT RTX.

use std::{
    fs,
    path::{Path, PathBuf},
};

use libloading::Library;
use ort::ep::{self, ArenaExtendStrategy, ExecutionProviderDispatch, cuda::ConvAlgorithmSearch};

use super::{Manifest, runtime};
use crate::{
    config::{ModelConfig, Precision},
    cuda::{Device, Driver},
};

/// The CUDA provider, configured for our graph; with or without CUDA graphs.
pub(super) fn cuda(config: &ModelConfig, graphs: bool) -> ExecutionProviderDispatch {
    let cuda = ep::CUDA::default()
        .with_device_id(0)
        // The heuristic measures no times. A timed search may choose different algorithms on each start, which changes
        // logits in the last bit, and it pauses at every new batch size.
        .with_conv_algorithm_search(ConvAlgorithmSearch::Heuristic)
        // TF32 has a 10-bit mantissa, too few for residues below one grey level.
        .with_tf32(false)
        // The tensor sizes are few and known: an arena that doubles would only waste memory.
        .with_arena_extend_strategy(ArenaExtendStrategy::SameAsRequested)
        .with_cuda_graph(graphs);
    let limited = match config.runtime.gpu_memory_limit {
        Some(limit) => cuda.with_memory_limit(bytes(limit)),
        None => cuda,
    };
    limited.build().error_on_failure()
}

/// The TensorRT provider for batches of 1 to `largest`. Engines built before are loaded from `cache`.
pub(super) fn tensorrt(
    config: &ModelConfig,
    precision: Precision,
    largest: usize,
    input: [u32; 2],
    cache: Option<&Path>,
) -> ExecutionProviderDispatch {
    let mut tensorrt = ep::TensorRT::default()
        .with_device_id(0)
        .with_fp16(precision == Precision::Fp16)
        // One engine for all batch sizes: without a profile every new larger batch rebuilds it.
        .with_profile_min_shapes(shape(1, input))
        .with_profile_opt_shapes(shape(largest, input))
        .with_profile_max_shapes(shape(largest, input));
    if let Some(limit) = config.runtime.gpu_memory_limit {
        tensorrt = tensorrt.with_max_workspace_size(bytes(limit));
    }
    if let Some(cache) = cache {
        tensorrt = tensorrt
            .with_engine_cache(true)
            .with_engine_cache_path(cache.display())
            .with_timing_cache(true)
            .with_timing_cache_path(cache.display());
    }
    tensorrt.build().error_on_failure()
}

/// TensorRT RTX for batches of 1 to `largest`.
pub(super) fn tensorrt_rtx(config: &ModelConfig, largest: usize, input: [u32; 2]) -> Vec<(&'static str, String)> {
    let workspace = config.runtime.gpu_memory_limit.map(|limit| ("nv_max_workspace_size", bytes(limit).to_string()));
    let profile = [
        ("nv_profile_min_shapes", shape(1, input)),
        ("nv_profile_opt_shapes", shape(largest, input)),
        ("nv_profile_max_shapes", shape(largest, input)),
    ];
    profile.into_iter().chain(workspace).collect()
}

/// A batch of images, as TensorRT's profiles write it.
fn shape(images: usize, [width, height]: [u32; 2]) -> String {
    format!("pixels:{images}x{height}x{width}x3")
}

fn bytes(size: bytesize::ByteSize) -> usize {
    usize::try_from(size.as_u64()).unwrap_or(usize::MAX)
}

/// The folder below `--engine-cache-dir` for one model on one GPU with one set of versions, created if missing:
/// an engine works only in that combination.
///
/// # Errors
/// One line for the operator: no GPU, or the folder cannot be created.
pub(super) fn engine_cache(
    dir: &Path,
    manifest: &Manifest,
    precision: Precision,
    largest: usize,
) -> Result<PathBuf, anyhow::Error> {
    let device = Driver::get().and_then(Driver::first_device)?;
    let folder = dir.join(engine_key(&device, &manifest.digest, tensorrt_version(), precision, largest));
    fs::create_dir_all(&folder)
        .map_err(|error| anyhow::anyhow!("cannot create {} in --engine-cache-dir: {error}", folder.display()))?;
    Ok(folder)
}

fn engine_key(device: &Device, digest: &str, tensorrt: i32, precision: Precision, largest: usize) -> String {
    let model: String = digest.trim_start_matches("sha256:").chars().take(16).collect();
    let gpu: String = device.name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
    let (major, minor) = device.capability;
    let (driver, precision) = (device.driver_version, precision.name());
    let runtime = runtime::VERSION;
    format!("{model}_{gpu}_sm{major}{minor}_driver{driver}_trt{tensorrt}_ort{runtime}_{precision}_batch{largest}")
}

/// TensorRT's version as its library reports it, e.g. 101303 for 10.13.3; 0 without the library.
#[allow(unsafe_code, reason = "a foreign library is asked for its version")]
fn tensorrt_version() -> i32 {
    // SAFETY: the provider that is about to be registered loads the same library.
    let Ok(library) = (unsafe { Library::new("libnvinfer.so.10") }) else { return 0 };
    // SAFETY: the signature is that of NvInferRuntimeBase.h; the function only returns a constant.
    let version =
        unsafe { library.get::<unsafe extern "C" fn() -> i32>(b"getInferLibVersion").map(|version| version()) };
    version.unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_engine_is_reused_only_with_the_same_model_gpu_and_versions() {
        let device = Device { name: "NVIDIA RTX A6000".into(), capability: (8, 6), driver_version: 13000 };
        let key = |device: &Device, digest, tensorrt, precision, largest| {
            engine_key(device, digest, tensorrt, precision, largest)
        };
        let one = key(&device, "sha256:0123456789abcdef0123", 101_303, Precision::Fp16, 32);
        assert_eq!(
            one,
            format!(
                "0123456789abcdef_NVIDIA-RTX-A6000_sm86_driver13000_trt101303_ort{}_fp16_batch32",
                runtime::VERSION
            )
        );
        let newer = Device { driver_version: 13010, ..device.clone() };
        for other in [
            key(&newer, "sha256:0123456789abcdef0123", 101_303, Precision::Fp16, 32),
            key(&device, "sha256:1123456789abcdef0123", 101_303, Precision::Fp16, 32),
            key(&device, "sha256:0123456789abcdef0123", 101_401, Precision::Fp16, 32),
            key(&device, "sha256:0123456789abcdef0123", 101_303, Precision::Fp32, 32),
            key(&device, "sha256:0123456789abcdef0123", 101_303, Precision::Fp16, 16),
        ] {
            assert_ne!(other, one);
        }
    }
}
