//! Panels side by side on white, and below them in words what was found, on which scale, and who says so.

use ab_glyph::{Font, FontRef, ScaleFont, point};
use epaint_default_fonts::HACK_REGULAR;
use image::{
    ExtendedColorType, ImageEncoder, ImageError, Rgb, RgbImage,
    codecs::png::{CompressionType, FilterType, PngEncoder},
    imageops,
};

use super::{
    Attribution,
    colours::{FULL, blend},
};

/// What the overlay says in words.
#[derive(Debug, Clone)]
pub struct Caption {
    /// Verdict and score.
    pub heading: String,
    /// What they rest on, and which model judged.
    pub lines: Vec<String>,
}

const WHITE: Rgb<u8> = Rgb([255; 3]);
const INK: Rgb<u8> = Rgb([32; 3]);
/// What the scale's colours lie on, as on a picture.
const GREY: Rgb<u8> = Rgb([128; 3]);
const MARGIN: u32 = 8;
/// Heights of letters, in pixels.
const SMALL: f32 = 15.0;
const LARGE: f32 = 24.0;
/// From one line to the next, in heights.
const LEADING: f32 = 1.35;
/// Length of the scale.
const SCALE: u32 = 480;
const SCALE_HEIGHT: u32 = 16;

pub(super) struct Sheet {
    pixels: RgbImage,
    font: Option<FontRef<'static>>,
}

impl Sheet {
    pub(super) fn new(panels: &[RgbImage], caption: &Caption, attribution: &Attribution) -> Self {
        let places = attribution.sum() - attribution.bias;
        let sum = format!("bias {:+.3}, places {places:+.3}, sum: logit {:+.3}", attribution.bias, attribution.sum());
        let font = FontRef::try_from_slice(HACK_REGULAR).ok();
        let long = |text: &str, height| font.as_ref().map_or(0, |font| width(font, text, height).ceil() as u32);
        let lines = caption.lines.iter().chain([&sum]);
        let texts = lines.map(|line| long(line, SMALL)).chain([long(&caption.heading, LARGE), SCALE]);
        let pictures = panels.iter().map(|panel| panel.width() + MARGIN).sum::<u32>() + MARGIN;
        let wide = texts.map(|text| text + 2 * MARGIN).chain([pictures]).max().unwrap_or(pictures);
        let below = panels.iter().map(RgbImage::height).max().unwrap_or(0) + 2 * MARGIN;
        let words = step(LARGE) + step(SMALL) * (caption.lines.len() as u32 + 3) + SCALE_HEIGHT + MARGIN;
        let mut sheet = Self { pixels: RgbImage::from_pixel(wide, below + words, WHITE), font: font.clone() };

        let mut left = MARGIN;
        for panel in panels {
            imageops::replace(&mut sheet.pixels, panel, i64::from(left), i64::from(MARGIN));
            left += panel.width() + MARGIN;
        }
        let mut top = sheet.line(&caption.heading, below, LARGE);
        for line in &caption.lines {
            top = sheet.line(line, top, SMALL);
        }
        top = sheet.line("contribution of a place to its region's logit:", top, SMALL);
        for (x, y) in (0..SCALE).flat_map(|x| (0..SCALE_HEIGHT).map(move |y| (x, y))) {
            let share = 2.0 * f64::from(x) / f64::from(SCALE - 1) - 1.0;
            sheet.pixels.put_pixel(MARGIN + x, top + y, blend(GREY, share));
        }
        top += SCALE_HEIGHT;
        let (real, fake) = (format!("-{FULL} or less, real"), format!("generated, +{FULL} or more"));
        sheet.write(&real, MARGIN, top, SMALL);
        sheet.write("0", MARGIN + SCALE / 2 - long("0", SMALL) / 2, top, SMALL);
        sheet.write(&fake, MARGIN + SCALE - long(&fake, SMALL), top, SMALL);
        sheet.line(&sum, top + step(SMALL), SMALL);
        sheet
    }

    /// Writes a line; gives where the next one begins.
    fn line(&mut self, text: &str, top: u32, height: f32) -> u32 {
        self.write(text, MARGIN, top, height);
        top + step(height)
    }

    fn write(&mut self, text: &str, left: u32, top: u32, height: f32) {
        let Some(font) = &self.font else { return };
        let scaled = font.as_scaled(height);
        let (mut x, baseline) = (left as f32, top as f32 + scaled.ascent());
        for letter in text.chars() {
            let glyph = scaled.glyph_id(letter).with_scale_and_position(height, point(x, baseline));
            x += scaled.h_advance(glyph.id);
            let Some(outline) = font.outline_glyph(glyph) else { continue };
            let corner = outline.px_bounds().min;
            outline.draw(|dx, dy, coverage| {
                let (x, y) = (corner.x as i64 + i64::from(dx), corner.y as i64 + i64::from(dy));
                let (Ok(x), Ok(y)) = (u32::try_from(x), u32::try_from(y)) else { return };
                if let Some(Rgb(under)) = self.pixels.get_pixel_mut_checked(x, y) {
                    for (under, ink) in under.iter_mut().zip(INK.0) {
                        *under = (f32::from(*under) + coverage * (f32::from(ink) - f32::from(*under))).round() as u8;
                    }
                }
            });
        }
    }

    /// # Errors
    /// If it cannot be written, which in memory it always can.
    pub(super) fn png(&self) -> Result<Vec<u8>, ImageError> {
        let mut bytes = Vec::new();
        // It is looked at once: time counts for more than bytes.
        let encoder = PngEncoder::new_with_quality(&mut bytes, CompressionType::Fast, FilterType::Adaptive);
        let (width, height) = self.pixels.dimensions();
        encoder.write_image(&self.pixels, width, height, ExtendedColorType::Rgb8)?;
        Ok(bytes)
    }
}

fn step(height: f32) -> u32 {
    (height * LEADING).ceil() as u32
}

fn width(font: &FontRef<'_>, text: &str, height: f32) -> f32 {
    let font = font.as_scaled(height);
    text.chars().map(|letter| font.h_advance(font.glyph_id(letter))).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Everything that a sheet can say is in the font, and is drawn within the sheet.
    #[test]
    fn the_font_has_the_letters() {
        let font = FontRef::try_from_slice(HACK_REGULAR).expect("the crate's font");
        for letter in (' '..='~').skip(1) {
            let glyph = font.glyph_id(letter);
            assert!(glyph.0 != 0 && font.outline_glyph(glyph.with_scale(SMALL)).is_some(), "{letter}");
        }
    }

    #[test]
    fn a_sheet_is_as_wide_as_its_longest_line() {
        let attribution = Attribution { bias: 0.5, regions: Vec::new() };
        let sheet = |heading: &str, lines: &[&str]| {
            let caption = Caption { heading: heading.into(), lines: lines.iter().map(ToString::to_string).collect() };
            Sheet::new(&[RgbImage::from_pixel(30, 20, GREY)], &caption, &attribution).pixels
        };
        let (short, long) = (sheet("real", &["one"]), sheet("real", &["one", &"long ".repeat(40)]));
        assert!(long.width() > short.width() && long.height() > short.height());
        // The line is there to its end, and the margin behind it is empty.
        let inked = |x: u32| (0..long.height()).any(|y| long.get_pixel(x, y) != &WHITE);
        assert!((long.width() - 40..long.width() - MARGIN).any(inked));
        assert!(!(long.width() - MARGIN..long.width()).any(inked));
    }
}
