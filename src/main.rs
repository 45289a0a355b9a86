//! The `lfm-serve` program: arguments in, exit code out.

use std::process::ExitCode;

use clap::Parser;
use lfm_serve::commands::Cli;

fn main() -> ExitCode {
    match Cli::parse().run() {
        Ok(code) => code,
        Err(error) => {
            // One line, whatever went wrong: it is what the night engineer sees first.
            eprintln!("lfm-serve: {error:#}");
            ExitCode::FAILURE
        }
    }
}
