//! The process that decodes one picture: an AV1 stream to RGB.

use std::process::ExitCode;

use super::{
    Colours, Task,
    av1::{Picture, Row},
    colour::Method,
    rgb::Converter,
};
use crate::image::child::{
    State,
    confined::{self, Output, Stop, damaged},
};

/// Reads a stream from standard input and writes its pixels to standard output.
pub(crate) fn run(job: &str) -> ExitCode {
    confined::run(job, || Ok(()), |task, (), stream, output| decode(task, stream, output))
}

fn decode(task: &Task, stream: &[u8], output: &mut Output) -> Result<(), Stop> {
    let picture = Picture::decode(stream, task.shape).ok_or_else(damaged)?;
    let Some(Colours { cicp, alpha }) = task.colours else { return Ok(output.decoded()?) };
    let method = Method::new(task.shape, cicp, alpha).ok_or(Stop::Refused(State::UnknownMatrix))?;
    output.decoded()?;
    let mut converter = Converter::new(task.shape, method, |plane, y, out: &mut [u16]| {
        match picture.row(plane, y)? {
            Row::Bytes(row) => out.iter_mut().zip(row).for_each(|(out, &sample)| *out = sample.into()),
            Row::Words(row) => out.copy_from_slice(row.get(..out.len())?),
        }
        Some(())
    });
    let mut rgb = vec![0; task.shape.width as usize * 3];
    for y in 0..task.shape.height as usize {
        converter.row(y, &mut rgb).ok_or_else(damaged)?;
        output.row(&rgb)?;
    }
    Ok(())
}
