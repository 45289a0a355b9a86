//! The process that decodes one picture: it confines itself, reads an AV1 stream and writes RGB.

use std::{
    io::{self, BufWriter, Read, Write},
    process::ExitCode,
};

use rustix::process::{Resource, Rlimit, setrlimit};
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter};

use super::{
    av1::{Picture, Row},
    colour::Method,
    process::{Colours, DECODED, Job, UNCONFINED},
    rgb::Converter,
};

/// Reads a stream from standard input and writes its pixels to standard output.
pub(crate) fn run(job: &str) -> ExitCode {
    let Ok(job) = serde_json::from_str::<Job>(job) else { return ExitCode::FAILURE };
    let done = match confine(&job) {
        Ok(()) => decode(&job),
        Err(_) => io::stdout().write_all(&[UNCONFINED]),
    };
    if done.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// From here on the process can compute, read and write what is open, and end: no files, no sockets, no processes.
fn confine(job: &Job) -> Result<(), anyhow::Error> {
    let limits =
        [(Resource::Data, job.memory), (Resource::Cpu, job.seconds), (Resource::Fsize, 0), (Resource::Core, 0)];
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

fn decode(job: &Job) -> io::Result<()> {
    let damaged = || io::Error::from(io::ErrorKind::InvalidData);
    let mut stream = Vec::new();
    io::stdin().lock().read_to_end(&mut stream)?;
    let picture = Picture::decode(&stream, job.shape).ok_or_else(damaged)?;
    let mut out = BufWriter::with_capacity(1 << 16, io::stdout().lock());
    out.write_all(&[DECODED])?;
    let Some(Colours { cicp, alpha }) = job.colours else { return out.flush() };
    let method = Method::new(job.shape, cicp, alpha).ok_or_else(damaged)?;
    let mut converter = Converter::new(job.shape, method, |plane, y, out: &mut [u16]| {
        match picture.row(plane, y)? {
            Row::Bytes(row) => out.iter_mut().zip(row).for_each(|(out, &sample)| *out = sample.into()),
            Row::Words(row) => out.copy_from_slice(row.get(..out.len())?),
        }
        Some(())
    });
    let mut rgb = vec![0; job.shape.width as usize * 3];
    for y in 0..job.shape.height as usize {
        converter.row(y, &mut rgb).ok_or_else(damaged)?;
        out.write_all(&rgb)?;
    }
    out.flush()
}
