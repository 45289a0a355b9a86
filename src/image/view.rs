//! An image decoded for display: the whole picture at a limited size, and the judged tiles.

use super::{
    Cancel, Header, ImageError, Preprocessing, Region, Regions, Rgb, Scratch, decode_rows, places,
    regions::RegionsSink, rows::RowSink,
};

/// A picture for display only, not the network's input.
#[derive(Debug, Clone)]
pub struct View {
    /// The whole picture as stored, shrunk by `factor` on both axes.
    pub picture: Rgb,
    /// Stored pixels per pixel of the picture, along a side; possibly fewer at the right and lower edge.
    pub factor: u32,
    /// The judged tiles, the centre first; none if the whole picture is judged.
    pub tiles: Vec<Region>,
}

/// Decodes; the picture's longer side has at most `longest` pixels. `header` must come from
/// [`inspect`](super::inspect) of the same bytes.
///
/// # Errors
/// As [`decode`](super::decode).
pub fn view(
    bytes: &[u8],
    header: &Header,
    preprocessing: Preprocessing,
    regions: Regions,
    longest: u32,
    scratch: &mut Scratch,
    cancel: &Cancel,
) -> Result<View, ImageError> {
    let (width, height) = (header.width, header.height);
    let mut sink = ViewSink {
        picture: ShrinkSink::new(width, height, width.max(height).div_ceil(longest.max(1))),
        tiles: preprocessing
            .takes_tile(width, height)
            .then(|| RegionsSink::new(&places(preprocessing, regions, width, height))),
    };
    let decoded = decode_rows(bytes, header, &mut scratch.frame, scratch.program.as_deref(), &mut sink, cancel);
    scratch.trim();
    decoded?;
    let incomplete = || header.undecodable("rows are missing");
    let factor = sink.picture.factor;
    let tiles = sink.tiles.map(|tiles| tiles.finish().ok_or_else(incomplete)).transpose()?;
    Ok(View { picture: sink.picture.finish().ok_or_else(incomplete)?, factor, tiles: tiles.unwrap_or_default() })
}

struct ViewSink {
    picture: ShrinkSink,
    tiles: Option<RegionsSink>,
}

impl RowSink for ViewSink {
    fn row(&mut self, rgb: &[u8]) {
        self.picture.row(rgb);
        if let Some(tiles) = &mut self.tiles {
            tiles.row(rgb);
        }
    }
}

/// Means of squares of `factor` x `factor` pixels, computed row by row: the whole image is never in memory.
struct ShrinkSink {
    factor: u32,
    width: u32,
    rows_left: u32,
    out: Rgb,
    /// Sums of the current row of squares.
    sums: Vec<u32>,
    rows_in: u32,
}

impl ShrinkSink {
    fn new(width: u32, height: u32, factor: u32) -> Self {
        let factor = factor.max(1);
        let (out_width, out_height) = (width.div_ceil(factor), height.div_ceil(factor));
        let data = Vec::with_capacity(out_width as usize * out_height as usize * 3);
        let out = Rgb { width: out_width, height: out_height, data };
        Self { factor, width, rows_left: height, out, sums: vec![0; out_width as usize * 3], rows_in: 0 }
    }

    fn finish(self) -> Option<Rgb> {
        (self.rows_left == 0).then_some(self.out)
    }
}

impl RowSink for ShrinkSink {
    fn row(&mut self, rgb: &[u8]) {
        if self.rows_left == 0 || rgb.len() != self.width as usize * 3 {
            return;
        }
        let square_bytes = self.factor as usize * 3;
        for (square, sums) in rgb.chunks(square_bytes).zip(self.sums.chunks_exact_mut(3)) {
            for pixel in square.chunks_exact(3) {
                sums.iter_mut().zip(pixel).for_each(|(sum, &value)| *sum += u32::from(value));
            }
        }
        self.rows_in += 1;
        self.rows_left -= 1;
        if self.rows_in < self.factor && self.rows_left > 0 {
            return;
        }
        for (square, sums) in rgb.chunks(square_bytes).zip(self.sums.chunks_exact(3)) {
            // At most `factor` squared, with `factor` at most 65,535 / `longest`: no overflow.
            let pixels = (square.len() / 3) as u32 * self.rows_in;
            self.out.data.extend(sums.iter().map(|sum| (sum / pixels.max(1)) as u8));
        }
        self.sums.fill(0);
        self.rows_in = 0;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Compared with the definition, on any size and factor.
        #[test]
        fn a_shrunk_pixel_is_the_mean_of_its_square(
            width in 1..40u32, height in 1..40u32, factor in 1..12u32, seed in any::<u64>(),
        ) {
            let noise = |i: u64| (seed.wrapping_add(i).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 56) as u8;
            let rgb: Vec<u8> = (0..u64::from(width * height * 3)).map(noise).collect();
            let mut sink = ShrinkSink::new(width, height, factor);
            rgb.chunks_exact(width as usize * 3).for_each(|row| sink.row(row));
            let out = sink.finish().expect("all rows");
            prop_assert_eq!((out.width, out.height), (width.div_ceil(factor), height.div_ceil(factor)));
            prop_assert_eq!(out.data.len() as u32, out.width * out.height * 3);
            for (i, &found) in (0u32..).zip(&out.data) {
                let (channel, x, y) = (i % 3, i / 3 % out.width, i / 3 / out.width);
                let square: Vec<u32> = (y * factor..((y + 1) * factor).min(height))
                    .flat_map(|y| (x * factor..((x + 1) * factor).min(width)).map(move |x| (x, y)))
                    .map(|(x, y)| u32::from(rgb[((y * width + x) * 3 + channel) as usize]))
                    .collect();
                prop_assert_eq!(u32::from(found), square.iter().sum::<u32>() / square.len() as u32);
            }
        }
    }
}
