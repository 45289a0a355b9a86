//! TensorRT RTX: a plugin for ONNX Runtime, a library of NVIDIA's (`make vendor-rtx`) that is registered with the
//! environment and then offers the GPUs that it supports as devices.
//!
//! An exception in the plugin's constructors ends the process (its `CreateEp` is `noexcept`). So it is tried in a process of
//! its own (`apart.rs`), and only loaded here after that went well.

use std::{
    path::{Path, PathBuf},
    sync::OnceLock,
};

use libloading::Library;
#[cfg(feature = "server")]
use ort::session::Session;
use ort::{device::Device, environment::Environment, session::builder::SessionBuilder};

#[cfg(feature = "server")]
use super::trial;
use super::{apart, runtime};
use crate::config::RuntimeConfig;

/// Its name in ONNX Runtime.
pub(super) const NAME: &str = "NvTensorRTRTXExecutionProvider";

/// The subcommand of `lfm-serve` that tries it.
pub(crate) const COMMAND: &str = "try-tensorrt-rtx";

const LIBRARY: &str = "libonnxruntime_providers_nv_tensorrt_rtx.so";

/// What the plugin is linked against and comes with, each after what it needs itself. The plugin names no folder to search
/// (it has no RUNPATH), so they are loaded before it.
const BUNDLED: [&str; 3] = ["libcudart.so.13", "libtensorrt_rtx.so.1", "libtensorrt_onnxparser_rtx.so.1"];

/// The plugin: the given one, else the first found.
///
/// # Errors
/// If there is none.
pub(super) fn find_library(given: Option<&Path>) -> Result<PathBuf, String> {
    runtime::first_file(given.map_or_else(default_places, |path| vec![path.to_path_buf()])).map_err(|places| {
        format!(
            "its plugin was not found: looked at {places}. Run `make vendor-rtx`, or give \
             --tensorrt-rtx-library FILE (LFM_TENSORRT_RTX_LIBRARY)"
        )
    })
}

fn default_places() -> Vec<PathBuf> {
    let beside = crate::beside_executable("../lib").map(|folder| folder.join(LIBRARY));
    let checkout = Path::new(env!("CARGO_MANIFEST_DIR")).join("vendor/tensorrt-rtx").join(LIBRARY);
    beside.into_iter().chain([checkout]).collect()
}

/// Has sessions built on the plugin's first device, with these options of its own.
///
/// # Errors
/// If the plugin cannot be loaded, or offers no device.
pub(super) fn with_plugin(
    builder: SessionBuilder,
    environment: &Environment,
    plugin: &Path,
    options: &[(&str, String)],
) -> ort::Result<SessionBuilder> {
    let device = device(environment, plugin).map_err(ort::Error::new)?;
    let options: Vec<_> = options.iter().map(|(key, value)| (format!("{NAME}.{key}"), value.clone())).collect();
    Ok(builder.with_devices([device], Some(&options))?)
}

/// The device in use. Like ONNX Runtime itself, the first plugin that is loaded stays.
fn device<'e>(environment: &'e Environment, plugin: &Path) -> Result<Device<'e>, String> {
    static REGISTERED: OnceLock<Result<(), String>> = OnceLock::new();
    REGISTERED.get_or_init(|| register(environment, plugin)).clone()?;
    // It takes one device a session.
    environment.devices().find(|device| device.ep().is_ok_and(|name| name == NAME)).ok_or_else(|| {
        "its plugin supports none of this machine's GPUs: it needs one of compute capability 8.6, 8.9, 12.0 or newer".into()
    })
}

fn register(environment: &Environment, plugin: &Path) -> Result<(), String> {
    // A name without a folder would be looked for elsewhere.
    let plugin = plugin.canonicalize().map_err(|error| format!("cannot read {}: {error}", plugin.display()))?;
    let bundled = |name: &str| {
        let beside = plugin.with_file_name(name);
        let path = if beside.is_file() { beside } else { name.into() };
        #[allow(unsafe_code, reason = "libraries that the plugin would load next are loaded")]
        // SAFETY: running the initialisers of NVIDIA's libraries is what the operator asked for.
        let loaded = unsafe { Library::new(path) };
        loaded.map_err(|error| format!("cannot load {name}, which its plugin needs: {}", runtime::one_line(&error)))
    };
    // Until the plugin keeps them.
    let _loaded = BUNDLED.iter().map(|name| bundled(name)).collect::<Result<Vec<_>, _>>()?;
    environment
        .register_ep_library(NAME, &plugin)
        .map_err(|error| format!("cannot load its plugin: {}", runtime::one_line(&error)))
}

/// Runs the trial in a process of its own.
///
/// # Errors
/// Why the plugin cannot be used.
pub(super) fn try_apart(config: &RuntimeConfig) -> Result<(), String> {
    let ort_library = runtime::find_library(config.ort_library.as_deref()).map_err(|error| error.to_string())?;
    let plugin = find_library(config.tensorrt_rtx_library.as_deref())?;
    apart::run(COMMAND, [ort_library, plugin].map(PathBuf::into_os_string))
}

/// Runs the trial in this process, and says how it went.
#[cfg(feature = "server")]
pub(crate) fn answer(ort_library: &Path, plugin: &Path) -> String {
    apart::answer(try_here(ort_library, plugin))
}

#[cfg(feature = "server")]
fn try_here(ort_library: &Path, plugin: &Path) -> Result<(), String> {
    let environment = runtime::environment(Some(ort_library)).map_err(|error| error.to_string())?;
    // What the plugin cannot be loaded for is said as it is, without ONNX Runtime's words around it.
    device(environment, plugin)?;
    let run = || {
        let builder = Session::builder(environment)?.with_disable_cpu_fallback()?;
        trial::run(with_plugin(builder, environment, plugin, &[])?, trial::STANDARD_GRAPH)
    };
    run().map_err(|error| runtime::one_line(&error))
}
