//! Short lines of text in pixels.

use font8x8::{BASIC_FONTS, UnicodeFonts};

/// Side of a character's square in the font, in pixels.
const GLYPH: usize = 8;

/// Pixels of the picture to one of the font's.
const ENLARGED: usize = 2;

/// Side of a character's square in the picture, in pixels.
pub(super) const CHARACTER: usize = GLYPH * ENLARGED;

/// The inked pixels of a line as (x, y) from its top left corner. What is not ASCII is left blank.
pub(super) fn ink(line: &str) -> impl Iterator<Item = (usize, usize)> {
    line.chars().enumerate().flat_map(|(at, character)| {
        let rows = BASIC_FONTS.get(character).unwrap_or_default();
        let dots = rows.into_iter().enumerate().flat_map(|(y, row)| {
            // The lowest bit is the leftmost pixel.
            (0..GLYPH).filter(move |x| row >> x & 1 == 1).map(move |x| (x, y))
        });
        dots.flat_map(move |(x, y)| {
            let (x, y) = (at * CHARACTER + x * ENLARGED, y * ENLARGED);
            (0..ENLARGED).flat_map(move |dy| (0..ENLARGED).map(move |dx| (x + dx, y + dy)))
        })
    })
}
