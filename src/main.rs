//! The `lfm-serve` program: arguments in, exit code out.

use std::process::ExitCode;

use clap::Parser;
use lfm_serve::{commands::Cli, telemetry};

fn main() -> ExitCode {
    libraries_do_as_we_say();
    match Cli::parse().run() {
        Ok(code) => code,
        Err(error) => {
            // One line, whatever went wrong.
            telemetry::say(&format!("lfm-serve: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

/// Two libraries take from the environment alone what they must do here. What is set already stays.
#[allow(unsafe_code, reason = "the environment is written before a second thread could read it")]
fn libraries_do_as_we_say() {
    for (variable, value) in [
        // NVIDIA's libraries multiply 32-bit floats with 10 bits of mantissa (TF32) where they may, TensorRT by default:
        // fp32 would not be what it says.
        ("NVIDIA_TF32_OVERRIDE", "0"),
        // ONNX Runtime's wheels for Linux send Microsoft an event at every start, with an id that they keep in the home
        // folder, since 1.29 (microsoft/onnxruntime#27379); switching its events off by its API does not stop that one.
        ("ORT_DISABLE_TELEMETRY", "1"),
    ] {
        if std::env::var_os(variable).is_none() {
            // SAFETY: the process has one thread here.
            unsafe { std::env::set_var(variable, value) };
        }
    }
}
