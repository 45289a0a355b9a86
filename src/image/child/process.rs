//! This side of the pipes. The process keeps an abort to itself, has a hard limit on its memory, and is killed when its decode
//! is cancelled.

use std::{
    cell::Cell,
    fs,
    io::{self, Read, Write},
    marker::PhantomData,
    os::fd::{AsFd, BorrowedFd},
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use super::{Job, State, UNKNOWN_MATRIX, Work};
use crate::image::{Cancel, ImageError};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::ioctl_fionbio,
    process::{Pid, Signal, kill_process},
};

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

/// Decodes `data` and calls `row` with each row of its pixels.
pub(in crate::image) fn decode<W: Work>(
    program: Option<&Path>,
    job: &Job<W>,
    data: &[u8],
    cancel: &Cancel,
    mut row: impl FnMut(&[u8]),
) -> Result<(), ImageError> {
    cancel.check()?;
    let mut decoder = Decoder::start(program, job)?;
    decoder.send(data, cancel)?;
    let mut state = [0];
    decoder.receive(&mut state, cancel)?;
    let refused = |reason| Err(W::FORMAT.unsupported(reason));
    match State::read(state[0]).ok_or_else(damaged::<W>)? {
        State::Decoded => {}
        State::Unconfined => {
            let format = W::FORMAT;
            tracing::error!(%format, "a decoder's process cannot be confined (setrlimit, seccomp): its images are refused");
            return refused("its decoder cannot be confined on this machine; convert it to JPEG or PNG");
        }
        State::NoLibrary => {
            let format = W::FORMAT;
            tracing::error!(%format, "the library that decodes it has gone: its images are refused");
            return refused("the library that decodes it is not installed; convert it to JPEG or PNG");
        }
        State::UnknownMatrix => return refused(UNKNOWN_MATRIX),
    }
    if let Some((width, height)) = job.work.output() {
        let mut rgb = vec![0; width as usize * 3];
        for _ in 0..height {
            decoder.receive(&mut rgb, cancel)?;
            row(&rgb);
        }
    }
    Ok(())
}

/// What the program prints for a command alone; nothing where it fails.
pub(in crate::image) fn ask(program: Option<&Path>, command: &str) -> Option<String> {
    let program = program.map(Path::to_path_buf).or_else(crate::program)?;
    let mut asked = Command::new(program);
    asked.arg(command).env_clear().stdin(Stdio::null()).stderr(Stdio::null());
    let output = asked.output().ok().filter(|output| output.status.success())?;
    Some(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

fn damaged<W: Work>() -> ImageError {
    W::FORMAT.undecodable("its data is damaged or truncated")
}

struct Decoder<W> {
    process: Child,
    work: PhantomData<W>,
}

impl<W: Work> Decoder<W> {
    fn start(program: Option<&Path>, job: &Job<W>) -> Result<Self, ImageError> {
        let missing =
            || W::FORMAT.unsupported("the program lfm-serve that decodes it was not found; convert it to JPEG or PNG");
        let program = program.map(Path::to_path_buf).or_else(crate::program).ok_or_else(missing)?;
        let job = serde_json::to_string(job).unwrap_or_default();
        let started = Command::new(program)
            .args([W::COMMAND, &job])
            .env_clear()
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn();
        let process = started.map_err(|error| match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::OutOfMemory => ImageError::OutOfMemory,
            _ => {
                let format = W::FORMAT;
                tracing::error!(%error, %format, "a decoder's process cannot be started");
                missing()
            }
        })?;
        let decoder = Self { process, work: PhantomData };
        let pipes = [decoder.process.stdin.as_ref().map(AsFd::as_fd), decoder.process.stdout.as_ref().map(AsFd::as_fd)];
        for pipe in pipes.into_iter().flatten() {
            ioctl_fionbio(pipe, true).map_err(|_| ImageError::OutOfMemory)?;
        }
        Ok(decoder)
    }

    /// Writes all of the data, and closes the pipe.
    fn send(&mut self, mut data: &[u8], cancel: &Cancel) -> Result<(), ImageError> {
        let Some(mut pipe) = self.process.stdin.take() else { return Ok(()) };
        while !data.is_empty() {
            match pipe.write(data) {
                Ok(written) => data = data.get(written..).unwrap_or_default(),
                Err(error) => self.retry(&error, pipe.as_fd(), PollFlags::OUT, cancel)?,
            }
        }
        Ok(())
    }

    /// Fills the buffer.
    fn receive(&mut self, mut buffer: &mut [u8], cancel: &Cancel) -> Result<(), ImageError> {
        cancel.check()?;
        let Some(mut pipe) = self.process.stdout.take() else { return Err(damaged::<W>()) };
        while !buffer.is_empty() {
            match pipe.read(buffer) {
                Ok(0) => return Err(damaged::<W>()),
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
            _ => return Err(damaged::<W>()),
        }
        loop {
            match poll(&mut [PollFd::from_borrowed_fd(pipe, ready)], Some(&TICK)) {
                Ok(0) => self.give_way(cancel)?,
                Ok(_) => return Ok(()),
                Err(rustix::io::Errno::INTR) => {}
                Err(_) => return Err(damaged::<W>()),
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

impl<W> Drop for Decoder<W> {
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
