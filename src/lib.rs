//! `lfm-serve`: is this picture real or generated?
//!
//! An HTTP service around the LFM detector (Local Focus Mechanism, BMVC 2025), run as an ONNX graph through
//! ONNX Runtime. One image travels one way, by value, through stages that know only the next one:
//!
//! ```text
//! HTTP -> admission -> decode pool -> queue -> session worker -> verdict -> HTTP
//! bytes   share        256x256x3 u8   batch    logit, top-k      score, warnings
//! ```
//!
//! The modules in reading order: what is judged ([`image`], [`conv`], [`topk`], [`cuda`], [`model`],
//! [`verdict`], [`explain`]), how it flows
//! ([`pipeline`]), who asks ([`app`], [`http`], [`oip`], [`commands`]), and what all of them share ([`config`],
//! [`error`], [`keys`], [`metrics`], [`telemetry`]).

#![deny(unsafe_code)]

pub mod conv;
pub mod cuda;
pub mod image;
pub mod topk;

pub mod explain;
pub mod model;
pub mod verdict;

pub mod pipeline;

pub mod oip;

pub mod app;
pub mod commands;
pub mod http;
pub mod shutdown;

pub mod config;
pub mod error;
pub mod keys;
pub mod metrics;
pub mod telemetry;
pub mod trace;

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
