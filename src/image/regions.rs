//! The parts of a picture that become inputs of the network.

use std::time::Duration;

use super::{
    Cancel, Header, ImageError, Pixels, Preprocessing, Scratch,
    cost::{ROW_PIXEL, time},
    decode_rows,
    fit::{AxisFit, Fit},
    resize::{ResizeSink, Resizer, source_span},
    rows::RowSink,
};

/// How many parts of a picture are judged under [`Preprocessing::Crop`]; a small picture has fewer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Regions {
    /// The centre.
    #[default]
    One,
    /// The centre, and the centres of the four quadrants.
    Five,
    /// The centre, and the other eight positions of a grid of 3 x 3 from edge to edge.
    Nine,
    /// The centre, and the positions of a grid of 4 x 4 from edge to edge except the one nearest to the centre.
    Sixteen,
}

impl Regions {
    /// The number.
    pub fn count(self) -> usize {
        match self {
            Self::One => 1,
            Self::Five => 5,
            Self::Nine => 9,
            Self::Sixteen => 16,
        }
    }
}

/// One input of the network and where it comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Region {
    /// The input.
    pub pixels: Pixels,
    /// The part of the decoded picture that it was computed from, `[x0, y0, x1, y1]` in pixels, ends exclusive.
    pub bounds: [u32; 4],
}

/// The parts of a picture of `width` x `height` that become inputs, the centre first: tiles of the
/// input's size at even offsets, so that the 2 x 2 grid of the NPR residue is kept; or the whole picture, resized, of
/// which a recipe may keep the centre only. Positions closer than half a tile to an earlier one, on both axes, are
/// omitted.
pub fn places(preprocessing: Preprocessing, regions: Regions, width: u32, height: u32) -> Vec<[u32; 4]> {
    if !preprocessing.takes_tile(width, height) {
        return vec![seen(&preprocessing.fit(width, height))];
    }
    let input = preprocessing.input();
    // The offset at the fraction `of / parts` from edge to edge, rounded down to even.
    let part = |size: u32, tile: u32, of: u32, parts: u32| (size - tile) * of / (2 * parts) * 2;
    let centred_at_quarter = |size: u32, tile: u32, quarters: u32| {
        let half_offset = (i64::from(size) * i64::from(quarters) - 2 * i64::from(tile)).div_euclid(8);
        (half_offset.max(0) as u32 * 2).min((size - tile) & !1)
    };
    let grid = |steps: u32, offset: &dyn Fn(u32, u32, u32) -> u32| -> Vec<[u32; 2]> {
        let row = |y| (0..steps).map(move |x| [x, y]);
        (0..steps).flat_map(row).map(|[x, y]| [offset(width, input[0], x), offset(height, input[1], y)]).collect()
    };
    let others = match regions {
        Regions::One => Vec::new(),
        Regions::Five => grid(2, &|size, tile, step| centred_at_quarter(size, tile, 2 * step + 1)),
        Regions::Nine => {
            let mut places = grid(3, &|size, tile, step| part(size, tile, step, 2));
            places.remove(4);
            places
        }
        Regions::Sixteen => {
            let mut places = grid(4, &|size, tile, step| part(size, tile, step, 3));
            places.remove(5);
            places
        }
    };
    let mut chosen = vec![[part(width, input[0], 1, 2), part(height, input[1], 1, 2)]];
    for place in others {
        let near = |other: &[u32; 2]| (0..2).all(|axis| place[axis].abs_diff(other[axis]) < input[axis] / 2);
        if !chosen.iter().any(near) {
            chosen.push(place);
        }
    }
    chosen.into_iter().map(|[x, y]| [x, y, x + input[0], y + input[1]]).collect()
}

/// The part of the picture that a resize uses: all of it, unless only the centre of the result is kept.
fn seen(fit: &Fit) -> [u32; 4] {
    let span = |axis: AxisFit| {
        if axis.total == axis.len { (0, axis.size) } else { source_span(axis, fit.filter, 0, axis.len) }
    };
    let ((x0, x1), (y0, y1)) = (span(fit.x), span(fit.y));
    [x0, y0, x1, y1]
}

/// Decodes once and computes the inputs of all [`places`], in their order. JPEG's rows between them are decoded only as far
/// as finding damage takes, and not read at all where the file has restart markers. `header` must come from
/// [`inspect`](super::inspect) of the same bytes.
///
/// # Errors
/// As [`decode`](super::decode).
pub fn prepare_regions(
    bytes: &[u8],
    header: &Header,
    preprocessing: Preprocessing,
    regions: Regions,
    scratch: &mut Scratch,
    cancel: &Cancel,
) -> Result<Vec<Region>, ImageError> {
    let Scratch { frame, resizer, program } = scratch;
    let mut input = InputSink::new(preprocessing, regions, header, resizer);
    let decoded = decode_rows(bytes, header, frame, program.as_deref(), input.rows(), cancel);
    let regions = decoded.map(|()| input.finish());
    scratch.trim();
    regions?.ok_or_else(|| header.undecodable("rows are missing"))
}

