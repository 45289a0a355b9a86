//! Decoding in a process of its own. rav1d aborts on some damaged files and cannot be stopped within a frame: the process keeps
//! an abort to itself, has a hard limit on its memory, and is killed when its decode is cancelled.

use std::{
    cell::Cell,
    fs,
    io::{self, Read, Write},
    os::fd::{AsFd, BorrowedFd},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::ioctl_fionbio,
    process::{Pid, Signal, kill_process},
};
use serde::{Deserialize, Serialize};

use super::{
    stream::{Cicp, Shape},
    undecodable,
};
use crate::image::{Cancel, Format, ImageError};

/// What the process is asked to do: its last argument, as JSON.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Job {
    pub(super) shape: Shape,
    /// How to convert it; `None` only to see whether it can be decoded.
    pub(super) colours: Option<Colours>,
    /// Most bytes of memory that it may have.
    pub(super) memory: u64,
    /// Most seconds of CPU time.
    pub(super) seconds: u64,
}

/// What the samples mean.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(super) struct Colours {
    pub(super) cicp: Cicp,
    pub(super) alpha: bool,
}

/// The subcommand of `lfm-serve`.
pub(crate) const COMMAND: &str = "decode-av1";

/// The first byte that the process writes: the pixels follow, or it cannot give up its rights. One that ends without has met
/// a damaged stream, or its limits.
pub(super) const DECODED: u8 = 0;
pub(super) const UNCONFINED: u8 = 1;

/// How long a cancellation can go unseen.
const TICK: Timespec = Timespec { tv_sec: 0, tv_nsec: 2_000_000 };

thread_local! {
    static SPENT: Cell<Duration> = const { Cell::new(Duration::ZERO) };
}

/// CPU time of the processes that have decoded for this thread.
#[cfg(feature = "server")]
pub(crate) fn cpu_time() -> Duration {
    SPENT.get()
}

/// Decodes a stream and calls `row` with each row of its pixels.
pub(super) fn decode(
    program: Option<&Path>,
    job: &Job,
    stream: &[u8],
    cancel: &Cancel,
    mut row: impl FnMut(&[u8]),
) -> Result<(), ImageError> {
    cancel.check()?;
    let mut decoder = Decoder::start(program, job)?;
    decoder.send(stream, cancel)?;
    let mut state = [DECODED];
    decoder.receive(&mut state, cancel)?;
    if state == [UNCONFINED] {
        tracing::error!("the AVIF decoder's process cannot be confined (setrlimit, seccomp): AVIF is refused");
        return Err(
            Format::Avif.unsupported("its decoder cannot be confined on this machine; convert it to JPEG or PNG")
        );
    }
    if job.colours.is_some() {
        let mut rgb = vec![0; job.shape.width as usize * 3];
        for _ in 0..job.shape.height {
            decoder.receive(&mut rgb, cancel)?;
            row(&rgb);
        }
    }
    Ok(())
}

/// The program that is started: itself where this is `lfm-serve`, else the one beside it, as a test finds it.
fn program() -> Option<PathBuf> {
    const NAME: &str = "lfm-serve";
    let executable = std::env::current_exe().ok()?;
    // Another version may have taken its place meanwhile.
    let own = executable.file_name()?.to_str()?.trim_end_matches(" (deleted)") == NAME;
    let beside = || executable.ancestors().skip(1).take(2).map(|folder| folder.join(NAME)).find(|file| file.is_file());
    if own { Some("/proc/self/exe".into()) } else { beside() }
}

fn damaged() -> ImageError {
    undecodable("its data is damaged or truncated")
}

struct Decoder {
    process: Child,
}

impl Decoder {
    fn start(program: Option<&Path>, job: &Job) -> Result<Self, ImageError> {
        let missing = || {
            Format::Avif.unsupported("the program lfm-serve that decodes it was not found; convert it to JPEG or PNG")
        };
        let program = program.map(Path::to_path_buf).or_else(self::program).ok_or_else(missing)?;
        let job = serde_json::to_string(job).unwrap_or_default();
        let started = Command::new(program)
            .args([COMMAND, &job])
            .env_clear()
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn();
        let process = started.map_err(|error| match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::OutOfMemory => ImageError::OutOfMemory,
            _ => {
                tracing::error!(%error, "the AVIF decoder's process cannot be started");
                missing()
            }
        })?;
        let decoder = Self { process };
        let pipes = [decoder.process.stdin.as_ref().map(AsFd::as_fd), decoder.process.stdout.as_ref().map(AsFd::as_fd)];
        for pipe in pipes.into_iter().flatten() {
            ioctl_fionbio(pipe, true).map_err(|_| ImageError::OutOfMemory)?;
        }
        Ok(decoder)
    }

    /// Writes all of the stream, and closes the pipe.
    fn send(&mut self, mut stream: &[u8], cancel: &Cancel) -> Result<(), ImageError> {
        let Some(mut pipe) = self.process.stdin.take() else { return Ok(()) };
        while !stream.is_empty() {
            match pipe.write(stream) {
                Ok(written) => stream = stream.get(written..).unwrap_or_default(),
                Err(error) => self.retry(&error, pipe.as_fd(), PollFlags::OUT, cancel)?,
            }
        }
        Ok(())
    }

    /// Fills the buffer.
    fn receive(&mut self, mut buffer: &mut [u8], cancel: &Cancel) -> Result<(), ImageError> {
        cancel.check()?;
        let Some(mut pipe) = self.process.stdout.take() else { return Err(damaged()) };
        while !buffer.is_empty() {
            match pipe.read(buffer) {
                Ok(0) => return Err(damaged()),
                Ok(read) => buffer = &mut buffer[read..],
                Err(error) => self.retry(&error, pipe.as_fd(), PollFlags::IN, cancel)?,
            }
        }
        self.process.stdout = Some(pipe);
        Ok(())
    }

    /// After a failed read or write: waits until the pipe is ready, if that was the reason.
    fn retry(
        &self,
        error: &io::Error,
        pipe: BorrowedFd<'_>,
        ready: PollFlags,
        cancel: &Cancel,
    ) -> Result<(), ImageError> {
        match error.kind() {
            io::ErrorKind::Interrupted => return Ok(()),
            io::ErrorKind::WouldBlock => {}
            _ => return Err(damaged()),
        }
        loop {
            match poll(&mut [PollFd::from_borrowed_fd(pipe, ready)], Some(&TICK)) {
                Ok(0) => self.give_way(cancel)?,
                Ok(_) => return Ok(()),
                Err(rustix::io::Errno::INTR) => {}
                Err(_) => return Err(damaged()),
            }
        }
    }

    /// The flag may keep this thread until it has a CPU again: the process stands still meanwhile.
    fn give_way(&self, cancel: &Cancel) -> Result<(), ImageError> {
        let tell =
            |signal| i32::try_from(self.process.id()).ok().and_then(Pid::from_raw).map(|pid| kill_process(pid, signal));
        tell(Signal::STOP);
        cancel.check()?;
        tell(Signal::CONT);
        Ok(())
    }
}

impl Drop for Decoder {
    fn drop(&mut self) {
        // It has done its work, or nobody waits for that any more.
        let _ = self.process.kill();
        // proc_pid_schedstat(5): nanoseconds on a CPU. Gone once it was waited for.
        let spent = fs::read_to_string(format!("/proc/{}/schedstat", self.process.id())).unwrap_or_default();
        let spent = spent.split(' ').next().and_then(|nanoseconds| nanoseconds.parse().ok()).unwrap_or_default();
        SPENT.set(SPENT.get() + Duration::from_nanos(spent));
        let _ = self.process.wait();
    }
}
