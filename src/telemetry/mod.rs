//! The log: lines to standard error, written by one thread, so that no other thread blocks on a slow reader.

mod writer;

use std::{
    io::{self, IsTerminal},
    panic::{self, PanicHookInfo},
    sync::Arc,
};

use prometheus::IntCounter;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::{EnvFilter, fmt};

pub use self::writer::say;

use self::writer::Writer;
use crate::{
    config::{LogConfig, LogFormat},
    error::clipped,
};

/// What SIGUSR1 adds to the filter: this crate only, since libraries may log request headers.
const DEBUG: &str = "lfm_serve=debug";

/// The running log. Dropping it writes the remaining lines, for half a second at most.
pub struct Log {
    configured: String,
    set: Arc<dyn Fn(EnvFilter) + Send + Sync>,
    writer: Writer,
}

impl Log {
    /// Counts dropped lines in `counter` from now on, including those dropped so far.
    pub fn count_dropped_in(&self, counter: IntCounter) {
        self.writer.count_dropped_in(counter);
    }

    /// Writes the queued lines, for half a second at most.
    pub fn flush(&self) {
        self.writer.flush();
    }

    /// Installs the handler of SIGUSR1: it turns debug on, the next one turns it off.
    ///
    /// # Errors
    /// If the handler cannot be installed.
    pub fn toggle_on_signal(&self) -> io::Result<()> {
        let mut toggle = signal(SignalKind::user_defined1())?;
        let configured = self.configured.clone();
        let set = Arc::clone(&self.set);
        tokio::spawn(async move {
            let mut on = false;
            while toggle.recv().await.is_some() {
                on = !on;
                // Logged while debug is on, so that both its start and its end are shown.
                if !on {
                    tracing::info!(debug = on, "SIGUSR1: log level");
                }
                let filter = if on { format!("{configured},{DEBUG}") } else { configured.clone() };
                set(EnvFilter::new(filter));
                if on {
                    tracing::info!(debug = on, "SIGUSR1: log level");
                }
            }
        });
        Ok(())
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        self.flush();
    }
}

/// Starts logging to standard error, for the whole process. A panic is logged too.
///
/// # Errors
/// If the level is invalid, or a log has been started before.
pub fn start(config: &LogConfig) -> Result<Log, anyhow::Error> {
    // At INFO ort logs every node placement and OpenTelemetry its own start and stop; their warnings are enough. c2pa logs
    // the contents of callers' files.
    let configured = format!("ort=warn,opentelemetry=warn,c2pa=off,{}", config.log_level);
    let filter = EnvFilter::try_new(&configured)
        .map_err(|error| anyhow::anyhow!("--log-level {}: {error}", config.log_level))?;
    let json = match config.log_format {
        LogFormat::Auto => !io::stderr().is_terminal(),
        LogFormat::Text => false,
        LogFormat::Json => true,
    };
    let writer = Writer::start().map_err(|error| anyhow::anyhow!("cannot start the log: {error}"))?;
    let lines = writer.lines();
    // Otherwise the subscriber reports its own failures with `eprintln!`, which blocks and can panic.
    let builder = fmt().with_env_filter(filter).with_writer(move || lines.clone()).log_internal_errors(false);
    // The subscriber's type depends on the format, so each arm has a handle of its own type.
    let (started, set): (_, Arc<dyn Fn(EnvFilter) + Send + Sync>) = if json {
        let builder = builder.json().flatten_event(true).with_current_span(false).with_span_list(false);
        let builder = builder.with_filter_reloading();
        let handle = builder.reload_handle();
        (builder.try_init(), Arc::new(move |filter| drop(handle.reload(filter))))
    } else {
        let builder = builder.with_ansi(io::stderr().is_terminal()).with_target(false).with_filter_reloading();
        let handle = builder.reload_handle();
        (builder.try_init(), Arc::new(move |filter| drop(handle.reload(filter))))
    };
    started.map_err(|error| anyhow::anyhow!("cannot start the log: {error}"))?;
    panic::set_hook(Box::new(log_panic));
    Ok(Log { configured, set, writer })
}

/// Replaces the standard hook, which blocks on writing to standard error.
fn log_panic(panic: &PanicHookInfo<'_>) {
    let message = panic.payload_as_str().unwrap_or("no message");
    let place = panic.location().map(ToString::to_string);
    tracing::error!(message = %clipped(message), place, "panic");
}
