//! What accepting a share of wrong verdicts means: how many verdicts are then given, right and wrong, and how sure that is.

use serde::Serialize;

use super::{
    quantile,
    sample::{Sample, place},
};

/// Bootstrap draws, and the generator's seed: equal scores give equal intervals.
const DRAWS: usize = 1000;
const SEED: u64 = 0;

/// An accepted share of wrong verdicts of one kind: real pictures called fake, or generated ones called real.
#[derive(Debug, Clone, Serialize)]
pub struct Point {
    /// The share that is accepted.
    pub accepted: f64,
    /// Whether the pictures of the fit half are enough for so small a share; else the verdict is never given.
    pub reached: bool,
    /// The share of pictures that wrongly get the verdict.
    pub wrong: Measure,
    /// The share of pictures that rightly get it.
    pub right: Measure,
}

/// A share of pictures.
#[derive(Debug, Clone, Serialize)]
pub struct Measure {
    /// On the fit half.
    pub fit: f64,
    /// Where it falls in 95 of 100 new sets as large as the report half, by the bootstrap: threshold and set are drawn anew
    /// from the fit half, by picture.
    pub interval_95: [f64; 2],
    /// On the report half; none if it has no such picture.
    pub report: Option<f64>,
}

impl Measure {
    /// Whether the report half falls into the interval.
    pub fn holds(&self) -> bool {
        let [low, high] = self.interval_95;
        self.report.is_none_or(|share| (low..=high).contains(&share))
    }
}

/// Scores of both halves, turned so that the verdict is given to high ones.
pub(super) struct Side<'a> {
    /// Pictures to which the verdict would be wrong: those of the fit half, and of the report half.
    pub(super) wrong: [&'a Sample; 2],
    /// Those to which it would be right.
    pub(super) right: [&'a Sample; 2],
    /// The share of stored wrong ones with a score so high, as the service counts it.
    pub(super) beyond: &'a dyn Fn(f64) -> f64,
}

impl Side<'_> {
    /// What each accepted share means.
    pub(super) fn points(&self, accepted: &[f64]) -> Vec<Point> {
        accepted.iter().map(|&accepted| self.point(accepted)).collect()
    }

    fn point(&self, accepted: f64) -> Point {
        let stored = self.wrong[0].stored();
        // So many stored scores may be as high as one that gets the verdict.
        let above = (0..stored).take_while(|above| (above + 1) as f64 / (stored + 1) as f64 <= accepted).last();
        let threshold = |sample: &Sample| {
            let place = place(stored - 1 - above?, stored);
            sample.at([place]).first().copied()
        };
        let mut random = fastrand::Rng::with_seed(SEED);
        let mut draws = [Vec::with_capacity(DRAWS), Vec::with_capacity(DRAWS)];
        for _ in 0..DRAWS {
            let least = threshold(&self.wrong[0].drawn(self.wrong[0].pictures(), &mut random));
            for (draws, [fit, report]) in draws.iter_mut().zip([self.wrong, self.right]) {
                let new = fit.drawn(report.pictures().max(1), &mut random);
                draws.extend(new.share(|value| least.is_some_and(|least| value > least)));
            }
        }
        let called = |sample: &Sample| sample.share(|value| (self.beyond)(value) <= accepted);
        let measure = |[fit, report]: [&Sample; 2], draws: Vec<f64>| Measure {
            fit: called(fit).unwrap_or(0.0),
            interval_95: [0.025, 0.975].map(|share| quantile(draws.clone(), share).unwrap_or(0.0)),
            report: called(report),
        };
        let [wrong, right] = draws;
        let (wrong, right) = (measure(self.wrong, wrong), measure(self.right, right));
        Point { accepted, reached: above.is_some(), wrong, right }
    }
}
