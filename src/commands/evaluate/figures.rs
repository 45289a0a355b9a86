//! What judgements of labelled images are worth: how many verdicts are given, how many of them are right, and how well
//! the network's own logit ranks.

use serde::{Serialize, Serializer};

use crate::judge::{Class, Verdict};

/// What was said of one labelled image.
#[derive(Debug, Clone)]
pub(in crate::commands) struct Judged<'a> {
    pub(super) source: &'a str,
    pub(super) fake: bool,
    pub(super) class: Class,
    pub(super) verdict: Verdict,
    /// None where the verdict is void.
    pub(super) score: Option<f64>,
    /// The network's own logit: calibrated ones do not rank in a class of file whose `a` is 0.
    pub(super) logit_raw: f32,
    pub(super) regions: usize,
}

/// One figure of a set of images.
#[derive(Debug, Clone, Copy)]
pub(super) enum Figure {
    /// The share that is not `uncertain`.
    Coverage,
    /// Of the verdicts given, the share that is right.
    Accuracy,
    /// Of the network's own logits, `fake` being the positive class.
    AveragePrecision,
    /// Of the real images that got a verdict, the share called real.
    RealAccuracy,
    /// Of the generated images that got a verdict, the share called fake.
    FakeAccuracy,
    /// Of the images called real, the share that is.
    RealVerdictsRight,
    /// Of the images called fake, the share that is.
    FakeVerdictsRight,
    /// Of all real images, the share called fake.
    FalseAlarms,
    /// Of all generated images, the share called real.
    Misses,
    /// Regions that were run for an image, in the mean.
    Regions,
}

impl Figure {
    pub(super) const ALL: [Self; 10] = [
        Self::Coverage,
        Self::Accuracy,
        Self::AveragePrecision,
        Self::RealAccuracy,
        Self::FakeAccuracy,
        Self::RealVerdictsRight,
        Self::FakeVerdictsRight,
        Self::FalseAlarms,
        Self::Misses,
        Self::Regions,
    ];

    /// The name in JSON.
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Coverage => "coverage",
            Self::Accuracy => "accuracy",
            Self::AveragePrecision => "average_precision",
            Self::RealAccuracy => "real_accuracy",
            Self::FakeAccuracy => "fake_accuracy",
            Self::RealVerdictsRight => "real_verdicts_right",
            Self::FakeVerdictsRight => "fake_verdicts_right",
            Self::FalseAlarms => "false_alarms",
            Self::Misses => "misses",
            Self::Regions => "regions",
        }
    }
}

/// All figures; one that the images do not give (no fakes, no verdicts) is none.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(super) struct Figures([Option<f64>; Figure::ALL.len()]);

impl Figures {
    pub(super) const fn get(&self, figure: Figure) -> Option<f64> {
        self.0[figure as usize]
    }

    /// Each figure from all sets' own values of it, as `of` has it.
    pub(super) fn each(sets: &[Self], of: impl Fn(Vec<f64>) -> Option<f64>) -> Self {
        let over = |figure| of(sets.iter().filter_map(|set| set.get(figure)).collect());
        Self(Figure::ALL.map(over))
    }
}

impl Serialize for Figures {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(Figure::ALL.map(|figure| (figure.as_str(), self.get(figure))))
    }
}

/// Counts of a set of images, some of which may count several times (a bootstrap draw).
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(super) struct Counts {
    /// By label, real first, and verdict in the order of [`Verdict::ALL`].
    verdicts: [[usize; 3]; 2],
    regions: usize,
    average_precision: f64,
}

impl Counts {
    /// Counts images that come by falling `logit_raw`, each so many times. Equal logits share one threshold, as in
    /// scikit-learn's `average_precision_score`.
    pub(super) fn new<'a>(ranked: impl Iterator<Item = (&'a Judged<'a>, usize)>) -> Self {
        let mut counts = Self::default();
        let mut sum = 0.0;
        // Of the images above the present logit, and of those at it.
        let (mut seen, mut found) = (0, 0);
        let (mut tied, mut tied_fakes, mut logit) = (0, 0, f32::NAN);
        let mut close = |tied: usize, fakes: usize| {
            seen += tied;
            found += fakes;
            if fakes > 0 {
                sum += fakes as f64 * found as f64 / seen as f64;
            }
        };
        for (image, times) in ranked {
            if image.logit_raw != logit {
                close(tied, tied_fakes);
                (tied, tied_fakes, logit) = (0, 0, image.logit_raw);
            }
            tied += times;
            tied_fakes += if image.fake { times } else { 0 };
            counts.verdicts[usize::from(image.fake)][image.verdict as usize] += times;
            counts.regions += times * image.regions;
        }
        close(tied, tied_fakes);
        counts.average_precision = sum / counts.fakes().max(1) as f64;
        counts
    }

    fn called(&self, verdict: Verdict) -> [usize; 2] {
        self.verdicts.map(|by_verdict| by_verdict[verdict as usize])
    }

    pub(super) fn reals(&self) -> usize {
        self.verdicts[0].iter().sum()
    }

    pub(super) fn fakes(&self) -> usize {
        self.verdicts[1].iter().sum()
    }

    /// How many images got the verdict.
    pub(super) fn verdicts(&self, verdict: Verdict) -> usize {
        self.called(verdict).iter().sum()
    }

    /// The share of an image's label that got the verdict.
    pub(super) fn share(&self, fake: bool, verdict: Verdict) -> Option<f64> {
        let of = self.verdicts[usize::from(fake)];
        share(of[verdict as usize], of.iter().sum())
    }

    pub(super) fn figures(&self) -> Figures {
        let (reals, fakes) = (self.reals(), self.fakes());
        let ([real_real, fake_real], [real_fake, fake_fake]) = (self.called(Verdict::Real), self.called(Verdict::Fake));
        let decided = real_real + fake_real + real_fake + fake_fake;
        Figures(Figure::ALL.map(|figure| match figure {
            Figure::Coverage => share(decided, reals + fakes),
            Figure::Accuracy => share(real_real + fake_fake, decided),
            Figure::AveragePrecision => (reals > 0 && fakes > 0).then_some(self.average_precision),
            Figure::RealAccuracy => share(real_real, real_real + real_fake),
            Figure::FakeAccuracy => share(fake_fake, fake_fake + fake_real),
            Figure::RealVerdictsRight => share(real_real, real_real + fake_real),
            Figure::FakeVerdictsRight => share(fake_fake, fake_fake + real_fake),
            Figure::FalseAlarms => share(real_fake, reals),
            Figure::Misses => share(fake_real, fakes),
            Figure::Regions => share(self.regions, reals + fakes),
        }))
    }
}

