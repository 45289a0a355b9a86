//! The attribution drawn on the picture, as PNG.
//!
//! The picture is grey, so that every colour is evidence: blue speaks for real, vermilion for fake (Okabe and
//! Ito's pair that all common forms of colour blindness tell apart), and the opacity grows in proportion to the
//! contribution. A place is drawn as the 8 x 8 pixels in the middle of the 23 x 23 that it sees. People look at
//! the picture upright: it and the map are turned together by the EXIF orientation, which the network ignores.

use super::{
    Attribution,
    geometry::{PLACES, middle},
    text,
};
use crate::image::{Header, Pixels, Rgb, SIDE, View};

/// Longest side of a picture in the overlay, in pixels; [`View`]s are made for it.
pub const LONGEST: u32 = 1024;

/// Smaller pictures are enlarged by a whole factor up to about this.
const ENLARGE_TO: usize = 512;

const REAL: [u8; 3] = [0, 114, 178];
const FAKE: [u8; 3] = [213, 94, 0];
/// Opacity of the greatest contribution: the picture shows through everywhere.
const OPAQUE: f64 = 0.85;

const WHITE: [u8; 3] = [255; 3];
const BLACK: [u8; 3] = [0; 3];
const MARGIN: usize = 8;
const LINE: usize = text::CHARACTER + 4;
/// Room for the longest line of the legend.
const LEAST_WIDTH: usize = 34 * text::CHARACTER;

/// What is drawn.
#[derive(Debug, Clone, Copy)]
pub struct Subject<'a> {
    /// The picture and, where only parts are judged, the centre tile.
    pub view: &'a View,
    /// The picture's header.
    pub header: &'a Header,
    /// Why.
    pub attribution: &'a Attribution,
    /// What is said of it in words.
    pub caption: &'a Caption,
}

/// What the overlay says in words.
#[derive(Debug, Clone)]
pub struct Caption {
    /// Verdict and score.
    pub heading: String,
    /// What they rest on, and which model judged.
    pub lines: Vec<String>,
}

/// The contribution that is drawn in full colour, in logit units: the same for all pictures.
const FULL: f64 = 0.25;

/// Draws the overlay: the whole picture with the maps on it; where tiles of it are judged, the centre one enlarged beside
/// it; below, the scale in logit units and the sum. At most some 1,600 x 1,200 pixels.
///
/// # Errors
/// If the PNG cannot be written, which in memory it always can.
pub fn draw(subject: &Subject<'_>) -> Result<Vec<u8>, png::EncodingError> {
    let scale = FULL;
    let Subject { view, header, attribution, .. } = *subject;
    let orientation = if header.format == crate::image::Format::Tiff { 1 } else { header.exif_orientation };
    let mut whole = Canvas::magnified(&view.picture);
    // Canvas pixels to one stored pixel.
    let zoom = whole.magnification as f64 / f64::from(view.factor);
    let parts = attribution.regions.len();
    for region in &attribution.regions {
        whole.tint(&region.map, parts, scale, region.bounds.map(|at| f64::from(at) * zoom));
    }
    let mut panels = Vec::new();
    let is_part = view.tiles.first().filter(|_| (view.picture.width, view.picture.height) != (SIDE, SIDE));
    if let (Some(tile), Some(first)) = (is_part, attribution.regions.first()) {
        for region in &attribution.regions {
            whole.outline(region.bounds.map(|at| (f64::from(at) * zoom) as usize));
        }
        let mut near = Canvas::magnified(&rgb(&tile.pixels));
        near.tint(&first.map, parts, scale, [0.0, 0.0, near.width as f64, near.height as f64]);
        panels.push(near.turned(orientation));
    }
    panels.insert(0, whole.turned(orientation));
    png(&assemble(&panels, attribution, scale))
}

fn rgb(tile: &Pixels) -> Rgb {
    Rgb { width: SIDE, height: SIDE, data: tile.as_bytes().to_vec() }
}

/// The panels side by side on white, the legend below.
fn assemble(panels: &[Canvas], attribution: &Attribution, scale: f64) -> Canvas {
    let width = panels.iter().map(|panel| panel.width + MARGIN).sum::<usize>() + MARGIN;
    let top = panels.iter().map(|panel| panel.height).max().unwrap_or(0) + 2 * MARGIN;
    let mut sheet = Canvas::filled(width.max(LEAST_WIDTH + 2 * MARGIN), top + 5 * LINE + MARGIN, WHITE);
    let mut left = MARGIN;
    for panel in panels {
        sheet.paste(panel, left, MARGIN);
        left += panel.width + MARGIN;
    }
    sheet.write("contribution to the logit", MARGIN, top);
    // A map of zeros has no scale to show.
    let end = if scale > 0.0 { format!("{scale:.3}") } else { "0".into() };
    let bar = LEAST_WIDTH;
    for x in 0..bar {
        let share = 2.0 * x as f64 / (bar - 1) as f64 - 1.0;
        // On the middle grey, as it looks on a picture.
        let colour = blend([128; 3], share);
        (0..text::CHARACTER).for_each(|y| sheet.set(MARGIN + x, top + LINE + y, colour));
    }
    let fake = format!("fake +{end}");
    sheet.write(&format!("-{end} real"), MARGIN, top + 2 * LINE);
    sheet.write("0", MARGIN + (bar - text::CHARACTER) / 2, top + 2 * LINE);
    sheet.write(&fake, MARGIN + bar - fake.len() * text::CHARACTER, top + 2 * LINE);
    let places = attribution.sum() - attribution.bias;
    sheet.write(&format!("bias {:+.3}, places {places:+.3}", attribution.bias), MARGIN, top + 3 * LINE);
    sheet.write(&format!("sum: logit {:+.3}", attribution.sum()), MARGIN, top + 4 * LINE);
    sheet
}

