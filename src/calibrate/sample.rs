//! The scores of one label in one class of file, weighted by picture.

use std::collections::BTreeMap;

/// The most logits that a table stores of a label.
const MOST_STORED: usize = 256;

/// Scores, ascending. Files of one picture share its weight of 1.
#[derive(Debug, Clone)]
pub(super) struct Sample {
    values: Vec<f64>,
    weights: Vec<f64>,
    /// By value: which of the pictures.
    picture: Vec<usize>,
    pictures: usize,
}

impl Sample {
    /// Of scores with numbers of their pictures.
    pub(super) fn new(scores: impl IntoIterator<Item = (f64, usize)>) -> Self {
        let mut scores: Vec<_> = scores.into_iter().collect();
        scores.sort_by(|a, b| a.0.total_cmp(&b.0));
        let mut files = BTreeMap::<_, usize>::new();
        scores.iter().for_each(|(_, picture)| *files.entry(*picture).or_default() += 1);
        let dense: BTreeMap<_, _> = files.keys().enumerate().map(|(index, picture)| (*picture, index)).collect();
        Self {
            values: scores.iter().map(|(value, _)| *value).collect(),
            weights: scores.iter().map(|(_, picture)| 1.0 / files[picture] as f64).collect(),
            picture: scores.iter().map(|(_, picture)| dense[picture]).collect(),
            pictures: files.len(),
        }
    }

    /// How many pictures.
    pub(super) fn pictures(&self) -> usize {
        self.pictures
    }

    /// How many logits a table stores of it.
    pub(super) fn stored(&self) -> usize {
        self.pictures.min(MOST_STORED)
    }

    /// Values with their weights.
    pub(super) fn iter(&self) -> impl Iterator<Item = (f64, f64)> {
        self.values.iter().copied().zip(self.weights.iter().copied())
    }

    /// The same with every value turned round.
    pub(super) fn negated(&self) -> Self {
        let mut sample = self.clone();
        sample.values.iter_mut().for_each(|value| *value = -*value);
        sample.values.reverse();
        sample.weights.reverse();
        sample.picture.reverse();
        sample
    }

    /// So many pictures drawn with replacement.
    pub(super) fn drawn(&self, pictures: usize, random: &mut fastrand::Rng) -> Self {
        let mut times = vec![0_u32; self.pictures];
        for _ in 0..if self.pictures > 0 { pictures } else { 0 } {
            times[random.usize(..self.pictures)] += 1;
        }
        let weights = self.weights.iter().zip(&self.picture);
        let weights = weights.map(|(weight, &picture)| weight * f64::from(times[picture])).collect();
        Self { weights, ..self.clone() }
    }

    /// The share of the weight whose values are chosen; none of an empty sample.
    pub(super) fn share(&self, chosen: impl Fn(f64) -> bool) -> Option<f64> {
        let total: f64 = self.weights.iter().sum();
        // An empty `sum` is -0.
        let of = self.iter().filter(|(value, _)| chosen(*value)).fold(0.0, |sum, (_, weight)| sum + weight);
        (total > 0.0).then(|| of / total)
    }

    /// The value of each place from 0 to 1 in the weighted distribution; places ascend. Between the middles of two values'
    /// weights in proportion, beyond the outermost the outermost.
    pub(super) fn at(&self, places: impl IntoIterator<Item = f64>) -> Vec<f64> {
        let total: f64 = self.weights.iter().sum();
        let mut sum = 0.0;
        let mut middles = self.iter().filter(|(_, weight)| *weight > 0.0).map(|(value, weight)| {
            sum += weight;
            ((sum - weight / 2.0) / total, value)
        });
        let Some(mut low) = middles.next() else { return Vec::new() };
        let mut high = low;
        let value_at = |place: f64| {
            while high.0 < place {
                low = high;
                match middles.next() {
                    Some(next) => high = next,
                    None => return low.1,
                }
            }
            if high.0 > low.0 { low.1 + (high.1 - low.1) * ((place - low.0) / (high.0 - low.0)) } else { high.1 }
        };
        places.into_iter().map(value_at).collect()
    }

    /// The distribution as a table stores it: of `n` values the ith is at (i + 0.5) / n.
    pub(super) fn quantiles(&self) -> Vec<f64> {
        self.at((0..self.stored()).map(|index| place(index, self.stored())))
    }
}

/// The place of the stored value `index` of `n`.
pub(super) fn place(index: usize, n: usize) -> f64 {
    (index as f64 + 0.5) / n as f64
}

