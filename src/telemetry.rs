//! The log.

use std::io::{self, IsTerminal};

use tracing_subscriber::{EnvFilter, fmt};

use crate::config::{LogConfig, LogFormat};

/// Starts logging to standard error, for the whole process.
///
/// # Errors
/// If the level is not one, or a log has been started before.
pub fn start(config: &LogConfig) -> Result<(), anyhow::Error> {
    // ort logs every node it places at INFO; its warnings are enough.
    let filter = EnvFilter::try_new(format!("ort=warn,{}", config.log_level))
        .map_err(|error| anyhow::anyhow!("--log-level {}: {error}", config.log_level))?;
    let json = match config.log_format {
        LogFormat::Auto => !io::stderr().is_terminal(),
        LogFormat::Text => false,
        LogFormat::Json => true,
    };
    let builder = fmt().with_env_filter(filter).with_writer(io::stderr);
    let started = if json {
        builder.json().flatten_event(true).with_current_span(false).with_span_list(false).try_init()
    } else {
        builder.with_ansi(io::stderr().is_terminal()).with_target(false).try_init()
    };
    started.map_err(|error| anyhow::anyhow!("cannot start the log: {error}"))
}
