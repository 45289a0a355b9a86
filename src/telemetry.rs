//! The log.

use std::io::{self, IsTerminal};

use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::{EnvFilter, fmt};

use crate::config::{LogConfig, LogFormat};

/// What SIGUSR1 adds to the filter: our own words only, since libraries may put headers into theirs.
const DEBUG: &str = "lfm_serve=debug";

/// Changes the level of the running log.
pub struct Level {
    configured: String,
    set: Box<dyn Fn(EnvFilter) + Send + Sync>,
}

impl Level {
    /// From here on SIGUSR1 turns debug on, and the next one off.
    ///
    /// # Errors
    /// If the handler cannot be installed.
    pub fn toggle_on_signal(self) -> io::Result<()> {
        let mut toggle = signal(SignalKind::user_defined1())?;
        tokio::spawn(async move {
            let mut on = false;
            while toggle.recv().await.is_some() {
                on = !on;
                // Said under the level that shows it, on the way in and on the way out.
                if !on {
                    tracing::info!(debug = on, "SIGUSR1: log level");
                }
                let filter = if on { format!("{},{DEBUG}", self.configured) } else { self.configured.clone() };
                (self.set)(EnvFilter::new(filter));
                if on {
                    tracing::info!(debug = on, "SIGUSR1: log level");
                }
            }
        });
        Ok(())
    }
}

/// Starts logging to standard error, for the whole process.
///
/// # Errors
/// If the level is not one, or a log has been started before.
pub fn start(config: &LogConfig) -> Result<Level, anyhow::Error> {
    // ort logs every node it places at INFO, OpenTelemetry its own life; their warnings are enough.
    let configured = format!("ort=warn,opentelemetry=warn,{}", config.log_level);
    let filter = EnvFilter::try_new(&configured)
        .map_err(|error| anyhow::anyhow!("--log-level {}: {error}", config.log_level))?;
    let json = match config.log_format {
        LogFormat::Auto => !io::stderr().is_terminal(),
        LogFormat::Text => false,
        LogFormat::Json => true,
    };
    let builder = fmt().with_env_filter(filter).with_writer(io::stderr);
    // A subscriber's type tells its format: each arm has a handle of its own type.
    let (started, set): (_, Box<dyn Fn(EnvFilter) + Send + Sync>) = if json {
        let builder = builder.json().flatten_event(true).with_current_span(false).with_span_list(false);
        let builder = builder.with_filter_reloading();
        let handle = builder.reload_handle();
        (builder.try_init(), Box::new(move |filter| drop(handle.reload(filter))))
    } else {
        let builder = builder.with_ansi(io::stderr().is_terminal()).with_target(false).with_filter_reloading();
        let handle = builder.reload_handle();
        (builder.try_init(), Box::new(move |filter| drop(handle.reload(filter))))
    };
    started.map_err(|error| anyhow::anyhow!("cannot start the log: {error}"))?;
    Ok(Level { configured, set })
}
