//! Trials in a process of their own, by a hidden subcommand of `lfm-serve`: of what may end the process that tries it.

use std::{
    ffi::OsString,
    io::Read,
    process::{Command, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};

/// The longest that a trial may take, in which an engine is built.
const LIMIT: Duration = Duration::from_secs(120);

/// What the process that tries prints last: it passed, or a reason follows.
const PASSED: &str = "passed";
const REFUSED: &str = "refused: ";

/// Runs `lfm-serve` with this subcommand and these arguments.
///
/// # Errors
/// The reason that it gave, or that it crashed, or took too long.
pub(super) fn run(subcommand: &str, arguments: impl IntoIterator<Item = OsString>) -> Result<(), String> {
    /// A reason is shorter, and what the libraries print is not needed.
    const MOST_SAID: u64 = 1 << 16;
    let program = crate::program().ok_or("the program lfm-serve, which runs the trial, was not found")?;
    let mut command = Command::new(program);
    command.arg(subcommand).args(arguments);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let cannot_start = |error| format!("the process that runs the trial cannot be started: {error}");
    let mut process = command.spawn().map_err(cannot_start)?;
    let (send, said) = mpsc::channel();
    let pipe = process.stdout.take();
    let reading = thread::Builder::new().spawn(move || {
        let mut text = Vec::new();
        let _ = pipe.map(|pipe| pipe.take(MOST_SAID).read_to_end(&mut text));
        let _ = send.send(text);
    });
    let said = said.recv_timeout(LIMIT);
    // What has closed its output is ending, with a status that this does not change.
    let _ = process.kill();
    let status = reading.and_then(|_| process.wait()).map_err(cannot_start)?;
    let Ok(said) = said else { return Err(format!("the trial did not end within {} s", LIMIT.as_secs())) };
    let said = String::from_utf8_lossy(&said);
    let last = said.trim().lines().last().unwrap_or_default();
    match last.strip_prefix(REFUSED) {
        Some(reason) => Err(reason.to_owned()),
        None if last == PASSED && status.success() => Ok(()),
        None => Err(format!("the trial ended the process that ran it: {status}")),
    }
}

/// What the process that tries prints.
#[cfg(feature = "server")]
pub(super) fn answer(tried: Result<(), String>) -> String {
    tried.map_or_else(|reason| format!("{REFUSED}{reason}"), |()| PASSED.to_owned())
}
