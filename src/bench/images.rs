//! Decoding and resizing of JPEG (4:2:0, quality 90), each against Pillow, one thread.

use std::{fmt, path::Path, str::FromStr, time::Duration};

use comfy_table::Table;
use serde::Serialize;
use sha2::{Digest, Sha256};

use super::{
    measure::{Rounds, Spread, thread_seconds},
    pillow::{Found, Pillow},
    table,
};
use crate::image::{self, Cancel, ImageError, Limits, Preprocessing, Region, Regions, Scratch, corpus};

/// Width and height in pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(super) struct Size {
    width: u16,
    height: u16,
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}x{}", self.width, self.height)
    }
}

impl FromStr for Size {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let sides = text.split_once('x').and_then(|(width, height)| {
            let side = |text: &str| text.parse().ok().filter(|&side| side > 0);
            Some(Self { width: side(width)?, height: side(height)? })
        });
        sides.ok_or("expected WIDTHxHEIGHT in pixels, such as 4000x3000")
    }
}

/// What is timed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Task {
    /// Bytes to full-size RGB.
    Decode,
    /// Full-size RGB to the network's input.
    Resize,
    /// Bytes to the network's input, as in the server: decode and resize combined.
    Prepare,
    /// Bytes to five inputs of native pixels.
    Regions,
}

impl Task {
    fn name(self) -> &'static str {
        match self {
            Self::Decode => "decode",
            Self::Resize => "resize",
            Self::Prepare => "prepare",
            Self::Regions => "regions",
        }
    }
}

/// The measurements on images.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    pillow: Found,
    rows: Vec<Row>,
}

/// One task on one image.
#[derive(Debug, Serialize)]
struct Row {
    task: Task,
    #[serde(flatten)]
    size: Size,
    /// Size of the JPEG.
    bytes: usize,
    /// Whether the JPEG has a restart marker after every row of MCUs.
    restart_markers: bool,
    /// CPU milliseconds.
    ms: Spread,
    #[serde(flatten)]
    pillow: Option<Versus>,
}

#[derive(Debug, Serialize)]
struct Versus {
    pillow_ms: Spread,
    /// Ratio of Pillow's time to ours: above 1, ours is faster.
    pillow_over: Spread,
    /// Whether both give the same 256x256 pixels, resized and of each region.
    same_pixels: bool,
}

/// Measures the tasks at every size.
pub(super) fn measure(
    tasks: &[Task],
    sizes: &[Size],
    python: Option<&Path>,
    rounds: &Rounds,
) -> Result<Report, anyhow::Error> {
    let (mut pillow, found) = Pillow::start(python);
    let mut rows = Vec::new();
    for &size in sizes {
        measure_file(tasks, size, false, pillow.as_mut(), rounds, &mut rows)?;
        if tasks.contains(&Task::Regions) {
            measure_file(&[Task::Regions], size, true, pillow.as_mut(), rounds, &mut rows)?;
        }
    }
    Ok(Report { pillow: found, rows })
}

fn measure_file(
    tasks: &[Task],
    size: Size,
    restart_markers: bool,
    mut pillow: Option<&mut Pillow>,
    rounds: &Rounds,
    rows: &mut Vec<Row>,
) -> Result<(), anyhow::Error> {
    let jpeg = if restart_markers { encode_with_restart_markers(size)? } else { encode(size)? };
    let mut scratch = Scratch::default();
    let decoded = image::decode(&jpeg, &image::inspect(&jpeg, &LIMITS)?, &Cancel::default())?;
    let mut ours = Sha256::new_with_prefix(prepare(&jpeg, &mut scratch)?.as_bytes());
    let cut = regions(&jpeg, &mut scratch)?;
    cut.iter().for_each(|region| ours.update(region.pixels.as_bytes()));
    let (ours, bounds): (String, Vec<_>) =
        (crate::hex(&ours.finalize()), cut.into_iter().map(|region| region.bounds).collect());
    let theirs = pillow.as_mut().map(|pillow| pillow.load(&jpeg, &bounds)).transpose()?;
    let same_pixels = theirs.map(|theirs| theirs == ours);

    let sides: &[bool] = if pillow.is_some() { &[false, true] } else { &[false] };
    let contenders: Vec<_> = tasks.iter().flat_map(|&task| sides.iter().map(move |&theirs| (task, theirs))).collect();
    let samples =
        rounds.interleave(&format!("images: {size}"), &contenders, |(task, theirs)| match (theirs, &mut pillow) {
            (true, Some(pillow)) => pillow.time(task.name()),
            _ => ours_once(task, &jpeg, &decoded, &mut scratch).map_err(anyhow::Error::from),
        })?;
    for (&task, samples) in tasks.iter().zip(samples.chunks(sides.len())) {
        let (Some(ours), theirs) = (samples.first(), samples.get(1)) else { continue };
        let pillow = theirs.zip(same_pixels).map(|(theirs, same_pixels)| Versus {
            pillow_ms: theirs.spread(1e3),
            pillow_over: theirs.over(ours),
            same_pixels,
        });
        rows.push(Row { task, size, bytes: jpeg.len(), restart_markers, ms: ours.spread(1e3), pillow });
    }
    Ok(())
}

