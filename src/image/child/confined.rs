//! The process that decodes: it confines itself, reads its data and writes RGB.

use std::{
    io::{self, BufWriter, Read, StdoutLock, Write},
    process::ExitCode,
};

use rustix::process::{Resource, Rlimit, setrlimit};
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter};
use serde::de::DeserializeOwned;

use super::{Job, State};

/// A decoder's side of the pipe.
pub(in crate::image) struct Output(BufWriter<StdoutLock<'static>>);

impl Output {
    /// Says that rows follow.
    pub(in crate::image) fn decoded(&mut self) -> io::Result<()> {
        self.0.write_all(&[State::Decoded as u8])
    }

    pub(in crate::image) fn row(&mut self, rgb: &[u8]) -> io::Result<()> {
        self.0.write_all(rgb)
    }
}

/// What the data is refused with that cannot be decoded.
pub(in crate::image) fn damaged() -> Stop {
    io::Error::from(io::ErrorKind::InvalidData).into()
}

/// Why a process ends before its rows.
pub(in crate::image) enum Stop {
    Failed(io::Error),
    Refused(State),
}

impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Self {
        Self::Failed(error)
    }
}

/// Does a job. `prepare` runs before the rights are given up: it may open files, and sees no data.
pub(in crate::image) fn run<W: DeserializeOwned, P>(
    job: &str,
    prepare: impl FnOnce() -> Result<P, State>,
    decode: impl FnOnce(&W, P, &[u8], &mut Output) -> Result<(), Stop>,
) -> ExitCode {
    let Ok(job) = serde_json::from_str::<Job<W>>(job) else { return ExitCode::FAILURE };
    let mut output = Output(BufWriter::with_capacity(1 << 16, io::stdout().lock()));
    let done = prepare().map_err(Stop::Refused).and_then(|prepared| {
        confine(job.memory, job.seconds).map_err(|_| Stop::Refused(State::Unconfined))?;
        let mut data = Vec::new();
        io::stdin().lock().read_to_end(&mut data)?;
        decode(&job.work, prepared, &data, &mut output)
    });
    let done = match done {
        Err(Stop::Refused(state)) => output.0.write_all(&[state as u8]),
        Err(Stop::Failed(error)) => Err(error),
        Ok(()) => Ok(()),
    };
    if done.and_then(|()| output.0.flush()).is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// From here on the process can compute, read and write what is open, and end: no files, no sockets, no processes.
fn confine(memory: u64, seconds: u64) -> Result<(), anyhow::Error> {
    let limits = [(Resource::Data, memory), (Resource::Cpu, seconds), (Resource::Fsize, 0), (Resource::Core, 0)];
    for (resource, most) in limits {
        setrlimit(resource, Rlimit { current: Some(most), maximum: Some(most) })?;
    }
    // What the allocator, locks, input and output, and an abort need.
    const ALLOWED: [i64; 19] = [
        libc::SYS_brk,
        libc::SYS_clock_gettime,
        libc::SYS_exit,
        libc::SYS_exit_group,
        libc::SYS_futex,
        libc::SYS_getpid,
        libc::SYS_getrandom,
        libc::SYS_gettid,
        libc::SYS_madvise,
        libc::SYS_mmap,
        libc::SYS_mprotect,
        libc::SYS_mremap,
        libc::SYS_munmap,
        libc::SYS_read,
        libc::SYS_rt_sigprocmask,
        libc::SYS_rt_sigreturn,
        libc::SYS_sigaltstack,
        libc::SYS_tgkill,
        libc::SYS_write,
    ];
    let rules = ALLOWED.map(|call| (call, Vec::new())).into();
    let other = SeccompAction::Errno(libc::EPERM as u32);
    let filter = SeccompFilter::new(rules, other, SeccompAction::Allow, std::env::consts::ARCH.try_into()?)?;
    seccompiler::apply_filter(&BpfProgram::try_from(filter)?)?;
    Ok(())
}
