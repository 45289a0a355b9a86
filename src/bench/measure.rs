//! Measurement: contenders alternate in rounds; statistics of the rounds.

use std::{fmt, hint::black_box, time::Duration};

use indicatif::ProgressBar;
use rustix::time::{ClockId, clock_gettime};
use serde::Serialize;

use crate::image::child;

pub(super) use crate::image::corpus::Random;

/// The rounds of one section.
pub(super) struct Rounds {
    pub(super) count: usize,
    pub(super) progress: ProgressBar,
}

impl Rounds {
    /// Runs each contender once per round, always in the same order: A B A B. A busy or throttled machine slows all
    /// of them alike, so their ratios are reliable where their times are not.
    ///
    /// `once` returns the sample of one run. Returns each contender's samples by round, without a first round that
    /// only warms up. `what` is shown as progress.
    pub(super) fn interleave<C: Copy>(
        &self,
        what: &str,
        contenders: &[C],
        mut once: impl FnMut(C) -> Result<f64, anyhow::Error>,
    ) -> Result<Vec<Samples>, anyhow::Error> {
        let mut samples = vec![Vec::with_capacity(self.count); contenders.len()];
        for round in 0..=self.count {
            self.progress.set_message(format!("{what}, round {round} of {}", self.count));
            for (&contender, samples) in contenders.iter().zip(&mut samples) {
                let sample = once(contender)?;
                self.progress.tick();
                if round > 0 {
                    samples.push(sample);
                }
            }
        }
        Ok(samples.into_iter().map(Samples).collect())
    }
}

/// A contender's samples, one per round.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Samples(Vec<f64>);

impl FromIterator<f64> for Samples {
    fn from_iter<I: IntoIterator<Item = f64>>(samples: I) -> Self {
        Self(samples.into_iter().collect())
    }
}

impl Samples {
    pub(super) fn iter(&self) -> impl Iterator<Item = f64> {
        self.0.iter().copied()
    }

    /// Spread of the samples, each multiplied by `unit`.
    pub(super) fn spread(&self, unit: f64) -> Spread {
        Spread::of(self.0.iter().map(|sample| sample * unit).collect())
    }

    /// Spread of the ratios to another contender's samples of the same rounds.
    pub(super) fn over(&self, other: &Self) -> Spread {
        Spread::of(self.0.iter().zip(&other.0).map(|(a, b)| a / b).collect())
    }
}

/// Median and quartiles.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(super) struct Spread {
    pub(super) median: f64,
    q1: f64,
    q3: f64,
    rounds: usize,
}

impl Spread {
    fn of(mut samples: Vec<f64>) -> Self {
        samples.sort_by(f64::total_cmp);
        let [q1, median, q3] = [0.25, 0.5, 0.75].map(|share| quantile(&samples, share));
        Self { median, q1, q3, rounds: samples.len() }
    }
}

/// Linear interpolation, as NumPy's default; NaN if `sorted` is empty.
fn quantile(sorted: &[f64], share: f64) -> f64 {
    let place = sorted.len().saturating_sub(1) as f64 * share;
    let at = |place: f64| sorted.get(place as usize).copied().unwrap_or(f64::NAN);
    let (low, high) = (at(place.floor()), at(place.ceil()));
    low + (high - low) * place.fract()
}

impl fmt::Display for Spread {
    /// `median (q1-q3)`, three digits.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let decimals = match self.median {
            median if median >= 99.95 => 0,
            median if median >= 9.995 => 1,
            _ => 2,
        };
        let Self { median, q1, q3, .. } = self;
        write!(f, "{median:.decimals$} ({q1:.decimals$}-{q3:.decimals$})")
    }
}

/// CPU seconds of this thread and of the processes that decode for it during `work`, and its result.
///
/// Not wall-clock time: on a busy machine a long run is interrupted more often than a short one, which would
/// favour the short one.
pub(super) fn thread_seconds<T>(work: impl FnOnce() -> T) -> (f64, T) {
    let own = || Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).unwrap_or_default();
    let now = || own() + child::process::cpu_time();
    let start = now();
    let result = black_box(work());
    ((now() - start).as_secs_f64(), result)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contenders_alternate_and_the_first_round_does_not_count() {
        let rounds = Rounds { count: 2, progress: ProgressBar::hidden() };
        let mut order = String::new();
        let samples = rounds.interleave("letters", &['a', 'b'], |contender| {
            order.push(contender);
            Ok(order.len() as f64)
        });
        assert_eq!(order, "ababab");
        assert_eq!(samples.expect("no errors"), [Samples(vec![3.0, 5.0]), Samples(vec![4.0, 6.0])]);
    }

    #[test]
    fn ratios_are_of_the_same_round() {
        // The machine was ten times slower in the second round.
        let (a, b) = (Samples(vec![2.0, 20.0, 4.0]), Samples(vec![1.0, 10.0, 2.0]));
        assert_eq!(a.over(&b), Spread { median: 2.0, q1: 2.0, q3: 2.0, rounds: 3 });
    }

    #[test]
    fn quartiles_are_those_of_numpy() {
        let spread = Samples(vec![4.0, 1.0, 3.0, 2.0]).spread(10.0);
        assert_eq!(spread, Spread { median: 25.0, q1: 17.5, q3: 32.5, rounds: 4 });
        assert_eq!(Samples(vec![7.0]).spread(1.0), Spread { median: 7.0, q1: 7.0, q3: 7.0, rounds: 1 });
    }

    #[test]
    fn a_spread_has_three_digits() {
        let shown = |median, q1, q3| Spread { median, q1, q3, rounds: 3 }.to_string();
        assert_eq!(shown(1.234, 1.2, 1.3), "1.23 (1.20-1.30)");
        assert_eq!(shown(12.34, 9.9, 13.0), "12.3 (9.9-13.0)");
        assert_eq!(shown(1234.5, 1200.0, 1300.0), "1234 (1200-1300)");
    }
}
