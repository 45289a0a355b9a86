//! Why an image got its logit: exact arithmetic, no estimate.
//!
//! The network pools the K largest values of each of 64 maps of 30 x 30 places and sums them (LFM, BMVC 2025:
//! Top-K pooling): `logit = bias + sum over maps c and ranks r of weight[c, r] * value[c, r]`. Each term belongs
//! to the place that its value stands at, so the sum splits into places without a remainder. [`geometry`] says
//! what a place sees, [`overlay`] draws it.

pub mod geometry;
pub mod overlay;
mod text;

use geometry::PLACES;

/// Places of a map.
const MAP_LEN: usize = PLACES * PLACES;

/// The logit, split into places.
#[derive(Debug, Clone, PartialEq)]
pub struct Attribution {
    /// What the logit starts from, whatever the image.
    pub bias: f64,
    /// Contribution of each place to the logit, [`PLACES`] x [`PLACES`], row-major. 0 where no value was taken.
    pub map: Box<[f64]>,
    /// Whether some map's value was taken from the place.
    taken: Box<[bool]>,
}

/// A place that values were taken from.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Cell {
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
    /// Splits a logit. `weight`, `values` and `indices` (row * 30 + column) are alike in length and order.
    ///
    /// A place that several maps take a value from gets the sum of their terms. Of equal values in one map
    /// the Top-K operator takes those with the lowest index, in that order: they get the terms.
    ///
    /// # Errors
    /// [`AttributionError`] if the slices do not fit.
    pub fn new(bias: f32, weight: &[f32], values: &[f32], indices: &[i64]) -> Result<Self, AttributionError> {
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
            *sum += f64::from(weight) * f64::from(value);
            *taken = true;
        }
        Ok(Self { bias: f64::from(bias), map: map.into(), taken: taken.into() })
    }

    /// The logit again: the bias and all places.
    pub fn sum(&self) -> f64 {
        self.bias + self.map.iter().sum::<f64>()
    }

    /// The places that values were taken from, the greatest contribution first, whatever its sign; of equal
    /// ones the first in the map.
    pub fn cells(&self) -> Vec<Cell> {
        let places = self.map.iter().zip(&self.taken).enumerate();
        let mut cells: Vec<_> = places
            .filter(|(_, (_, taken))| **taken)
            .map(|(i, (&contribution, _))| Cell { row: i / PLACES, col: i % PLACES, contribution })
            .collect();
        cells.sort_by(|a, b| b.contribution.abs().total_cmp(&a.contribution.abs()));
        cells
    }

    /// The greatest contribution of a place, without its sign.
    fn largest(&self) -> f64 {
        self.map.iter().fold(0.0, |largest: f64, value| largest.max(value.abs()))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const K: usize = 16;
    const TERMS: usize = 64 * K;

    fn terms() -> impl Strategy<Value = (f32, Vec<f32>, Vec<f32>, Vec<i64>)> {
        let numbers = |range: std::ops::Range<f32>| prop::collection::vec(range, TERMS);
        (-5.0..5.0f32, numbers(-1.0..1.0), numbers(-40.0..40.0), prop::collection::vec(0..MAP_LEN as i64, TERMS))
    }

    proptest! {
        /// The sum rule, for any weights: the bias and the map give the sum of all terms. That this is the float32
        /// logit to 1e-3 is a matter of the model's numbers; the golden images and both models are held to it.
        #[test]
        fn the_bias_and_the_map_give_the_logit((bias, weight, values, indices) in terms()) {
            let terms = weight.iter().zip(&values).map(|(&w, &v)| f64::from(w) * f64::from(v));
            let logit = f64::from(bias) + terms.sum::<f64>();
            let found = Attribution::new(bias, &weight, &values, &indices).expect("it fits");
            prop_assert!((found.sum() - logit).abs() < 1e-9, "{} is not {logit}", found.sum());
        }

        /// The cells are the places that have terms, each once, and hold all that the map holds.
        #[test]
        fn the_cells_are_the_maps_own_by_falling_size((bias, weight, values, indices) in terms()) {
            let found = Attribution::new(bias, &weight, &values, &indices).expect("it fits");
            let cells = found.cells();
            prop_assert!(cells.windows(2).all(|pair| pair[0].contribution.abs() >= pair[1].contribution.abs()));
            let places: std::collections::BTreeSet<_> = cells.iter().map(|cell| (cell.row * PLACES + cell.col) as i64).collect();
            prop_assert_eq!(places.len(), cells.len());
            prop_assert_eq!(places, indices.iter().copied().collect());
            for cell in cells {
                prop_assert_eq!(cell.contribution, found.map[cell.row * PLACES + cell.col]);
            }
        }
    }

    #[test]
    fn terms_of_one_place_add_up_and_what_does_not_fit_is_refused() {
        let found = Attribution::new(1.0, &[2.0, 3.0, -1.0], &[1.0, 1.0, 4.0], &[31, 899, 31]).expect("it fits");
        assert_eq!((found.map[31], found.map[899], found.sum()), (-2.0, 3.0, 2.0));
        let cell = |row, col, contribution| Cell { row, col, contribution };
        assert_eq!(found.cells(), [cell(29, 29, 3.0), cell(1, 1, -2.0)]);
        for index in [900, -1, i64::MIN, i64::MAX] {
            assert_eq!(Attribution::new(0.0, &[1.0], &[1.0], &[index]), Err(AttributionError::Index(index)));
        }
        let short = Attribution::new(0.0, &[1.0], &[1.0, 2.0], &[0]);
        assert_eq!(short, Err(AttributionError::Length { weights: 1, values: 2, indices: 1 }));
    }
}