fn share(part: usize, of: usize) -> Option<f64> {
    (of > 0).then(|| part as f64 / of as f64)
}

/// The images by falling `logit_raw`.
pub(super) fn ranked<'a>(images: impl IntoIterator<Item = &'a Judged<'a>>) -> Vec<&'a Judged<'a>> {
    let mut ranked: Vec<_> = images.into_iter().collect();
    ranked.sort_by(|a, b| b.logit_raw.total_cmp(&a.logit_raw));
    ranked
}

/// The ROC curve of ranked images: shares of reals and of fakes above a falling threshold, from (0, 0) to (1, 1); equal
/// logits pass together.
pub(super) fn roc(ranked: &[&Judged<'_>]) -> Vec<(f64, f64)> {
    let fakes = ranked.iter().filter(|image| image.fake).count();
    let reals = ranked.len() - fakes;
    let (mut false_alarms, mut found) = (0, 0);
    let points = ranked.chunk_by(|a, b| a.logit_raw == b.logit_raw).map(|tied| {
        let tied_fakes = tied.iter().filter(|image| image.fake).count();
        found += tied_fakes;
        false_alarms += tied.len() - tied_fakes;
        (share(false_alarms, reals).unwrap_or(0.0), share(found, fakes).unwrap_or(0.0))
    });
    std::iter::once((0.0, 0.0)).chain(points).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(fake: bool, logit_raw: f32, verdict: Verdict) -> Judged<'static> {
        Judged { source: "one", fake, class: Class::Lossless, verdict, score: None, logit_raw, regions: 1 }
    }

    fn counts(images: &[Judged<'_>]) -> Counts {
        Counts::new(ranked(images).into_iter().map(|image| (image, 1)))
    }

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
            let of = |fake: bool, logits: &[f32]| -> Vec<_> {
                logits.iter().map(|&logit| image(fake, logit, Verdict::Real)).collect()
            };
            let images = [of(false, real), of(true, fake)].concat();
            let found = counts(&images).figures().get(Figure::AveragePrecision).expect("both labels");
            assert!((found - expected).abs() < 1e-12, "{found} is not {expected}");
        }
        assert_eq!(counts(&[image(false, 1.0, Verdict::Real)]).figures().get(Figure::AveragePrecision), None);
    }

    #[test]
    fn verdicts_are_counted_by_label() {
        let said = |fake, verdicts: &[Verdict]| -> Vec<_> {
            verdicts.iter().map(|&verdict| image(fake, 0.0, verdict)).collect()
        };
        use Verdict::{Fake, Real, Uncertain};
        let images =
            [said(false, &[Real, Real, Fake, Uncertain]), said(true, &[Fake, Fake, Fake, Real, Uncertain])].concat();
        let counts = counts(&images);
        let figures = counts.figures();
        let expected = [
            (Figure::Coverage, 7.0 / 9.0),
            (Figure::Accuracy, 5.0 / 7.0),
            (Figure::RealAccuracy, 2.0 / 3.0),
            (Figure::FakeAccuracy, 3.0 / 4.0),
            (Figure::RealVerdictsRight, 2.0 / 3.0),
            (Figure::FakeVerdictsRight, 3.0 / 4.0),
            (Figure::FalseAlarms, 1.0 / 4.0),
            (Figure::Misses, 1.0 / 5.0),
        ];
        for (figure, expected) in expected {
            assert_eq!(figures.get(figure), Some(expected), "{}", figure.as_str());
        }
        assert_eq!((counts.verdicts(Real), counts.verdicts(Fake), counts.verdicts(Uncertain)), (3, 4, 2));
    }
}
