//! ONNX Runtime itself: finding and loading its library, the environment of the process.

use std::{
    env,
    path::{Path, PathBuf},
    sync::OnceLock,
};

use ort::{environment::Environment, logging::LogLevel};

/// The only version that the project is built and tested against.
pub const VERSION: &str = "1.31.1";

const LIBRARY: &str = "libonnxruntime.so";

/// Why ONNX Runtime is not available: one line, for the operator.
#[derive(Debug, Clone, thiserror::Error)]
pub enum RuntimeError {
    /// No library at any of the paths.
    #[error(
        "ONNX Runtime {VERSION} not found: looked at {0}. Run `make vendor`, or give --ort-library FILE (LFM_ORT_LIBRARY)"
    )]
    NotFound(String),
    /// A library was found, but cannot be used.
    #[error("cannot use the ONNX Runtime library {path}: {reason}. This program needs version {VERSION}")]
    Unusable {
        /// Which.
        path: PathBuf,
        /// Why.
        reason: String,
    },
}

/// The process's environment: ONNX Runtime allows only one, so the first library loaded stays.
static ENVIRONMENT: OnceLock<Result<Environment, RuntimeError>> = OnceLock::new();

/// Loads ONNX Runtime (`library`, else the one found) and creates the environment, once per process; later calls
/// return the same.
///
/// # Errors
/// If there is no library, or it is not ONNX Runtime, or has another version.
pub fn environment(library: Option<&Path>) -> Result<&'static Environment, RuntimeError> {
    ENVIRONMENT
        .get_or_init(|| {
            let path = find_library(library)?;
            load(&path).map_err(|reason| RuntimeError::Unusable { path, reason })
        })
        .as_ref()
        .map_err(Clone::clone)
}

fn load(path: &Path) -> Result<Environment, String> {
    let version = version_of(path)?;
    if version != VERSION {
        return Err(format!("it is version {version}"));
    }
    let builder = ort::init_from(path).map_err(|error| one_line(&error))?;
    let environment = builder.with_name("lfm-serve").with_telemetry(false).build().map_err(|error| one_line(&error))?;
    // With its `tracing` feature ort starts at VERBOSE.
    environment.set_log_level(LogLevel::Warning);
    Ok(environment)
}

/// The version that a library reports. `ort` accepts any newer one; scores are verified only on the tested one.
#[allow(unsafe_code, reason = "a foreign library is asked for its version")]
fn version_of(path: &Path) -> Result<String, String> {
    type GetApiBase = unsafe extern "C" fn() -> *const ort::sys::OrtApiBase;
    // SAFETY: the operator asked to load the library at this path, which runs its initialisers.
    let library = unsafe { libloading::Library::new(path) }.map_err(|error| one_line(&error))?;
    // SAFETY: every ONNX Runtime exports `OrtGetApiBase` with this signature (onnxruntime_c_api.h).
    let base =
        unsafe { library.get::<GetApiBase>(b"OrtGetApiBase") }.map_err(|_| "it is not ONNX Runtime".to_owned())?;
    // SAFETY: the function takes nothing and returns a pointer to a static, checked for null here.
    let base = unsafe { base().as_ref() }.ok_or("it has no API")?;
    // SAFETY: `GetVersionString` returns a static C string.
    let version = unsafe { std::ffi::CStr::from_ptr((base.GetVersionString)()) };
    Ok(version.to_string_lossy().into_owned())
}

/// The library to load: the given one, else `ORT_DYLIB_PATH`, else the first found.
///
/// # Errors
/// If there is none.
pub fn find_library(given: Option<&Path>) -> Result<PathBuf, RuntimeError> {
    // If a library is named, no other is tried.
    let named = given.map(Path::to_path_buf).or_else(|| env::var_os("ORT_DYLIB_PATH").map(PathBuf::from));
    first_file(named.map_or_else(default_places, |path| vec![path])).map_err(RuntimeError::NotFound)
}

/// The first of these files that is there.
///
/// # Errors
/// All of their paths, if none is.
pub(super) fn first_file(candidates: Vec<PathBuf>) -> Result<PathBuf, String> {
    let places = || candidates.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ");
    candidates.iter().find(|path| path.is_file()).cloned().ok_or_else(places)
}

fn default_places() -> Vec<PathBuf> {
    let beside = crate::beside_executable("../lib").map(|folder| folder.join(LIBRARY));
    // The build with CUDA comes first if it was fetched; it also runs on the CPU.
    let vendor = Path::new(env!("CARGO_MANIFEST_DIR")).join("vendor");
    let checkout = ["onnxruntime-gpu", "onnxruntime"].map(|build| vendor.join(build).join(LIBRARY));
    beside.into_iter().chain(checkout).collect()
}

/// An error's text on one line, for the log.
pub(super) fn one_line(error: &dyn std::error::Error) -> String {
    error.to_string().split_whitespace().collect::<Vec<_>>().join(" ")
}
