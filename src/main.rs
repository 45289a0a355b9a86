//! The `lfm-serve` program: arguments in, exit code out.

use std::process::ExitCode;

use clap::Parser;
use lfm_serve::commands::Cli;

fn main() -> ExitCode {
    single_precision_means_it();
    match Cli::parse().run() {
        Ok(code) => code,
        Err(error) => {
            // One line, whatever went wrong: it is what the night engineer sees first.
            eprintln!("lfm-serve: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// NVIDIA's libraries multiply 32-bit floats with 10 bits of mantissa (TF32) where they may, TensorRT by default: fp32
/// would not be what it says. Their own variable settles it for all of them; one that is set already stays.
#[allow(unsafe_code, reason = "the environment is written before a second thread could read it")]
fn single_precision_means_it() {
    const VARIABLE: &str = "NVIDIA_TF32_OVERRIDE";
    if std::env::var_os(VARIABLE).is_none() {
        // SAFETY: the process has one thread here.
        unsafe { std::env::set_var(VARIABLE, "0") };
    }
}
