//! Files for measuring decoding and testing its limits: one of every format and variant, with photo-like content
//! (shapes with grain), and files that claim many pixels in few bytes.

mod avif;
mod heic;
mod png;
mod raw;
mod tiff;
mod webp;

use super::heif_library;
pub(crate) use png::chunk as png_chunk;
use turbojpeg::{Compressor, Image, PixelFormat, Subsamp};

/// A file and its variant.
#[derive(Clone)]
pub(crate) struct Sample {
    pub(crate) name: String,
    pub(crate) bytes: Vec<u8>,
}

/// One file of each variant, of this size.
pub(crate) fn photos(width: usize, height: usize) -> Result<Vec<Sample>, anyhow::Error> {
    let photo = Photo::new(width, height);
    let samples = jpegs(&photo)?.into_iter().chain(png::all(&photo)).chain(raw::gifs(&photo)).chain(raw::bmps(&photo));
    Ok(samples.chain(tiff::all(&photo)?).chain(webp::all(width, height)).collect())
}

/// AVIF files, which are decoded in a process of their own.
pub(crate) fn avifs() -> Vec<Sample> {
    avif::all()
}

/// HEIC files, where they can be read.
pub(crate) fn heics() -> Vec<Sample> {
    if heif_library(None).is_ok() { heic::all() } else { Vec::new() }
}

/// One of 62 megapixels in a kilobyte.
pub(crate) fn avif_bomb() -> Sample {
    avif::bomb()
}

/// Small files with the highest decode cost, of about this many pixels.
pub(crate) fn bombs(pixels: usize) -> Result<Vec<Sample>, anyhow::Error> {
    let side = pixels.isqrt();
    let mut samples = vec![
        jpeg_bomb(side, "jpeg_bomb_progressive", Coding { progressive: true, arithmetic: false })?,
        jpeg_bomb(side, "jpeg_bomb_arithmetic", Coding { progressive: true, arithmetic: true })?,
        png::bomb(side),
        raw::gif_bomb(side),
        raw::bmp_bomb(side),
    ];
    samples.extend(tiff::bombs(side)?);
    samples.extend(webp::bombs(side));
    Ok(samples)
}

/// RGB pixels that compress like a photo.
struct Photo {
    width: usize,
    height: usize,
    rgb: Vec<u8>,
}

impl Photo {
    fn new(width: usize, height: usize) -> Self {
        Self { width, height, rgb: shapes(width, height) }
    }

    fn rows(&self) -> impl Iterator<Item = &[u8]> {
        self.rgb.chunks_exact(self.width * 3)
    }

    /// One byte per pixel.
    fn grey(&self) -> Vec<u8> {
        self.rgb.iter().step_by(3).copied().collect()
    }
}

#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Coding {
    pub(super) progressive: bool,
    pub(super) arithmetic: bool,
}

pub(super) fn jpeg(
    pixels: &[u8],
    (width, height): (usize, usize),
    format: PixelFormat,
    subsamp: Subsamp,
    quality: i32,
    coding: Coding,
) -> Result<Vec<u8>, anyhow::Error> {
    let mut compressor = Compressor::new()?;
    compressor.set_quality(quality)?;
    compressor.set_subsamp(subsamp)?;
    compressor.set_progressive(coding.progressive)?;
    compressor.set_arithmetic(coding.arithmetic)?;
    let image = Image { pixels, width, pitch: width * format.size(), height, format };
    Ok(compressor.compress_to_vec(image)?)
}