/// [`prepare_regions`] for several networks, in one decode.
///
/// # Errors
/// As [`decode`](super::decode).
pub fn prepare_for_each(
    bytes: &[u8],
    header: &Header,
    networks: &[(Preprocessing, Regions)],
    scratch: &mut Scratch,
    cancel: &Cancel,
) -> Result<Vec<Vec<Region>>, ImageError> {
    let mut resizers: Vec<_> = networks.iter().map(|_| Resizer::default()).collect();
    let inputs = networks.iter().zip(&mut resizers);
    let inputs = inputs.map(|(&(how, regions), resizer)| InputSink::new(how, regions, header, resizer));
    let mut each = EachSink(inputs.collect());
    let decoded = decode_rows(bytes, header, &mut scratch.frame, scratch.program.as_deref(), &mut each, cancel);
    scratch.trim();
    decoded?;
    let inputs: Option<_> = each.0.into_iter().map(InputSink::finish).collect();
    inputs.ok_or_else(|| header.undecodable("rows are missing"))
}

/// CPU time that [`prepare_for_each`] is estimated to take.
pub fn cost_for_each(
    header: &Header,
    networks: impl IntoIterator<Item = (Preprocessing, Regions)> + Clone,
) -> Duration {
    // The estimate of one has one resize.
    let pixels = u64::from(header.width) * u64::from(header.height);
    let resized = networks.clone().into_iter().filter(|(how, _)| !how.takes_tile(header.width, header.height)).count();
    let more = time(&[(pixels * resized.saturating_sub(1) as u64, ROW_PIXEL)]);
    let costs = networks.into_iter().map(|(how, regions)| cost_of_regions(header, how, regions));
    costs.max().unwrap_or(header.cost) + more
}

/// CPU time that [`prepare_regions`] is estimated to take: [`Header::cost`] less that of the rows that it skips.
pub fn cost_of_regions(header: &Header, preprocessing: Preprocessing, regions: Regions) -> Duration {
    /// Rows above a region that a decoder looks at too.
    const ABOVE: u32 = 48;
    if !preprocessing.takes_tile(header.width, header.height) {
        return header.cost;
    }
    let places = places(preprocessing, regions, header.width, header.height);
    let mut bands: Vec<_> = places.into_iter().map(|[_, y0, _, y1]| (y0.saturating_sub(ABOVE), y1)).collect();
    bands.sort_unstable();
    let (mut seen, mut end) = (0, 0);
    for (y0, y1) in bands {
        seen += y1.saturating_sub(y0.max(end));
        end = end.max(y1);
    }
    let skipped = 1.0 - f64::from(seen) / f64::from(header.height.max(1));
    header.cost.saturating_sub(header.row_cost.mul_f64(skipped.clamp(0.0, 1.0)))
}

/// Collects the inputs of one network.
enum InputSink<'a> {
    Tiles(RegionsSink),
    Resized(ResizeSink<'a>, Vec<[u32; 4]>),
}

impl<'a> InputSink<'a> {
    fn new(preprocessing: Preprocessing, regions: Regions, header: &Header, resizer: &'a mut Resizer) -> Self {
        let (width, height) = (header.width, header.height);
        let places = places(preprocessing, regions, width, height);
        if preprocessing.takes_tile(width, height) {
            return Self::Tiles(RegionsSink::new(&places));
        }
        Self::Resized(ResizeSink::new(resizer, &preprocessing.fit(width, height)), places)
    }

    fn rows(&mut self) -> &mut dyn RowSink {
        match self {
            Self::Tiles(sink) => sink,
            Self::Resized(sink, _) => sink,
        }
    }

    fn finish(self) -> Option<Vec<Region>> {
        match self {
            Self::Tiles(sink) => sink.finish(),
            Self::Resized(sink, places) => {
                let pixels = sink.finish()?;
                Some(places.into_iter().map(|bounds| Region { pixels: pixels.clone(), bounds }).collect())
            }
        }
    }
}

/// Gives every row to each of several sinks.
struct EachSink<'a>(Vec<InputSink<'a>>);

impl RowSink for EachSink<'_> {
    fn row(&mut self, rgb: &[u8]) {
        self.0.iter_mut().for_each(|input| input.rows().row(rgb));
    }

    fn unused(&self) -> u32 {
        let unused = |input: &InputSink<'_>| match input {
            InputSink::Tiles(sink) => sink.unused(),
            InputSink::Resized(sink, _) => sink.unused(),
        };
        self.0.iter().map(unused).min().unwrap_or(u32::MAX)
    }

    fn skip(&mut self, rows: u32) {
        self.0.iter_mut().for_each(|input| input.rows().skip(rows));
    }
}

/// Keeps the tiles at `places`.
pub(super) struct RegionsSink {
    tiles: Vec<([u32; 4], Vec<u8>)>,
    y: u32,
}

impl RegionsSink {
    pub(super) fn new(places: &[[u32; 4]]) -> Self {
        let bytes = |[x0, y0, x1, y1]: [u32; 4]| (x1 - x0) as usize * (y1 - y0) as usize * 3;
        Self { tiles: places.iter().map(|&place| (place, Vec::with_capacity(bytes(place)))).collect(), y: 0 }
    }

