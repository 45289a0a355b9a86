//! What the logits of labelled images are worth: accuracy, average precision, the ROC curve.

use std::collections::BTreeMap;

use serde::Serialize;

/// Logits by source.
pub(super) type Scored = BTreeMap<String, Scores>;

/// Logits of one source's images, by label.
#[derive(Debug, Default)]
pub(super) struct Scores {
    pub(super) real: Vec<f32>,
    pub(super) fake: Vec<f32>,
}

/// Figures of one source, or their means over sources. A figure that its images do not give (no fakes, no
/// reals) is null.
#[derive(Debug, Serialize)]
pub(super) struct Figures {
    pub(super) n: usize,
    pub(super) accuracy: Option<f64>,
    pub(super) average_precision: Option<f64>,
    pub(super) real_accuracy: Option<f64>,
    pub(super) fake_accuracy: Option<f64>,
}

/// Figures of a set of sources.
#[derive(Debug, Serialize)]
pub(super) struct Summary {
    pub(super) sources: BTreeMap<String, Figures>,
    pub(super) mean: Figures,
}

impl Summary {
    /// `cut` is the logit above which an image counts as fake.
    pub(super) fn new(scored: &Scored, cut: f64) -> Self {
        let sources: BTreeMap<_, _> = scored.iter().map(|(name, scores)| (name.clone(), scores.figures(cut))).collect();
        Self { mean: mean(&sources), sources }
    }
}

impl Scores {
    fn figures(&self, cut: f64) -> Figures {
        let share = |right: usize, of: usize| (of > 0).then(|| right as f64 / of as f64);
        let real_right = self.real.iter().filter(|&&logit| f64::from(logit) <= cut).count();
        let fake_right = self.fake.iter().filter(|&&logit| f64::from(logit) > cut).count();
        let n = self.real.len() + self.fake.len();
        Figures {
            n,
            accuracy: share(real_right + fake_right, n),
            average_precision: average_precision(&self.real, &self.fake),
            real_accuracy: share(real_right, self.real.len()),
            fake_accuracy: share(fake_right, self.fake.len()),
        }
    }
}

/// Average precision with fake as the positive class: the sum over thresholds of precision times the gain in
/// recall, equal logits sharing one threshold (scikit-learn's `average_precision_score`).
fn average_precision(real: &[f32], fake: &[f32]) -> Option<f64> {
    let ranked = ranked(real, fake);
    let (mut seen, mut found, mut sum) = (0usize, 0usize, 0.0);
    for tied in ranked.chunk_by(|a, b| a.0 == b.0) {
        let gained = tied.iter().filter(|(_, fake)| *fake).count();
        seen += tied.len();
        found += gained;
        sum += gained as f64 * found as f64 / seen as f64;
    }
    (found > 0).then(|| sum / found as f64)
}

/// Means over sources, each counting alike, of those that have the figure.
fn mean(sources: &BTreeMap<String, Figures>) -> Figures {
    let over = |figure: fn(&Figures) -> Option<f64>| {
        let values: Vec<f64> = sources.values().filter_map(figure).collect();
        (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
    };
    Figures {
        n: sources.values().map(|figures| figures.n).sum(),
        accuracy: over(|figures| figures.accuracy),
        average_precision: over(|figures| figures.average_precision),
        real_accuracy: over(|figures| figures.real_accuracy),
        fake_accuracy: over(|figures| figures.fake_accuracy),
    }
}

/// The ROC curve: shares of reals and of fakes above a falling threshold, from (0, 0) to (1, 1); equal logits
/// pass together.
pub(super) fn roc(real: &[f32], fake: &[f32]) -> Vec<(f64, f64)> {
    let ranked = ranked(real, fake);
    let (mut false_alarms, mut found) = (0, 0);
    let points = ranked.chunk_by(|a, b| a.0 == b.0).map(|tied| {
        let fakes = tied.iter().filter(|(_, fake)| *fake).count();
        found += fakes;
        false_alarms += tied.len() - fakes;
        (false_alarms as f64 / real.len().max(1) as f64, found as f64 / fake.len().max(1) as f64)
    });
    std::iter::once((0.0, 0.0)).chain(points).collect()
}

/// Logits with "is fake", the highest first.
fn ranked(real: &[f32], fake: &[f32]) -> Vec<(f32, bool)> {
    let mut ranked: Vec<_> =
        real.iter().map(|&logit| (logit, false)).chain(fake.iter().map(|&logit| (logit, true))).collect();
    ranked.sort_by(|a, b| b.0.total_cmp(&a.0));
    ranked
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Figures of scikit-learn 1.9.1 `average_precision_score` on the same scores.
    #[test]
    fn average_precision_equals_scikit_learn() {
        let cases: [(&[f32], &[f32], f64); 4] = [
            (&[0.1, 0.4], &[0.35, 0.8], 0.833_333_333_333_333_3),
            (&[1.0, 1.0, 2.0], &[1.0, 2.0, 3.0], 0.722_222_222_222_222_2),
            (&[5.0], &[1.0, 2.0], 0.583_333_333_333_333_3),
            (&[3.0, 2.0, 2.0, 1.0], &[2.0, 2.0, 4.0, 1.0, 0.0], 0.611_111_111_111_111_2),
        ];
        for (real, fake, expected) in cases {
            let found = average_precision(real, fake).expect("there are fakes");
            assert!((found - expected).abs() < 1e-12, "{found} is not {expected}");
        }
        assert_eq!(average_precision(&[1.0], &[]), None);
    }
}
