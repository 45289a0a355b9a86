//! Logistic regression (of one variable: Platt scaling): scikit-learn's `LogisticRegression(C=1.0)`, whose penalty is on the
//! slopes alone.

use crate::judge::sigmoid;

/// Newton's method doubles the right digits with each step: it ends long before.
const MOST_STEPS: usize = 200;

/// The least penalty of a slope, for each unit of weight of the examples: where several variables say the same, it keeps the
/// curvature from being singular. scikit-learn's is larger unless values deviate by thousands.
const RIDGE: f64 = 1e-10;

/// Values with their label and weight.
#[derive(Debug, Clone)]
pub(super) struct Example {
    pub(super) values: Vec<f64>,
    pub(super) fake: bool,
    pub(super) weight: f64,
}

/// A fitted line.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Line {
    /// Of each variable; 0 of one whose values are all equal.
    pub(super) slopes: Vec<f64>,
    pub(super) intercept: f64,
}

/// None where the values of every variable are all equal, or too large to calculate with.
pub(super) fn fit(examples: &[Example]) -> Option<Line> {
    let variables = examples.first()?.values.len();
    let sum = |of: &dyn Fn(&Example) -> f64| examples.iter().map(|example| example.weight * of(example)).sum::<f64>();
    let total = sum(&|_| 1.0);
    let spread = |variable: usize| {
        let mean = sum(&|example| example.values[variable]) / total;
        let deviation = (sum(&|example| (example.values[variable] - mean).powi(2)) / total).sqrt();
        (mean, deviation)
    };
    let spreads: Vec<_> = (0..variables).map(spread).collect();
    if spreads.iter().any(|(_, deviation)| !deviation.is_finite()) {
        return None;
    }
    // A deviation alone does not tell: that of equal values may be rounded up from 0.
    let varies = |variable: usize| {
        let first = examples[0].values[variable];
        spreads[variable].1 > 0.0 && examples.iter().any(|example| example.values[variable] != first)
    };
    let varying: Vec<_> = (0..variables).filter(|&variable| varies(variable)).collect();
    if varying.is_empty() {
        return None;
    }
    let standard = |example: &Example| {
        let value = |&variable: &usize| (example.values[variable] - spreads[variable].0) / spreads[variable].1;
        Example { values: varying.iter().map(value).collect(), ..*example }
    };
    let problem = Problem {
        examples: &examples.iter().map(standard).collect::<Vec<_>>(),
        penalties: varying.iter().map(|&variable| spreads[variable].1.powi(-2).max(RIDGE * total)).collect(),
    };
    let Line { slopes, intercept } = problem.minimum();
    let mut found = Line { slopes: vec![0.0; variables], intercept };
    for (slope, &variable) in slopes.iter().zip(&varying) {
        let (mean, deviation) = spreads[variable];
        found.slopes[variable] = slope / deviation;
        found.intercept -= slope * mean / deviation;
    }
    let finite = found.slopes.iter().chain([&found.intercept]).all(|number| number.is_finite());
    finite.then_some(found)
}

struct Problem<'a> {
    /// Of mean 0 and deviation 1, so that the steps are well conditioned.
    examples: &'a [Example],
    /// Of the square of each slope; halved.
    penalties: Vec<f64>,
}

impl Problem<'_> {
    fn minimum(&self) -> Line {
        let mut at = Line { slopes: vec![0.0; self.penalties.len()], intercept: 0.0 };
        let mut loss = self.loss(&at);
        for _ in 0..MOST_STEPS {
            let Some(step) = self.step(&at) else { break };
            // The whole step, or the first of its halves that goes down.
            let tried = (0..50).map(|halvings| 0.5_f64.powi(halvings)).find_map(|part| {
                let slopes = at.slopes.iter().zip(&step.slopes).map(|(slope, step)| slope + part * step).collect();
                let next = Line { slopes, intercept: at.intercept + part * step.intercept };
                let lower = self.loss(&next);
                (lower < loss).then_some((next, lower))
            });
            let Some(next) = tried else { break };
            (at, loss) = next;
        }
        at
    }

    fn loss(&self, line: &Line) -> f64 {
        let of = |example: &Example| {
            let logit = line.at(&example.values);
            let against = if example.fake { -logit } else { logit };
            // ln(1 + exp(x)) without overflow.
            example.weight * (against.max(0.0) + (-against.abs()).exp().ln_1p())
        };
        let penalty = self.penalties.iter().zip(&line.slopes).map(|(penalty, slope)| penalty * slope * slope);
        0.5 * penalty.sum::<f64>() + self.examples.iter().map(of).sum::<f64>()
    }

    /// Newton's step; none where the curvature is too small to tell one.
    fn step(&self, line: &Line) -> Option<Line> {
        let slopes = self.penalties.len();
        // The intercept is the last variable, whose value is always 1.
        let size = slopes + 1;
        let mut gradient = vec![0.0; size];
        let mut curvature = vec![vec![0.0; size]; size];
        for (index, (penalty, slope)) in self.penalties.iter().zip(&line.slopes).enumerate() {
            gradient[index] = penalty * slope;
            curvature[index][index] = *penalty;
        }
        for Example { values, fake, weight } in self.examples {
            let p = sigmoid(line.at(values));
            let error = weight * (p - if *fake { 1.0 } else { 0.0 });
            let bend = weight * p * (1.0 - p);
            let with_one = || values.iter().copied().chain([1.0]);
            for (value, (gradient, row)) in with_one().zip(gradient.iter_mut().zip(&mut curvature)) {
                *gradient += error * value;
                row.iter_mut().zip(with_one()).for_each(|(curvature, other)| *curvature += bend * value * other);
            }
        }
        let step = solve(curvature, gradient.into_iter().map(|slope| -slope).collect())?;
        Some(Line { intercept: step[slopes], slopes: step[..slopes].to_vec() })
    }
}

