//! Logistic regression on one variable (Platt scaling): scikit-learn's `LogisticRegression(C=1.0)`, whose penalty is on the
//! slope alone.

use crate::judge::sigmoid;

/// Newton's method doubles the right digits with each step: it ends long before.
const MOST_STEPS: usize = 200;

/// A value with its label and weight.
#[derive(Debug, Clone, Copy)]
pub(super) struct Example {
    pub(super) value: f64,
    pub(super) fake: bool,
    pub(super) weight: f64,
}

/// Slope and intercept; none of values that are all equal, or too large to calculate with.
pub(super) fn fit(examples: &[Example]) -> Option<[f64; 2]> {
    let sum = |of: &dyn Fn(&Example) -> f64| examples.iter().map(|example| example.weight * of(example)).sum::<f64>();
    let total = sum(&|_| 1.0);
    let mean = sum(&|example| example.value) / total;
    let deviation = (sum(&|example| (example.value - mean).powi(2)) / total).sqrt();
    if !(deviation > 0.0 && deviation.is_finite()) {
        return None;
    }
    let standard: Vec<_> =
        examples.iter().map(|example| Example { value: (example.value - mean) / deviation, ..*example }).collect();
    let problem = Problem { examples: &standard, penalty: deviation.powi(-2) };
    let [slope, intercept] = problem.minimum();
    let found = [slope / deviation, intercept - slope * mean / deviation];
    found.iter().all(|number| number.is_finite()).then_some(found)
}

struct Problem<'a> {
    /// Of mean 0 and deviation 1, so that the steps are well conditioned.
    examples: &'a [Example],
    /// Of the square of the slope; halved.
    penalty: f64,
}

impl Problem<'_> {
    fn minimum(&self) -> [f64; 2] {
        let mut at = [0.0, 0.0];
        let mut loss = self.loss(at);
        for _ in 0..MOST_STEPS {
            let Some(step) = self.step(at) else { break };
            // The whole step, or the first of its halves that goes down.
            let tried = (0..50).map(|halvings| 0.5_f64.powi(halvings)).find_map(|part| {
                let next = [at[0] + part * step[0], at[1] + part * step[1]];
                let lower = self.loss(next);
                (lower < loss).then_some((next, lower))
            });
            let Some(next) = tried else { break };
            (at, loss) = next;
        }
        at
    }

    fn loss(&self, [slope, intercept]: [f64; 2]) -> f64 {
        let of = |example: &Example| {
            let logit = slope * example.value + intercept;
            let against = if example.fake { -logit } else { logit };
            // ln(1 + exp(x)) without overflow.
            example.weight * (against.max(0.0) + (-against.abs()).exp().ln_1p())
        };
        0.5 * self.penalty * slope * slope + self.examples.iter().map(of).sum::<f64>()
    }

    /// Newton's step; none where the curvature is too small to tell one.
    fn step(&self, [slope, intercept]: [f64; 2]) -> Option<[f64; 2]> {
        let mut gradient = [self.penalty * slope, 0.0];
        let mut curvature = [self.penalty, 0.0, 0.0];
        for Example { value, fake, weight } in self.examples {
            let p = sigmoid(slope * value + intercept);
            let error = weight * (p - if *fake { 1.0 } else { 0.0 });
            gradient[0] += error * value;
            gradient[1] += error;
            let bend = weight * p * (1.0 - p);
            curvature[0] += bend * value * value;
            curvature[1] += bend * value;
            curvature[2] += bend;
        }
        let [of_slope, of_both, of_intercept] = curvature;
        let determinant = of_slope * of_intercept - of_both * of_both;
        let step = [
            (of_both * gradient[1] - of_intercept * gradient[0]) / determinant,
            (of_both * gradient[0] - of_slope * gradient[1]) / determinant,
        ];
        (determinant > 0.0 && step.iter().all(|number| number.is_finite())).then_some(step)
    }
}
