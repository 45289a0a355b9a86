//! A picture's planes to rows of RGB.

use super::{
    colour::{Matrix, Method, Precision},
    stream::{Layout, Shape},
};

/// Converts a picture row by row.
pub(super) struct Converter<P> {
    shape: Shape,
    method: Method,
    /// Writes a row of a plane into a buffer that is as long; `None` if the picture has no such row.
    plane_row: P,
    luma: Vec<u16>,
    /// The chroma planes' rows: stored, and as wide as the picture.
    near: Vec<u16>,
    far: Vec<u16>,
    wide: [Vec<u16>; 2],
}

impl<P: Fn(usize, usize, &mut [u16]) -> Option<()>> Converter<P> {
    pub(super) fn new(shape: Shape, method: Method, plane_row: P) -> Self {
        let width = shape.width as usize;
        let chroma = shape.chroma().map_or(0, |(width, _)| width as usize);
        let row = |length| vec![0; length];
        let wide = [row(width), row(width)];
        Self { shape, method, plane_row, luma: row(width), near: row(chroma), far: row(chroma), wide }
    }

    /// The RGB of row `y`.
    pub(super) fn row(&mut self, y: usize, rgb: &mut [u8]) -> Option<()> {
        (self.plane_row)(0, y, &mut self.luma)?;
        let pixels = rgb.as_chunks_mut::<3>().0;
        match self.method {
            Method::Stored => {
                for (plane, wide) in self.wide.iter_mut().enumerate() {
                    (self.plane_row)(plane + 1, y, wide)?;
                }
                let [blue, red] = &self.wide;
                for (((out, &g), &b), &r) in pixels.iter_mut().zip(&self.luma).zip(blue).zip(red) {
                    *out = [r, g, b].map(|sample| sample as u8);
                }
            }
            Method::Grey { black, range } => {
                for (out, &y) in pixels.iter_mut().zip(&self.luma) {
                    let unit = ((f32::from(y) - black) / range).clamp(0.0, 1.0);
                    *out = [(0.5 + unit * 255.0) as u8; 3];
                }
            }
            Method::Matrix { matrix, precision } => {
                self.luma.iter_mut().for_each(|sample| *sample >>= precision.cut);
                if self.shape.layout == Layout::I400 {
                    self.wide.iter_mut().for_each(|wide| wide.fill(1 << (precision.bits - 1)));
                } else {
                    for plane in 0..2 {
                        self.chroma_row(plane, y, precision)?;
                    }
                }
                multiply(matrix, precision.bits, &self.luma, &self.wide, pixels);
            }
        }
        Some(())
    }

    /// A chroma row as wide as the picture, as libyuv's `I420ToARGBMatrixBilinear` and `I422ToARGBMatrixLinear` make it.
    fn chroma_row(&mut self, plane: usize, y: usize, precision: Precision) -> Option<()> {
        let (height, wide) = (self.shape.height as usize, &mut self.wide[plane]);
        let read = |y: usize, row: &mut [u16]| {
            (self.plane_row)(plane + 1, y, row)?;
            row.iter_mut().for_each(|sample| *sample >>= precision.cut);
            Some(())
        };
        if self.shape.layout == Layout::I444 {
            return read(y, wide);
        }
        let halved = self.shape.layout == Layout::I420;
        if precision.nearest {
            read(if halved { y / 2 } else { y }, &mut self.near)?;
            wide.iter_mut().enumerate().for_each(|(x, out)| *out = self.near[x / 2]);
        } else if !halved || y == 0 || y + 1 == height && height.is_multiple_of(2) {
            read(if halved { y / 2 } else { y }, &mut self.near)?;
            widen(&self.near, wide, 0);
        } else {
            let above = (y - 1) / 2;
            let (near, far) = if y % 2 == 1 { (above, above + 1) } else { (above + 1, above) };
            read(near, &mut self.near)?;
            read(far, &mut self.far)?;
            self.near.iter_mut().zip(&self.far).for_each(|(near, far)| *near = 3 * *near + far);
            widen(&self.near, wide, 2);
        }
        Some(())
    }
}

/// Enlarges a row twofold: three parts of the nearer sample, one of the other; the first and the last pixel have one alone.
/// The samples have `more` fractional bits, which are rounded off.
fn widen(samples: &[u16], wide: &mut [u16], more: u32) {
    let round = |value: u16, bits: u32| (value + (1 << bits >> 1)) >> bits;
    let Some(last) = wide.len().checked_sub(1) else { return };
    let (edge, inner) = (more, more + 2);
    for (pair, out) in samples.windows(2).zip(wide.get_mut(1..last).unwrap_or_default().chunks_mut(2)) {
        let mixed = [3 * pair[0] + pair[1], pair[0] + 3 * pair[1]];
        out.iter_mut().zip(mixed).for_each(|(out, mixed)| *out = round(mixed, inner));
    }
    wide[0] = round(samples[0], edge);
    wide[last] = round(samples[last / 2], edge);
}

fn multiply(matrix: &Matrix, bits: u32, luma: &[u16], chroma: &[Vec<u16>; 2], pixels: &mut [[u8; 3]]) {
    let Matrix { yg, yb, ub, ug, vg, vr } = *matrix;
    let [u, v] = chroma;
    let centred = |sample: u16| i32::from(sample >> (bits - 8)).min(255) - 128;
    for (((out, &y), &u), &v) in pixels.iter_mut().zip(luma).zip(u).zip(v) {
        let (y, u, v) = (i32::from(y), centred(u), centred(v));
        // All 16 bits are used: the upper ones again at the lower end.
        let y = y << (16 - bits) | y >> (2 * bits - 16);
        let y = ((y * yg) >> 16) + yb;
        *out = [y + v * vr, y - (u * ug + v * vg), y + u * ub].map(|value| (value >> 6).clamp(0, 255) as u8);
    }
}
