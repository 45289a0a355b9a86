//! Why an image got its logit.

use serde::Serialize;

use crate::{
    explain::{Attribution, Cell, geometry},
    image::{self, Header},
};

/// The logit as a sum: the bias and the contribution of every place of the network's 30 x 30 map, over all regions. All
/// numbers are in logit units; above 0 speaks for fake. Under a warning that voids the verdict it is the sum of the
/// logit that is not given.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
pub struct AttributionInfo {
    /// What the logit starts from, whatever the image.
    bias: f32,
    /// The first region's map. Of a picture with one region its sum and the bias give the logit.
    #[cfg_attr(feature = "server", schema(min_items = 30, max_items = 30))]
    map: Vec<Vec<f32>>,
    /// The first region: `[x0, y0, x1, y1]` in pixels of the stored picture, the ends outside.
    judged: [u32; 4],
    /// All regions. The sum of their maps and the bias give the logit.
    regions: Vec<RegionMapInfo>,
    /// The places that contribute, the greatest contribution first, whatever its sign.
    cells: Vec<CellInfo>,
}

/// One region's part of the logit.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
struct RegionMapInfo {
    /// `[x0, y0, x1, y1]` in pixels of the stored picture, the ends outside. EXIF orientation is not applied.
    #[serde(rename = "box")]
    stored: [u32; 4],
    /// The same in the picture as it is shown, EXIF orientation applied.
    shown: [u32; 4],
    /// Contribution of each place, by row and column.
    #[cfg_attr(feature = "server", schema(min_items = 30, max_items = 30))]
    map: Vec<Vec<f32>>,
}

/// A place that contributes.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
struct CellInfo {
    /// Number of the region, from 0.
    region: usize,
    /// Row of the map, 0 to 29.
    #[cfg_attr(feature = "server", schema(maximum = 29))]
    row: usize,
    /// Column of the map, 0 to 29.
    #[cfg_attr(feature = "server", schema(maximum = 29))]
    col: usize,
    /// The place's part of the logit.
    contribution: f32,
    /// All that the place sees: `[x0, y0, x1, y1]` in pixels of the stored picture, the ends outside. EXIF
    /// orientation is not applied.
    #[serde(rename = "box")]
    stored: [u32; 4],
    /// The same in the picture as it is shown, EXIF orientation applied.
    shown: [u32; 4],
}

impl AttributionInfo {
    /// The wire's form of an attribution of this image.
    pub fn new(attribution: &Attribution, header: &Header) -> Self {
        let regions = attribution.regions.iter().map(|region| RegionMapInfo {
            stored: header.as_stored(region.bounds),
            shown: header.as_shown(region.bounds),
            map: region.map.chunks(geometry::PLACES).map(|row| row.iter().map(|&at| at as f32).collect()).collect(),
        });
        let cells = attribution.cells().into_iter().filter_map(|Cell { region, row, col, contribution }| {
            let seen = image::region_box(attribution.regions.get(region)?.bounds, geometry::field(row, col));
            let (stored, shown) = (header.as_stored(seen), header.as_shown(seen));
            Some(CellInfo { region, row, col, contribution: contribution as f32, stored, shown })
        });
        let regions: Vec<_> = regions.collect();
        Self {
            bias: attribution.bias as f32,
            map: regions.first().map(|first| first.map.clone()).unwrap_or_default(),
            judged: regions.first().map(|first| first.stored).unwrap_or_default(),
            regions,
            cells: cells.collect(),
        }
    }
}