impl Line {
    /// The logit of these values.
    pub(super) fn at(&self, values: &[f64]) -> f64 {
        self.slopes.iter().zip(values).map(|(slope, value)| slope * value).sum::<f64>() + self.intercept
    }
}

/// Solves a symmetric system, of which the lower half is read, by Cholesky's decomposition; none unless it is positive
/// definite and the solution finite.
fn solve(mut matrix: Vec<Vec<f64>>, mut right: Vec<f64>) -> Option<Vec<f64>> {
    let size = right.len();
    for row in 0..size {
        for column in 0..=row {
            let known: f64 = (0..column).map(|k| matrix[row][k] * matrix[column][k]).sum();
            let rest = matrix[row][column] - known;
            if row > column {
                matrix[row][column] = rest / matrix[column][column];
            } else if rest > 0.0 {
                matrix[row][row] = rest.sqrt();
            } else {
                return None;
            }
        }
    }
    for row in 0..size {
        let known: f64 = (0..row).map(|k| matrix[row][k] * right[k]).sum();
        right[row] = (right[row] - known) / matrix[row][row];
    }
    for row in (0..size).rev() {
        let known: f64 = (row + 1..size).map(|k| matrix[k][row] * right[k]).sum();
        right[row] = (right[row] - known) / matrix[row][row];
    }
    right.iter().all(|number| number.is_finite()).then_some(right)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn example(values: &[f64], fake: bool) -> Example {
        Example { values: values.to_vec(), fake, weight: 1.0 }
    }

    /// Labels drawn by a known line over two variables, of which the second follows the first in part.
    fn drawn(line: &Line, examples: usize, seed: u64) -> Vec<Example> {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut normal = || (0..12).map(|_| random.f64()).sum::<f64>() - 6.0;
        let values: Vec<_> = (0..examples)
            .map(|_| {
                let first = 2.0 * normal();
                [first, 0.5 * first + normal()]
            })
            .collect();
        let mut labels = fastrand::Rng::with_seed(seed + 1);
        values.iter().map(|values| example(values, labels.f64() < sigmoid(line.at(values)))).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, cases: 24, ..ProptestConfig::default() })]

        /// Within about five standard errors of 8000 examples.
        #[test]
        fn known_weights_are_found_again(
            a in -1.0_f64..1.0, b in -1.0_f64..1.0, intercept in -1.0_f64..1.0, seed in 0_u64..1000,
        ) {
            let known = Line { slopes: vec![a, b], intercept };
            let found = fit(&drawn(&known, 8000, seed)).expect("a fit");
            for (found, known) in found.slopes.iter().zip(&known.slopes).chain([(&found.intercept, &known.intercept)]) {
                prop_assert!((found - known).abs() < 0.2, "{found} is not {known}");
            }
        }

        #[test]
        fn a_variable_that_never_changes_has_no_part(
            values in proptest::collection::vec(-20.0_f64..20.0, 2..80), constant in -1e6_f64..1e6, first: bool,
        ) {
            let label = |index: usize| index.is_multiple_of(3);
            let alone: Vec<_> = values.iter().enumerate().map(|(at, &value)| example(&[value], label(at))).collect();
            let beside = |&value: &f64| if first { [constant, value] } else { [value, constant] };
            let both: Vec<_> = values.iter().enumerate().map(|(at, value)| example(&beside(value), label(at))).collect();
            match (fit(&alone), fit(&both)) {
                (Some(alone), Some(both)) => {
                    prop_assert_eq!(both.slopes[usize::from(!first)], 0.0);
                    prop_assert_eq!(both.slopes[usize::from(first)], alone.slopes[0]);
                    prop_assert_eq!(both.intercept, alone.intercept);
                }
                (None, None) => {}
                other => prop_assert!(false, "{other:?}"),
            }
        }

        /// Values that tell the labels apart without error, equal variables, huge ones: the line is finite.
        #[test]
        fn no_slope_is_infinite(
            real in proptest::collection::vec(-9.0_f64..-1.0, 1..40), scale in prop_oneof![Just(1.0), Just(1e6), Just(1e30)],
            other in prop_oneof![Just(1.0_f64), Just(-1.0), Just(1e-3)],
        ) {
            let of = |value: f64, fake| example(&[scale * value, scale * other * value], fake);
            let examples: Vec<_> = real.iter().flat_map(|&value| [of(value, false), of(-value, true)]).collect();
            let line = fit(&examples).expect("values that differ");
            prop_assert!(line.slopes.iter().chain([&line.intercept]).all(|number| number.is_finite()), "{line:?}");
            prop_assert!(examples.iter().all(|example| (line.at(&example.values) > line.intercept) == example.fake), "{line:?}");
        }
    }

    /// scikit-learn 1.9.1, `LogisticRegression(C=1.0, solver="newton-cholesky", tol=1e-12)`.
    #[test]
    fn two_variables_are_scikit_learns() {
        let value = |index: i32, step: i32| f64::from(index * step % 101 - 50) / 20.0;
        let examples: Vec<_> = (0..120)
            .map(|index| {
                let fake = index % 2 == 1;
                let shift = if fake { 0.8 } else { -0.3 };
                example(&[value(index, 37) + shift, 3.0 * value(index, 53) + shift], fake)
            })
            .collect();
        let line = fit(&examples).expect("a fit");
        let found = [line.slopes[0], line.slopes[1], line.intercept];
        let expected = [0.445_368_073_060_166, 0.039_216_098_554_244, -0.104_429_836_407_275];
        for (found, expected) in found.into_iter().zip(expected) {
            assert!((found - expected).abs() < 1e-7, "{found} is not {expected}");
        }
    }
}
