//! `lfm-serve bench`.

use std::process::ExitCode;

use crate::bench::{BenchArgs, report};

pub(super) fn run(args: &BenchArgs) -> Result<ExitCode, anyhow::Error> {
    super::print_line(&report(args)?)?;
    Ok(ExitCode::SUCCESS)
}
