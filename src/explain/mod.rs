//! Why an image got its logit: exact arithmetic, no estimate.
//!
//! The network pools the K largest values of each of 64 maps of 30 x 30 places and sums them (LFM, BMVC 2025:
//! Top-K pooling): `logit = bias + sum over maps c and ranks r of weight[c, r] * value[c, r]`. Each term belongs
//! to the place that its value stands at, so the sum splits into places without a remainder. The picture's logit is
//! `a * mean of its R regions' logits + b`, so it splits too: a term counts `a / R` times, and the bias is
//! `a * bias + b`. [`geometry`] says what a place sees, [`overlay`] draws it.

mod colours;
pub mod geometry;
pub mod overlay;
mod sheet;

pub use sheet::Caption;

use geometry::PLACES;

/// Places of a map.
const MAP_LEN: usize = PLACES * PLACES;

/// What the network says of one region. `weight`, `values` and `indices` (row * 30 + column) are alike in length and
/// order.
#[derive(Debug, Clone, Copy)]
pub struct Terms<'a> {
    /// The part of the decoded picture, `[x0, y0, x1, y1]` in pixels, the ends outside.
    pub bounds: [u32; 4],
    /// What the region's logit starts from.
    pub bias: f32,
    /// Of the last layer.
    pub weight: &'a [f32],
    /// The Top-K values.
    pub values: &'a [f32],
    /// Where they stand.
    pub indices: &'a [i64],
}

/// The logit, split into places of regions.
#[derive(Debug, Clone, PartialEq)]
pub struct Attribution {
    /// What the logit starts from, whatever the image.
    pub bias: f64,
    /// The regions, in their order.
    pub regions: Vec<RegionMap>,
}

/// One region's part.
#[derive(Debug, Clone, PartialEq)]
pub struct RegionMap {
    /// As in [`Terms`].
    pub bounds: [u32; 4],
    /// Contribution of each place to the picture's logit, [`PLACES`] x [`PLACES`], row-major. 0 where no value was
    /// taken.
    pub map: Box<[f64]>,
    /// Whether some map's value was taken from the place.
    taken: Box<[bool]>,
}

/// A place that values were taken from.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Cell {
    /// Number of the region, from 0.
    pub region: usize,
    /// Row of the map.
    pub row: usize,
    /// Column of the map.
    pub col: usize,
    /// The sum of the place's terms: above 0 speaks for fake, below for real; in logit units.
    pub contribution: f64,
}

/// Why there is no attribution: a mistake in the graph, not in the image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AttributionError {
    /// The three slices do not have one length.
    #[error("{weights} weights, {values} values and {indices} indices do not fit together")]
    Length {
        /// Length of the weights.
        weights: usize,
        /// Length of the values.
        values: usize,
        /// Length of the indices.
        indices: usize,
    },
    /// An index outside the map.
    #[error("index {0} is no place of the map")]
    Index(i64),
}

impl Attribution {
    /// Splits the logit `a * mean + b`.
    ///
    /// A place that several maps take a value from gets the sum of their terms. Of equal values in one map
    /// the Top-K operator takes those with the lowest index, in that order: they get the terms.
    ///
    /// # Errors
    /// [`AttributionError`] if the slices do not fit.
    pub fn new<'a>(
        regions: impl ExactSizeIterator<Item = Terms<'a>>,
        a: f64,
        b: f64,
    ) -> Result<Self, AttributionError> {
        let part = a / regions.len().max(1) as f64;
        let mut split = Self { bias: b, regions: Vec::with_capacity(regions.len()) };
        for terms in regions {
            split.bias += part * f64::from(terms.bias);
            split.regions.push(RegionMap::new(&terms, part)?);
        }
        Ok(split)
    }

    /// The logit again: the bias and all places.
    pub fn sum(&self) -> f64 {
        self.bias + self.regions.iter().flat_map(|region| &region.map).sum::<f64>()
    }

    /// The places that values were taken from, the greatest contribution first, whatever its sign; of equal
    /// ones the first in the first map.
    pub fn cells(&self) -> Vec<Cell> {
        let mut cells = Vec::new();
        for (region, RegionMap { map, taken, .. }) in self.regions.iter().enumerate() {
            let places = map.iter().zip(taken).enumerate().filter(|(_, (_, taken))| **taken);
            cells.extend(places.map(|(i, (&contribution, _))| {
                let (row, col) = (i / PLACES, i % PLACES);
                Cell { region, row, col, contribution }
            }));
        }
        cells.sort_by(|a, b| b.contribution.abs().total_cmp(&a.contribution.abs()));
        cells
    }
}

