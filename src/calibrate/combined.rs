//! The weights by which the logits of several networks become one.

use serde::Serialize;

use super::{
    halves::Half,
    logistic::Line,
    platt::{calibration, line, rounded},
    sample::{Sample, area, average_precision},
    shot::{Shot, samples},
};

/// How several networks are combined in a class of file, and what that gains on the report half.
#[derive(Debug, Clone, Serialize)]
pub struct CombinedFit {
    /// The weights of their logits; 0 of a network that says the same of every picture.
    pub weights: Vec<f64>,
    /// What is added to the weighted sum.
    pub bias: f64,
    /// Whether the sum tells the pictures of the fit half apart without error: only the penalty keeps the weights from growing.
    pub separated: bool,
    /// Each network alone.
    pub alone: Vec<Skill>,
    /// All together.
    pub together: Skill,
}

/// How well the report half is told apart.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Skill {
    /// Average precision of finding generated pictures; none without pictures of both labels.
    pub average_precision: Option<f64>,
    /// The mean of the shares of real and of generated pictures on their side of the calibrated logit 0.
    pub balanced_accuracy: Option<f64>,
}

/// The combination of several networks; none of one, of fewer pictures than `least` of a label, and where no network tells them apart.
pub(super) fn combine(shots: &[&Shot], least: usize) -> Option<CombinedFit> {
    let networks = shots.first().map(|shot| shot.logits.len()).filter(|&networks| networks > 1)?;
    // Each shot by its place, so that the samples' weights by picture can be used.
    let placed: Vec<_> = shots.iter().enumerate().collect();
    let sample = |fake| {
        let of = placed.iter().filter(|(_, shot)| shot.fake == fake && shot.half == Half::Fit);
        Sample::new(of.map(|&(place, shot)| (place as f64, shot.picture)))
    };
    let (real, fake) = (sample(false), sample(true));
    if [&real, &fake].iter().any(|sample| sample.pictures() < least) {
        return None;
    }
    let logits = |place: f64| shots[place as usize].logits.iter().map(|&logit| f64::from(logit)).collect();
    let Line { slopes, intercept } = line(&real, &fake, &logits)?;
    let weights: Vec<_> = slopes.into_iter().map(significant).collect();
    let bias = rounded(intercept, 5);
    let alone = |network: usize| {
        let [[real, fake], new] = samples(shots, &|shot| shot.logits[network].into());
        skill(&new, calibration(&real, &fake))
    };
    let [[real, fake], new] = samples(shots, &|shot| shot.logit_raw(Some(&weights)));
    let separated = area(&real, &fake) == Some(1.0);
    let (alone, together) = ((0..networks).map(alone).collect(), skill(&new, Some([1.0, bias])));
    Some(CombinedFit { weights, bias, separated, alone, together })
}

/// How well scores tell pictures apart under a calibration; without one no side is told.
fn skill([real, fake]: &[Sample; 2], calibration: Option<[f64; 2]>) -> Skill {
    let balanced = |[a, b]: [f64; 2]| {
        let above = |score: f64| a * score + b > 0.0;
        Some((real.share(|score| !above(score))? + fake.share(above)?) / 2.0)
    };
    Skill { average_precision: average_precision(real, fake), balanced_accuracy: calibration.and_then(balanced) }
}

/// Six significant digits: weights are of logits of any scale.
fn significant(number: f64) -> f64 {
    format!("{number:.5e}").parse().unwrap_or(number)
}
