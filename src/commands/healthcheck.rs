//! `lfm-serve healthcheck`.

use std::{process::ExitCode, time::Duration};

use clap::Args;

/// Settings of `healthcheck`.
#[derive(Debug, Args)]
pub(super) struct HealthcheckArgs {
    /// The probe to ask.
    #[arg(long, env = "LFM_URL", default_value = "http://127.0.0.1:8080/readyz")]
    url: String,

    /// How long to wait for its answer.
    #[arg(long, env = "LFM_TIMEOUT", value_name = "DURATION", default_value = "3s", value_parser = humantime::parse_duration)]
    timeout: Duration,
}

pub(super) fn run(args: &HealthcheckArgs) -> ExitCode {
    let agent: ureq::Agent = ureq::Agent::config_builder().timeout_global(Some(args.timeout)).build().into();
    match agent.get(&args.url).call() {
        Ok(_) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("lfm-serve: {} is not healthy: {error}", args.url);
            ExitCode::FAILURE
        }
    }
}