fn jpegs(photo: &Photo) -> Result<Vec<Sample>, anyhow::Error> {
    let size = (photo.width, photo.height);
    let baseline = Coding::default();
    let progressive = Coding { progressive: true, ..baseline };
    let arithmetic = Coding { arithmetic: true, ..baseline };
    let both = Coding { progressive: true, arithmetic: true };
    let rgb = [
        ("jpeg_420_q30", Subsamp::Sub2x2, 30, baseline),
        ("jpeg_420_q75", Subsamp::Sub2x2, 75, baseline),
        ("jpeg_420_q90", Subsamp::Sub2x2, 90, baseline),
        ("jpeg_422_q90", Subsamp::Sub2x1, 90, baseline),
        ("jpeg_444_q98", Subsamp::None, 98, baseline),
        ("jpeg_420_q90_progressive", Subsamp::Sub2x2, 90, progressive),
        ("jpeg_444_q98_progressive", Subsamp::None, 98, progressive),
        ("jpeg_420_q30_progressive", Subsamp::Sub2x2, 30, progressive),
        ("jpeg_420_q90_arithmetic", Subsamp::Sub2x2, 90, arithmetic),
        ("jpeg_444_q98_arithmetic", Subsamp::None, 98, arithmetic),
        ("jpeg_420_q90_progressive_arithmetic", Subsamp::Sub2x2, 90, both),
        ("jpeg_444_q98_progressive_arithmetic", Subsamp::None, 98, both),
    ];
    let sample = |name: &str, bytes| Sample { name: name.to_owned(), bytes };
    let mut samples = Vec::new();
    for (name, subsamp, quality, coding) in rgb {
        samples.push(sample(name, jpeg(&photo.rgb, size, PixelFormat::RGB, subsamp, quality, coding)?));
    }
    let grey = photo.grey();
    samples.push(sample("jpeg_grey_q90", jpeg(&grey, size, PixelFormat::GRAY, Subsamp::Gray, 90, baseline)?));
    let cmyk: Vec<u8> = photo.rgb.as_chunks::<3>().0.iter().flat_map(|&[r, g, b]| [r, g, b, 255 - r / 4]).collect();
    samples.push(sample("jpeg_cmyk_q90", jpeg(&cmyk, size, PixelFormat::CMYK, Subsamp::None, 90, baseline)?));
    let mut lossless = Compressor::new()?;
    lossless.set_lossless(true)?;
    let image = Image {
        pixels: photo.rgb.as_slice(),
        width: photo.width,
        pitch: photo.width * 3,
        height: photo.height,
        format: PixelFormat::RGB,
    };
    samples.push(sample("jpeg_lossless", lossless.compress_to_vec(image)?));
    Ok(samples)
}

/// A file of one flat block that claims `side` x `side` pixels and repeats its last scan.
fn jpeg_bomb(side: usize, name: &str, coding: Coding) -> Result<Sample, anyhow::Error> {
    const SCANS: usize = 8;
    let mut bytes = jpeg(&[128; 64 * 3], (8, 8), PixelFormat::RGB, Subsamp::None, 50, coding)?;
    let find = |bytes: &[u8], wanted: &dyn Fn(u8) -> bool| {
        bytes.windows(2).rposition(|pair| pair[0] == 0xff && wanted(pair[1])).unwrap_or_default()
    };
    let frame = find(&bytes, &|marker| matches!(marker, 0xc2 | 0xca));
    let [s1, s0] = (side as u16).to_be_bytes();
    bytes[frame + 5..frame + 9].copy_from_slice(&[s1, s0, s1, s0]);
    let (last, end) = (find(&bytes, &|marker| marker == 0xda), bytes.len() - 2);
    let scan = bytes[last..end].repeat(SCANS);
    bytes.splice(end..end, scan);
    Ok(Sample { name: name.to_owned(), bytes })
}

/// Random bytes.
fn noise(length: usize) -> Vec<u8> {
    let mut random = Random::default();
    std::iter::repeat_with(|| (random.bits() >> 32) as u8).take(length).collect()
}

/// RGB pixels of shapes of many sizes with a little grain: similar to a photo for a decoder.
pub(crate) fn shapes(width: usize, height: usize) -> Vec<u8> {
    let mut random = Random::default();
    // Each channel is a sum, over scales, of a wave along x times a wave along y.
    const SCALES: [f32; 4] = [400.0, 90.0, 20.0, 6.0];
    let waves = |len: usize, random: &mut Random| -> Vec<[f32; 12]> {
        let phases: [f32; 12] = std::array::from_fn(|_| random.uniform() * std::f32::consts::TAU);
        let at = |place: usize, wave: usize| (place as f32 / SCALES[wave % SCALES.len()] + phases[wave]).sin();
        (0..len).map(|place| std::array::from_fn(|wave| at(place, wave))).collect()
    };
    let (columns, rows) = (waves(width, &mut random), waves(height, &mut random));
    let mut pixels = Vec::with_capacity(width * height * 3);
    for row in &rows {
        for column in &columns {
            let grain = random.uniform() * 16.0;
            for channel in 0..3 {
                let scales = channel * SCALES.len()..(channel + 1) * SCALES.len();
                let shape: f32 = scales.map(|wave| row[wave] * column[wave]).sum();
                // Saturates at black and white.
                pixels.push((120.0 + 40.0 * shape + grain) as u8);
            }
        }
    }
    pixels
}

/// Random bits (xorshift64): the same in every run.
pub(crate) struct Random(u64);

impl Default for Random {
    fn default() -> Self {
        Self(0x9e37_79b9_7f4a_7c15)
    }
}

impl Random {
    /// A sequence of its own for each number.
    pub(crate) fn seeded(number: u64) -> Self {
        // splitmix64's step: neighbours must not begin alike, and xorshift stays at 0.
        let mixed = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9).wrapping_add(0x9e37_79b9_7f4a_7c15);
        Self(mixed | 1)
    }

    pub(crate) fn bits(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// From 0 to below 1.
    pub(crate) fn uniform(&mut self) -> f32 {
        (self.bits() >> 40) as f32 / (1 << 24) as f32
    }
}