/// The area under the ROC curve: how often a generated picture's score is above a real one's, equal ones counting half.
/// None where one of them is empty.
pub(super) fn area(real: &Sample, fake: &Sample) -> Option<f64> {
    let total = |sample: &Sample| sample.weights.iter().sum::<f64>();
    let mut reals = real.iter().peekable();
    let (mut below, mut sum) = (0.0, 0.0);
    let mut fakes = fake.iter().peekable();
    while let Some(&(value, _)) = fakes.peek() {
        let mut take = |upto: &dyn Fn(f64) -> bool| {
            std::iter::from_fn(|| reals.next_if(|(real, _)| upto(*real))).map(|(_, weight)| weight).sum::<f64>()
        };
        below += take(&|real| real < value);
        let tied = take(&|real| real == value);
        let weight: f64 =
            std::iter::from_fn(|| fakes.next_if(|(fake, _)| *fake == value)).map(|(_, weight)| weight).sum();
        sum += weight * (below + tied / 2.0);
        below += tied;
    }
    let pairs = total(real) * total(fake);
    (pairs > 0.0).then(|| sum / pairs)
}

/// The average precision of finding generated pictures by high scores, equal ones found together. None where one of them is
/// empty.
pub(super) fn average_precision(real: &Sample, fake: &Sample) -> Option<f64> {
    let total = |sample: &Sample| sample.weights.iter().sum::<f64>();
    let (reals, fakes) = (total(real), total(fake));
    if !(reals > 0.0 && fakes > 0.0) {
        return None;
    }
    let mut scores: Vec<_> =
        real.iter().map(|score| (score, 0.0)).chain(fake.iter().map(|score| (score, 1.0))).collect();
    scores.sort_by(|((a, _), _), ((b, _), _)| b.total_cmp(a));
    let (mut found, mut right, mut sum) = (0.0, 0.0, 0.0);
    for equal in scores.chunk_by(|((a, _), _), ((b, _), _)| a == b) {
        let weight = |label: f64| equal.iter().filter(|(_, of)| *of == label).fold(0.0, |sum, ((_, w), _)| sum + w);
        found += weight(0.0) + weight(1.0);
        right += weight(1.0);
        sum += weight(1.0) * right / found;
    }
    Some(sum / fakes)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Figures of `quantiles` of models/lfm/evidence.py, which is NumPy's `interp`, and of scikit-learn's
    /// `roc_auc_score`, on the same values with these weights.
    #[test]
    fn files_of_one_picture_share_its_weight() {
        let real = Sample::new([(0.5, 7), (-1.0, 7), (2.0, 7)]);
        let fake = Sample::new([(3.0, 1), (0.25, 2), (1.5, 2), (-2.0, 3)]);
        assert_eq!((real.pictures(), fake.pictures()), (1, 3));
        assert_eq!(area(&real, &fake), Some(0.5));
        let weights =
            [(0.5, 1.0 / 3.0), (-1.0, 1.0 / 3.0), (2.0, 1.0 / 3.0), (3.0, 1.0), (0.25, 0.5), (1.5, 0.5), (-2.0, 1.0)];
        let mut sample = Sample::new(weights.iter().enumerate().map(|(index, (value, _))| (*value, index)));
        for (value, weight) in sample.values.iter().zip(&mut sample.weights) {
            *weight = weights.iter().find(|(other, _)| other == value).expect("it is there").1;
        }
        let close = |found: Vec<f64>, expected: &[f64]| {
            assert_eq!(found.len(), expected.len());
            for (found, expected) in found.iter().zip(expected) {
                assert!((found - expected).abs() < 5e-5, "{found} is not {expected}");
            }
        };
        close(sample.quantiles(), &[-2.0, -1.4643, -0.2143, 0.5, 1.6857, 2.4643, 3.0]);
        close(sample.at((0..4).map(|index| place(index, 4))), &[-2.0, 0.0, 1.6, 3.0]);
        close(Sample::new([]).quantiles(), &[]);
    }

    #[test]
    fn equal_scores_count_half() {
        let of = |values: &[f64]| Sample::new(values.iter().copied().zip(0..));
        assert_eq!(area(&of(&[1.0, 2.0, 2.0]), &of(&[2.0, 3.0])), Some((2.0 + 3.0) / 6.0));
        assert_eq!(area(&of(&[1.0]), &of(&[])), None);
        // scikit-learn's `average_precision_score`.
        let precision = average_precision(&of(&[1.0, 2.0, 2.0, 5.0]), &of(&[2.0, 3.0, 2.0, 1.0]));
        assert_eq!(precision, Some(0.25 * 0.5 + 0.5 * 0.5 + 0.25 * 0.5));
        assert_eq!(average_precision(&of(&[1.0]), &of(&[])), None);
        let sample = of(&[1.0, 2.0]);
        assert_eq!(sample.share(|value| value > 1.0), Some(0.5));
        assert_eq!(sample.negated().values, [-2.0, -1.0]);
    }
}