/// Runs a task once; returns its seconds.
fn ours_once(task: Task, jpeg: &[u8], decoded: &image::Rgb, scratch: &mut Scratch) -> Result<f64, ImageError> {
    match task {
        Task::Decode => {
            let (seconds, done) =
                thread_seconds(|| image::decode(jpeg, &image::inspect(jpeg, &LIMITS)?, &Cancel::default()));
            done.map(|_| seconds)
        }
        Task::Resize => Ok(thread_seconds(|| image::resize(decoded, scratch)).0),
        Task::Prepare => {
            let (seconds, done) = thread_seconds(|| prepare(jpeg, scratch));
            done.map(|_| seconds)
        }
        Task::Regions => {
            let (seconds, done) = thread_seconds(|| regions(jpeg, scratch));
            done.map(|_| seconds)
        }
    }
}

fn prepare(jpeg: &[u8], scratch: &mut Scratch) -> Result<image::Pixels, ImageError> {
    image::prepare(jpeg, &image::inspect(jpeg, &LIMITS)?, Preprocessing::Resize, scratch, &Cancel::default())
}

fn regions(jpeg: &[u8], scratch: &mut Scratch) -> Result<Vec<Region>, ImageError> {
    let header = image::inspect(jpeg, &LIMITS)?;
    image::prepare_regions(jpeg, &header, Preprocessing::Crop, Regions::Five, scratch, &Cancel::default())
}

/// No limits: the user chooses the sizes.
const LIMITS: Limits = Limits { max_pixels: u64::MAX, min_side: 0, max_cost: Duration::MAX, heif: true };

/// A JPEG of [`corpus::shapes`].
fn encode(size: Size) -> Result<Vec<u8>, anyhow::Error> {
    let (width, height) = (usize::from(size.width), usize::from(size.height));
    let pixels = corpus::shapes(width, height);
    let image = turbojpeg::Image {
        pixels: pixels.as_slice(),
        width,
        pitch: width * 3,
        height,
        format: turbojpeg::PixelFormat::RGB,
    };
    Ok(turbojpeg::compress(image, 90, turbojpeg::Subsamp::Sub2x2)?.to_vec())
}

/// The same with a restart marker after every row of MCUs.
fn encode_with_restart_markers(size: Size) -> Result<Vec<u8>, anyhow::Error> {
    let mut jpeg = Vec::new();
    let mut encoder = jpeg_encoder::Encoder::new(&mut jpeg, 90);
    encoder.set_sampling_factor(jpeg_encoder::SamplingFactor::F_2_2);
    encoder.set_restart_interval(size.width.div_ceil(16));
    let pixels = corpus::shapes(size.width.into(), size.height.into());
    encoder.encode(&pixels, size.width, size.height, jpeg_encoder::ColorType::Rgb)?;
    Ok(jpeg)
}

/// For the terminal.
pub(super) fn tabulate(report: &Report) -> Table {
    let mut table = table(["task", "pixels", "JPEG, kB", "ours, ms", "Pillow, ms", "faster by"].map(String::from));
    for row in &report.rows {
        let [theirs, faster] = match &row.pillow {
            Some(versus) => [versus.pillow_ms.to_string(), versus.pillow_over.to_string()],
            None => ["absent", ""].map(String::from),
        };
        let kilobytes = (row.bytes / 1000).to_string();
        table.add_row([
            format!("{}{}", row.task.name(), if row.restart_markers { ", restart markers" } else { "" }),
            row.size.to_string(),
            kilobytes,
            row.ms.to_string(),
            theirs,
            faster,
        ]);
    }
    table
}

/// Notes below the table.
pub(super) fn remarks(report: &Report) -> Vec<String> {
    let other = report.rows.iter().any(|row| row.pillow.as_ref().is_some_and(|versus| !versus.same_pixels));
    let other = other.then(|| "Pillow's pixels differ for some image: the times are not comparable.".to_owned());
    report.pillow.remark().into_iter().chain(other).collect()
}
