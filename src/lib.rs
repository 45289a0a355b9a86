//! Is this picture real or generated? The LFM detector (Local Focus Mechanism, BMVC 2025) as a library, run as an ONNX
//! graph through ONNX Runtime, and the server around it.
//!
//! The library: [`image`] turns bytes into the reference's exact pixels, [`model`] turns pixels into a logit, [`judge`]
//! turns a logit into a verdict, [`explain`] splits a logit into contributions of image places. [`Detector`] is all of
//! that in one call:
//!
//! ```
//! use lfm_serve::{Detector, config::ModelConfig};
//!
//! let mut detector = Detector::open(&ModelConfig::default())?;
//! let answer = detector.score(&std::fs::read("tests/golden/images/orig_rocket.jpg")?)?;
//! println!("{:?}: P(fake) = {:?}", answer.judgement.verdict, answer.judgement.score);
//!
//! // The logit is a sum over places of the image.
//! let attribution = answer.attribution()?;
//! let logit = answer.judgement.logit.expect("no warning voids the verdict");
//! assert!((attribution.sum() - f64::from(logit)).abs() < 1e-3);
//! # Ok::<_, Box<dyn std::error::Error>>(())
//! ```
//!
//! The server is behind the feature `server`, on by default; without it nothing here needs tokio, axum or tonic. Its
//! modules are public for the program, its tests and its benchmarks; they are not an API. ARCHITECTURE.md describes
//! them.

#![deny(unsafe_code)]

// The library, leaves first.
pub mod config;
pub mod conv;
pub mod cuda;
pub mod error;
pub mod image;
pub mod topk;

pub mod declared;
pub mod judge;
pub mod model;

pub mod explain;

pub mod answer;
mod detector;

pub use detector::{Answer, Detector};

// The server, bottom up.
#[cfg(feature = "server")]
#[doc(hidden)]
pub mod audit;
#[cfg(feature = "server")]
#[doc(hidden)]
pub mod metrics;
#[cfg(feature = "server")]
#[doc(hidden)]
pub mod telemetry;
#[cfg(feature = "server")]
#[doc(hidden)]
pub mod timings;
#[cfg(feature = "server")]
#[doc(hidden)]
pub mod trace;

#[cfg(feature = "server")]
#[doc(hidden)]
pub mod calibrate;
#[cfg(feature = "server")]
#[doc(hidden)]
pub mod encoded;
#[cfg(feature = "server")]
#[doc(hidden)]
pub mod import;
#[cfg(feature = "server")]
#[doc(hidden)]
pub mod keys;
#[cfg(feature = "server")]
#[doc(hidden)]
pub mod scheduler;
#[cfg(feature = "server")]
#[doc(hidden)]
pub mod served;

#[cfg(feature = "server")]
#[doc(hidden)]
pub mod server;

#[cfg(feature = "server")]
#[doc(hidden)]
pub mod api;
#[cfg(feature = "server")]
#[doc(hidden)]
pub mod oip;
#[cfg(feature = "server")]
#[doc(hidden)]
pub mod page;

#[cfg(feature = "server")]
#[doc(hidden)]
pub mod app;
#[cfg(feature = "server")]
#[doc(hidden)]
pub mod bench;
#[cfg(feature = "server")]
#[doc(hidden)]
pub mod commands;

use std::path::{Path, PathBuf};

/// The git revision this was built from, `unknown` outside a checkout.
pub const REVISION: &str = env!("LFM_REVISION");

/// Lower-case hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// A place relative to the folder of the running executable: how an unpacked archive finds its parts.
pub(crate) fn beside_executable(relative: impl AsRef<Path>) -> Option<PathBuf> {
    let executable = std::env::current_exe().ok()?;
    Some(executable.parent()?.join(relative))
}

/// The program `lfm-serve` that is started for what may abort: itself where this is `lfm-serve`, else the one beside it, as a test finds it.
pub(crate) fn program() -> Option<PathBuf> {
    const NAME: &str = "lfm-serve";
    let executable = std::env::current_exe().ok()?;
    // Another version may have taken its place meanwhile.
    let own = executable.file_name()?.to_str()?.trim_end_matches(" (deleted)") == NAME;
    let beside = || executable.ancestors().skip(1).take(2).map(|folder| folder.join(NAME)).find(|file| file.is_file());
    if own { Some("/proc/self/exe".into()) } else { beside() }
}