    pub(super) fn finish(self) -> Option<Vec<Region>> {
        let region = |(bounds, tile)| {
            let [x0, y0, x1, y1]: [u32; 4] = bounds;
            Some(Region { pixels: Pixels::sized(tile, x1 - x0, y1 - y0)?, bounds })
        };
        self.tiles.into_iter().map(region).collect()
    }
}

impl RowSink for RegionsSink {
    fn row(&mut self, rgb: &[u8]) {
        for ([x0, y0, x1, y1], tile) in &mut self.tiles {
            if (*y0..*y1).contains(&self.y) {
                tile.extend_from_slice(rgb.get(*x0 as usize * 3..*x1 as usize * 3).unwrap_or_default());
            }
        }
        self.y += 1;
    }

    fn unused(&self) -> u32 {
        let ahead = self.tiles.iter().filter(|([.., y1], _)| *y1 > self.y);
        ahead.map(|([_, y0, ..], _)| y0.saturating_sub(self.y)).min().unwrap_or(u32::MAX)
    }

    fn skip(&mut self, rows: u32) {
        self.y += rows;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::image::SIDE;

    const ALL: [Regions; 4] = [Regions::One, Regions::Five, Regions::Nine, Regions::Sixteen];

    fn offsets(regions: Regions, width: u32, height: u32) -> Vec<[u32; 2]> {
        places(Preprocessing::Crop, regions, width, height).into_iter().map(|[x, y, ..]| [x, y]).collect()
    }

    /// Calculated by hand from the rule.
    #[test]
    fn places_follow_the_rule() {
        assert_eq!(offsets(Regions::Five, 1000, 800), [[372, 272], [122, 72], [622, 72], [122, 472], [622, 472]]);
        let nine = [[372, 272], [0, 0], [372, 0], [744, 0], [0, 272], [744, 272], [0, 544], [372, 544], [744, 544]];
        assert_eq!(offsets(Regions::Nine, 1000, 800), nine);
        let (x, y) = ([0, 248, 496, 744], [0, 180, 362, 544]);
        let mut sixteen: Vec<_> = y.iter().flat_map(|&y| x.map(|x| [x, y])).collect();
        // The one nearest to the centre is omitted by the rule; the others around it are too close (124 and 90 or 92).
        sixteen.retain(|&[x, y]| ![248, 496].contains(&x) || ![180, 362].contains(&y));
        sixteen.insert(0, [372, 272]);
        assert_eq!(offsets(Regions::Sixteen, 1000, 800), sixteen);
        assert_eq!(offsets(Regions::Sixteen, 256, 256), [[0, 0]]);
        assert_eq!(offsets(Regions::Five, 4000, 256).len(), 3);
        assert_eq!(places(Preprocessing::Crop, Regions::Nine, 255, 4000), [[0, 0, 255, 4000]]);
        assert_eq!(places(Preprocessing::Resize, Regions::Nine, 2000, 1000), [[0, 0, 2000, 1000]]);
    }

    proptest! {
        #[test]
        fn places_are_even_inside_and_apart(width in 1..9000u32, height in 1..9000u32) {
            for regions in ALL {
                let places = places(Preprocessing::Crop, regions, width, height);
                prop_assert!((1..=regions.count()).contains(&places.len()));
                if width.min(height) < SIDE {
                    prop_assert_eq!(places, [[0, 0, width, height]]);
                    continue;
                }
                let centre = |size: u32| (size - SIDE) / 2 / 2 * 2;
                prop_assert_eq!(places[0][..2].to_vec(), [centre(width), centre(height)]);
                for (i, &[x0, y0, x1, y1]) in places.iter().enumerate() {
                    prop_assert!(x0.is_multiple_of(2) && y0.is_multiple_of(2) && x1 <= width && y1 <= height);
                    prop_assert_eq!([x1 - x0, y1 - y0], [SIDE, SIDE]);
                    let near = |&[x, y, ..]: &[u32; 4]| x.abs_diff(x0) < 128 && y.abs_diff(y0) < 128;
                    prop_assert!(!places[..i].iter().any(near));
                }
                if width.min(height) >= 4 * SIDE {
                    prop_assert_eq!(places.len(), regions.count());
                }
            }
        }

        /// Each region is the same part of the picture decoded whole.
        #[test]
        fn regions_are_crops_of_the_whole(width in 256..1300u32, height in 256..1300u32) {
            let value = |x: u32, y: u32| [x as u8, y as u8, (x / 256 * 16 + y / 256) as u8];
            let crop = |[x0, y0, x1, y1]: [u32; 4]| -> Vec<u8> {
                (y0..y1).flat_map(|y| (x0..x1).flat_map(move |x| value(x, y))).collect()
            };
            for regions in ALL {
                let mut sink = RegionsSink::new(&places(Preprocessing::Crop, regions, width, height));
                (0..height).for_each(|y| sink.row(&crop([0, y, width, y + 1])));
                for Region { pixels, bounds } in sink.finish().expect("all rows") {
                    prop_assert!(pixels.as_bytes() == crop(bounds));
                }
            }
        }
    }
}