impl RegionMap {
    /// A region whose terms count `part` times.
    fn new(terms: &Terms<'_>, part: f64) -> Result<Self, AttributionError> {
        let Terms { bounds, weight, values, indices, .. } = *terms;
        if weight.len() != values.len() || values.len() != indices.len() {
            let (weights, values, indices) = (weight.len(), values.len(), indices.len());
            return Err(AttributionError::Length { weights, values, indices });
        }
        let mut map = vec![0.0; MAP_LEN];
        let mut taken = vec![false; MAP_LEN];
        for ((&weight, &value), &index) in weight.iter().zip(values).zip(indices) {
            let place = usize::try_from(index).ok();
            let (Some(sum), Some(taken)) =
                (place.and_then(|place| map.get_mut(place)), place.and_then(|place| taken.get_mut(place)))
            else {
                return Err(AttributionError::Index(index));
            };
            *sum += part * f64::from(weight) * f64::from(value);
            *taken = true;
        }
        Ok(Self { bounds, map: map.into(), taken: taken.into() })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const K: usize = 16;
    const TERMS: usize = 64 * K;

    type Region = (f32, Vec<f32>, Vec<f32>, Vec<i64>);

    fn region() -> impl Strategy<Value = Region> {
        let numbers = |range: std::ops::Range<f32>| prop::collection::vec(range, TERMS);
        (-5.0..5.0f32, numbers(-1.0..1.0), numbers(-40.0..40.0), prop::collection::vec(0..MAP_LEN as i64, TERMS))
    }

    fn split(regions: &[Region], a: f64, b: f64) -> Result<Attribution, AttributionError> {
        let terms = regions.iter().map(|(bias, weight, values, indices)| Terms {
            bounds: [0, 0, 256, 256],
            bias: *bias,
            weight,
            values,
            indices,
        });
        Attribution::new(terms, a, b)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        /// The sum rule, for any weights, regions and calibration: the bias and the maps give the calibrated mean.
        #[test]
        fn the_bias_and_the_maps_give_the_logit(
            regions in prop::collection::vec(region(), 1..5), a in 0.0..3.0f64, b in -2.0..2.0f64,
        ) {
            let logits = regions.iter().map(|(bias, weight, values, _)| {
                f64::from(*bias) + weight.iter().zip(values).map(|(&w, &v)| f64::from(w) * f64::from(v)).sum::<f64>()
            });
            let logit = a * logits.sum::<f64>() / regions.len() as f64 + b;
            let found = split(&regions, a, b).expect("it fits");
            prop_assert!((found.sum() - logit).abs() < 1e-8, "{} is not {logit}", found.sum());
        }

        /// The cells are the places that have terms, each once, and hold all that the maps hold.
        #[test]
        fn the_cells_are_the_maps_own_by_falling_size(regions in prop::collection::vec(region(), 1..4)) {
            let found = split(&regions, 1.0, 0.0).expect("it fits");
            let cells = found.cells();
            prop_assert!(cells.windows(2).all(|pair| pair[0].contribution.abs() >= pair[1].contribution.abs()));
            let place = |cell: &Cell| (cell.region, (cell.row * PLACES + cell.col) as i64);
            let places: std::collections::BTreeSet<_> = cells.iter().map(place).collect();
            prop_assert_eq!(places.len(), cells.len());
            let terms = regions.iter().enumerate().flat_map(|(i, region)| region.3.iter().map(move |&place| (i, place)));
            prop_assert_eq!(places, terms.collect());
            for cell in cells {
                prop_assert_eq!(cell.contribution, found.regions[cell.region].map[cell.row * PLACES + cell.col]);
            }
        }
    }

    #[test]
    fn terms_of_one_place_add_up_and_what_does_not_fit_is_refused() {
        let one = |weight: &[f32], values: &[f32], indices: &[i64]| (1.0, weight.into(), values.into(), indices.into());
        let found = split(&[one(&[2.0, 3.0, -1.0], &[1.0, 1.0, 4.0], &[31, 899, 31])], 2.0, 0.5).expect("it fits");
        let map = &found.regions[0].map;
        assert_eq!((map[31], map[899], found.bias, found.sum()), (-4.0, 6.0, 2.5, 4.5));
        let cell = |row, col, contribution| Cell { region: 0, row, col, contribution };
        assert_eq!(found.cells(), [cell(29, 29, 6.0), cell(1, 1, -4.0)]);
        for index in [900, -1, i64::MIN, i64::MAX] {
            assert_eq!(split(&[one(&[1.0], &[1.0], &[index])], 1.0, 0.0), Err(AttributionError::Index(index)));
        }
        let short = split(&[one(&[1.0], &[1.0, 2.0], &[0])], 1.0, 0.0);
        assert_eq!(short, Err(AttributionError::Length { weights: 1, values: 2, indices: 1 }));
    }
}
