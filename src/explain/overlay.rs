//! The attribution drawn on the picture, as PNG.
//!
//! The picture keeps its colours; what speaks for real is laid over it in blue, what speaks for fake in vermilion (Okabe
//! and Ito's pair that all common forms of colour blindness tell apart), and the opacity grows in proportion to the
//! contribution, on one scale for all pictures. A place is drawn as the 8 x 8 pixels in the middle of the 23 x 23 that it
//! sees. People look at the picture upright: it and the map are turned together by the EXIF orientation, which the
//! network ignores.

use image::{
    DynamicImage, ImageError, Rgb, RgbImage,
    imageops::{self, FilterType},
    metadata::Orientation,
};

use super::{
    Attribution,
    colours::{FULL, blend},
    geometry::{PLACES, middle},
    sheet::{Caption, Sheet},
};
use crate::image::{Format, Header, SIDE, View};

/// Longest side of a picture in the overlay, in pixels; [`View`]s are made for it.
pub const LONGEST: u32 = 1024;

/// Smaller pictures are enlarged by a whole factor up to about this.
const ENLARGE_TO: u32 = 512;

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

/// Draws the overlay: the whole picture with the maps on it; where regions of it are judged, the centre one enlarged
/// beside it; below, the verdict in words, the scale and the sum. At most some 1,600 x 1,300 pixels.
///
/// # Errors
/// If the PNG cannot be written, which in memory it always can.
pub fn draw(subject: &Subject<'_>) -> Result<Vec<u8>, ImageError> {
    let Subject { view, header, attribution, caption } = *subject;
    // A viewer turns no TIFF, and Pillow neither.
    let turn = if header.format == Format::Tiff { 1 } else { header.exif_orientation };
    let parts = attribution.regions.len().max(1) as f64;
    let (mut whole, magnification) = enlarged(view.picture.width, view.picture.height, &view.picture.data);
    // Drawn pixels to one stored pixel.
    let zoom = f64::from(magnification) / f64::from(view.factor);
    for region in &attribution.regions {
        tint(&mut whole, &region.map, parts, region.bounds.map(|at| f64::from(at) * zoom));
    }
    let mut panels = Vec::new();
    let is_part = view.tiles.first().filter(|_| (view.picture.width, view.picture.height) != (SIDE, SIDE));
    if let (Some(tile), Some(first)) = (is_part, attribution.regions.first()) {
        for region in &attribution.regions {
            outline(&mut whole, region.bounds.map(|at| (f64::from(at) * zoom) as u32));
        }
        let (mut near, _) = enlarged(SIDE, SIDE, tile.pixels.as_bytes());
        let bounds = [0.0, 0.0, f64::from(near.width()), f64::from(near.height())];
        tint(&mut near, &first.map, parts, bounds);
        panels.push(upright(near, turn));
    }
    panels.insert(0, upright(whole, turn));
    Sheet::new(&panels, caption, attribution).png()
}

/// A picture of `width` x `height`, a small one enlarged, and how many times.
fn enlarged(width: u32, height: u32, rgb: &[u8]) -> (RgbImage, u32) {
    let picture = RgbImage::from_raw(width, height, rgb.to_vec()).unwrap_or_default();
    match ENLARGE_TO / width.max(height).max(1) {
        0 | 1 => (picture, 1),
        times => (imageops::resize(&picture, width * times, height * times, FilterType::Nearest), times),
    }
}

/// Colours the places of a region's map, which lies on the box `[x0, y0, x1, y1]` of the picture. Of the picture's logit
/// it is one of so many `parts`.
fn tint(picture: &mut RgbImage, map: &[f64], parts: f64, [x0, y0, x1, y1]: [f64; 4]) {
    let place = |at: u32, from: f64, to: f64| middle((f64::from(at) + 0.5 - from) / (to - from) * f64::from(SIDE));
    let columns: Vec<_> = (0..picture.width()).map(|x| place(x, x0, x1)).collect();
    for (y, row) in picture.enumerate_rows_mut() {
        let Some(map_row) = place(y, y0, y1) else { continue };
        for ((_, _, pixel), column) in row.zip(&columns) {
            if let Some(value) = column.and_then(|column| map.get(map_row * PLACES + column)) {
                *pixel = blend(*pixel, value * parts / FULL);
            }
        }
    }
}

/// A frame of white in black around a box, seen on any ground.
fn outline(picture: &mut RgbImage, [x0, y0, x1, y1]: [u32; 4]) {
    for (inset, ink) in [(0, Rgb([0; 3])), (1, Rgb([255; 3]))] {
        let (left, top) = (x0 + inset, y0 + inset);
        let (right, bottom) = (x1.saturating_sub(1 + inset), y1.saturating_sub(1 + inset));
        let across = (left..=right).flat_map(|x| [(x, top), (x, bottom)]);
        let down = (top..=bottom).flat_map(|y| [(left, y), (right, y)]);
        for (x, y) in across.chain(down) {
            if let Some(pixel) = picture.get_pixel_mut_checked(x, y) {
                *pixel = ink;
            }
        }
    }
}

/// As a viewer that heeds the EXIF orientation (TIFF 6.0, tag 274) shows it.
fn upright(picture: RgbImage, orientation: u8) -> RgbImage {
    let mut picture = DynamicImage::from(picture);
    picture.apply_orientation(Orientation::from_exif(orientation).unwrap_or(Orientation::NoTransforms));
    picture.into_rgb8()
}
