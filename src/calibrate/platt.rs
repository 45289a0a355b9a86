//! Calibration: the logistic regression of the label on scores, both labels weighted alike, each picture as one.

use super::{
    logistic::{self, Example, Line},
    sample::Sample,
};

/// Platt's a and b with labels balanced, rounded; none where the scores do not rise with the label.
pub(super) fn calibration(real: &Sample, fake: &Sample) -> Option<[f64; 2]> {
    let Line { slopes, intercept } = line(real, fake, &|value| vec![value])?;
    let [a, b] = [slopes[0], intercept].map(|number| rounded(number, 5));
    (a > 0.0).then_some([a, b])
}

/// The logistic regression with labels balanced, on what stands for the samples' values.
pub(super) fn line(real: &Sample, fake: &Sample, values: &dyn Fn(f64) -> Vec<f64>) -> Option<Line> {
    let pictures = (real.pictures() + fake.pictures()) as f64;
    let weighted = |fake: bool, sample: &Sample| {
        let balance = pictures / (2 * sample.pictures()) as f64;
        let example = |(value, weight): (f64, f64)| Example { values: values(value), fake, weight: weight * balance };
        sample.iter().map(example).collect::<Vec<_>>()
    };
    logistic::fit(&[weighted(false, real), weighted(true, fake)].concat())
}

/// As tables store numbers.
pub(super) fn rounded(number: f64, digits: i32) -> f64 {
    let unit = 10_f64.powi(digits);
    // Plus 0: no minus before a zero.
    (number * unit).round() / unit + 0.0
}