/// A background under a contribution of `share` (-1 to 1) of the greatest one.
fn blend(under: [u8; 3], share: f64) -> [u8; 3] {
    let colour = if share > 0.0 { FAKE } else { REAL };
    let opacity = OPAQUE * share.abs().min(1.0);
    std::array::from_fn(|i| {
        let [under, over] = [under, colour].map(|of| of.get(i).copied().map_or(0.0, f64::from));
        (under + opacity * (over - under)).round() as u8
    })
}

fn png(canvas: &Canvas) -> Result<Vec<u8>, png::EncodingError> {
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, canvas.width as u32, canvas.height as u32);
    encoder.set_color(png::ColorType::Rgb);
    // It is looked at once: time counts for more than bytes.
    encoder.set_compression(png::Compression::Fast);
    let mut writer = encoder.write_header()?;
    writer.write_image_data(canvas.pixels.as_flattened())?;
    writer.finish()?;
    Ok(bytes)
}

/// Pixels to draw on.
struct Canvas {
    width: usize,
    height: usize,
    pixels: Vec<[u8; 3]>,
    /// Its pixels to one of the picture that it was made from.
    magnification: usize,
}

impl Canvas {
    fn filled(width: usize, height: usize, colour: [u8; 3]) -> Self {
        Self { width, height, pixels: vec![colour; width * height], magnification: 1 }
    }

    /// The picture in grey, a small one enlarged.
    fn magnified(picture: &Rgb) -> Self {
        let (width, height) = (picture.width as usize, picture.height as usize);
        let magnification = (ENLARGE_TO / width.max(height).max(1)).max(1);
        let mut canvas = Self {
            pixels: Vec::with_capacity(width * height * magnification * magnification),
            magnification,
            width: width * magnification,
            height: height * magnification,
        };
        for row in picture.data.chunks_exact(width.max(1) * 3) {
            let wide: Vec<_> =
                row.as_chunks::<3>().0.iter().flat_map(|&rgb| std::iter::repeat_n(grey(rgb), magnification)).collect();
            (0..magnification).for_each(|_| canvas.pixels.extend_from_slice(&wide));
        }
        canvas
    }

    /// Colours the places of the map, which lies on the box `[x0, y0, x1, y1]` of the canvas.
    fn tint(&mut self, map: &[f64], regions: usize, scale: f64, [x0, y0, x1, y1]: [f64; 4]) {
        let scale = scale / regions.max(1) as f64;
        let side = f64::from(SIDE);
        let place = |at: usize, from: f64, to: f64| middle((at as f64 + 0.5 - from) / (to - from) * side);
        let columns: Vec<_> = (0..self.width).map(|x| place(x, x0, x1)).collect();
        for (y, row) in self.pixels.chunks_exact_mut(self.width.max(1)).enumerate() {
            let Some(map_row) = place(y, y0, y1) else { continue };
            for (pixel, column) in row.iter_mut().zip(&columns) {
                let value = column.and_then(|column| map.get(map_row * PLACES + column));
                if let Some(value) = value {
                    *pixel = blend(*pixel, value / scale);
                }
            }
        }
    }

    /// A frame of white in black around a box, seen on any ground.
    fn outline(&mut self, [x0, y0, x1, y1]: [usize; 4]) {
        for (inset, colour) in [(0, BLACK), (1, WHITE)] {
            let (x0, y0) = (x0 + inset, y0 + inset);
            let (x1, y1) = (x1.saturating_sub(1 + inset), y1.saturating_sub(1 + inset));
            for x in x0..=x1 {
                self.set(x, y0, colour);
                self.set(x, y1, colour);
            }
            for y in y0..=y1 {
                self.set(x0, y, colour);
                self.set(x1, y, colour);
            }
        }
    }

    /// Upright: as a viewer that heeds the EXIF orientation (TIFF 6.0, tag 274) shows it.
    fn turned(self, orientation: u8) -> Self {
        let (width, height) = (self.width, self.height);
        let swaps = (5..=8).contains(&orientation);
        let (out_width, out_height) = if swaps { (height, width) } else { (width, height) };
        let mut out = Self::filled(out_width, out_height, WHITE);
        for y in 0..out_height {
            for x in 0..out_width {
                let (right, below) = (out_width - 1 - x, out_height - 1 - y);
                // Where the upright pixel is stored.
                let (sx, sy) = match orientation {
                    2 => (right, y),
                    3 => (right, below),
                    4 => (x, below),
                    5 => (y, x),
                    6 => (y, right),
                    7 => (below, right),
                    8 => (below, x),
                    _ => (x, y),
                };
                if let Some(&pixel) = self.pixels.get(sy * width + sx) {
                    out.set(x, y, pixel);
                }
            }
        }
        out
    }

    fn set(&mut self, x: usize, y: usize, colour: [u8; 3]) {
        if x < self.width
            && let Some(pixel) = self.pixels.get_mut(y * self.width + x)
        {
            *pixel = colour;
        }
    }

    fn paste(&mut self, other: &Self, left: usize, top: usize) {
        for (y, row) in other.pixels.chunks_exact(other.width.max(1)).enumerate() {
            row.iter().enumerate().for_each(|(x, &pixel)| self.set(left + x, top + y, pixel));
        }
    }

    fn write(&mut self, line: &str, left: usize, top: usize) {
        text::ink(line).for_each(|(x, y)| self.set(left + x, top + y, BLACK));
    }
}

/// Luma (ITU-R BT.601).
fn grey([r, g, b]: [u8; 3]) -> [u8; 3] {
    let luma = (299 * u32::from(r) + 587 * u32::from(g) + 114 * u32::from(b) + 500) / 1000;
    [luma.min(255) as u8; 3]
}
