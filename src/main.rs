//! The `lfm-serve` program: arguments in, exit code out.

use std::{
    io::{self, Write},
    process::ExitCode,
    sync::mpsc,
    thread,
    time::Duration,
};

use clap::Parser;
use lfm_serve::commands::Cli;

fn main() -> ExitCode {
    libraries_do_as_we_say();
    match Cli::parse().run() {
        Ok(code) => code,
        Err(error) => {
            // One line, whatever went wrong.
            last_words(format!("lfm-serve: {error:#}\n"));
            ExitCode::FAILURE
        }
    }
}

/// Writes to standard error, and waits a second at most: its reader may be gone or asleep.
fn last_words(line: String) {
    let (done, wait) = mpsc::channel::<()>();
    thread::spawn(move || {
        let _ = io::stderr().write_all(line.as_bytes());
        drop(done);
    });
    let _ = wait.recv_timeout(Duration::from_secs(1));
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
