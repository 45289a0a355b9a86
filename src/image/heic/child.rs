//! The process that decodes one picture: HEVC streams to RGB.

use std::{
    io::{self, Write},
    process::ExitCode,
};

use super::{Samples, Task, hevc::Hevc, rgb::Method, turn::View};
use crate::image::child::{
    State,
    confined::{self, Output, Stop, damaged},
};

/// Reads streams from standard input and writes the pixels of their picture to standard output. Without a job, it writes the
/// library's version.
pub(crate) fn run(job: Option<&str>) -> ExitCode {
    match (job, Hevc::open()) {
        (Some(job), library) => confined::run(
            job,
            || library.ok_or(State::NoLibrary),
            |task, library, data, output| decode(task, &library, data, output),
        ),
        (None, Some(library)) => {
            let said = writeln!(io::stdout(), "{}", library.version());
            if said.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        (None, None) => ExitCode::FAILURE,
    }
}

/// `data` has a stream for each tile, behind its length in 4 bytes.
fn decode(task: &Task, library: &Hevc, mut data: &[u8], output: &mut Output) -> Result<(), Stop> {
    let mut planes = Planes::new(task.samples, task.size);
    let mut cicp = task.cicp;
    let [columns, rows] = task.grid;
    for tile in 0..columns * rows {
        let (length, rest) = data.split_first_chunk().ok_or_else(damaged)?;
        let (stream, rest) = rest.split_at_checked(u32::from_be_bytes(*length) as usize).ok_or_else(damaged)?;
        data = rest;
        let corner = [tile % columns * task.tile[0], tile / columns * task.tile[1]];
        let copied = library.picture(stream, |frame| {
            cicp.get_or_insert_with(|| frame.cicp());
            let mut copier = planes.copier(corner);
            frame.rows(task.samples, task.tile, |plane, row| copier.row(plane, row))
        });
        copied.ok_or_else(damaged)?;
    }
    let Some(view) = task.view else { return Ok(output.decoded()?) };
    let method = cicp.and_then(|cicp| Method::new(task.samples, cicp)).ok_or(Stop::Refused(State::UnknownMatrix))?;
    output.decoded()?;
    let (width, height) = view.shown();
    let mut pixels = vec![[0; 3]; width as usize];
    let mut samples = [(); 3].map(|()| vec![0; width as usize]);
    for y in 0..height as usize {
        planes.row(view, y, &mut samples);
        method.row(&samples, &mut pixels);
        output.row(pixels.as_flattened())?;
    }
    Ok(())
}

/// A whole picture.
struct Planes {
    samples: Samples,
    planes: Vec<Plane>,
}

struct Plane {
    /// In bytes.
    width: usize,
    data: Vec<u8>,
}

impl Planes {
    fn new(samples: Samples, size: [u32; 2]) -> Self {
        let plane = |[width, height]: [u32; 2]| {
            let width = width as usize * samples.bytes();
            Plane { width, data: vec![0; width * height as usize] }
        };
        Self { samples, planes: samples.planes(size).map(plane).collect() }
    }

    /// Takes the rows of a tile, cut where the picture ends.
    fn copier(&mut self, [x, y]: [u32; 2]) -> Copier<'_> {
        let [right, down] = self.samples.subsampling.unwrap_or_default();
        let starts = [(x, y), (x >> right, y >> down), (x >> right, y >> down)];
        let bytes = self.samples.bytes();
        Copier { planes: &mut self.planes, next: starts.map(|(x, y)| (x as usize * bytes, y as usize)) }
    }

    /// The samples of a row as it is shown. Chroma samples stand for all pixels that share them.
    fn row(&self, view: View, y: usize, out: &mut [Vec<u16>; 3]) {
        let [right, down] = self.samples.subsampling.unwrap_or_default();
        for ((plane, out), shifts) in self.planes.iter().zip(out).zip([[0, 0], [right, down], [right, down]]) {
            for (x, out) in out.iter_mut().enumerate() {
                let (column, row) = view.stored(x, y);
                *out = plane.sample(column >> shifts[0], row >> shifts[1], self.samples);
            }
        }
    }
}

impl Plane {
    fn sample(&self, x: usize, y: usize, samples: Samples) -> u16 {
        let row = &self.data[y * self.width..][..self.width];
        match samples.bytes() {
            1 => row[x].into(),
            _ => u16::from_ne_bytes([row[2 * x], row[2 * x + 1]]),
        }
    }
}

struct Copier<'a> {
    planes: &'a mut [Plane],
    /// Where the next row of each plane starts: the byte in its row, and the row.
    next: [(usize, usize); 3],
}

impl Copier<'_> {
    fn row(&mut self, plane: usize, row: &[u8]) {
        let (start, y) = &mut self.next[plane];
        let Plane { width, data } = &mut self.planes[plane];
        if let Some(out) = data.chunks_exact_mut(*width).nth(*y) {
            let out = out.get_mut(*start..).unwrap_or_default();
            let length = out.len().min(row.len());
            out[..length].copy_from_slice(&row[..length]);
        }
        *y += 1;
    }
}
