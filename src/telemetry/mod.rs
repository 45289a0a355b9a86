//! The log: lines to standard error, written by one thread, so that nothing else ever waits for their reader.

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

/// The running log. Dropping it writes what is left, for half a second at most.
pub struct Log {
    configured: String,
    set: Arc<dyn Fn(EnvFilter) + Send + Sync>,
    writer: Writer,
}

impl Log {
    /// From here on lines that are dropped are counted in `counter`, those dropped so far included.
    pub fn count_dropped_in(&self, counter: IntCounter) {
        self.writer.count_dropped_in(counter);
    }

    /// Writes the lines that wait, for half a second at most.
    pub fn flush(&self) {
        self.writer.flush();
    }

    /// From here on SIGUSR1 turns debug on, and the next one off.
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
                // Logged at the level that shows it, both when debug starts and when it ends.
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
    // ort logs every node it places at INFO, OpenTelemetry its own life; their warnings are enough. c2pa logs what it
    // reads in callers' files.
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
    // The subscriber would report its own failures with `eprintln!`, which blocks and can panic.
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

/// Replaces the standard hook, which writes to standard error itself and waits for its reader.
fn log_panic(panic: &PanicHookInfo<'_>) {
    let message = panic.payload_as_str().unwrap_or("no message");
    let place = panic.location().map(ToString::to_string);
    tracing::error!(message = %clipped(message), place, "panic");
}
