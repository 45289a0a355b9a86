//! One class of file: its table, or why it has none that decides.

use serde::Serialize;

use super::{
    combined::{CombinedFit, combine},
    platt::{calibration, rounded},
    points::{Point, Side},
    sample::{Sample, area},
    shot::{Shot, samples},
};
use crate::judge::{OperatingPoint, Table};

/// The fewest pictures of either label in the fit half with which a class decides.
const LEAST: usize = 30;

/// The least area under the ROC curve with which it does.
const RANKS: f64 = 0.75;

/// Shares of wrong verdicts that are measured, besides the default.
const SHARES: [f64; 3] = [0.01, 0.05, 0.1];

/// What was found in one class of file.
#[derive(Debug, Clone, Serialize)]
pub struct ClassFit {
    /// Real and generated pictures of the fit half.
    pub fit: [usize; 2],
    /// Of the report half.
    pub report: [usize; 2],
    /// Area under the ROC curve of the fit half.
    pub auc: Option<f64>,
    /// Why it gives no verdicts; none where it does.
    pub undecided: Option<Undecided>,
    /// What accepting a share of real pictures called fake means.
    pub false_alarms: Vec<Point>,
    /// What accepting a share of generated pictures called real means.
    pub misses: Vec<Point>,
    /// How several networks are combined; none of one, and where there are too few pictures.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub combined: Option<CombinedFit>,
    /// Its table of the evidence.
    #[serde(skip)]
    pub table: Table,
}

/// Why a class of file gives no verdicts.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(tag = "reason", rename_all = "snake_case")]
pub enum Undecided {
    /// The fit half has too few pictures.
    TooFew {
        /// Real pictures that are missing, in both halves together.
        real_missing: usize,
        /// Generated ones.
        fake_missing: usize,
    },
    /// Real and generated pictures score too much alike.
    Alike {
        /// The least area under the ROC curve.
        least_auc: f64,
    },
}

/// Fits the tables of one class to the shots of the class.
pub fn fit(shots: &[&Shot], point: OperatingPoint) -> ClassFit {
    let combined = combine(shots, LEAST);
    let weights = combined.as_ref().map(|combined| &combined.weights[..]);
    let [[real, fake], [new_real, new_fake]] = samples(shots, &|shot| shot.logit_raw(weights));
    let several = shots.first().is_some_and(|shot| shot.logits.len() > 1);
    let auc = if several && combined.is_none() { None } else { area(&real, &fake) };
    let fitted = || match &combined {
        Some(combined) => Some([1.0, combined.bias]),
        None => calibration(&real, &fake),
    };
    let decided = decide(&real, &fake, auc, fitted);
    let [a, b] = decided.unwrap_or_default();
    let table = Table {
        a,
        b,
        real: stored(&real, a, b),
        fake: stored(&fake, a, b),
        n_real: counted(real.pictures()),
        n_fake: counted(fake.pictures()),
    };
    let accepted = |default: f64| {
        let mut shares: Vec<_> = SHARES.into_iter().filter(|share| *share != default).chain([default]).collect();
        shares.sort_by(f64::total_cmp);
        shares
    };
    let (mut false_alarms, mut misses) = (Vec::new(), Vec::new());
    if decided.is_ok() {
        let beyond = |raw: f64| table.real_at_or_above(a * raw + b);
        let side = Side { wrong: [&real, &new_real], right: [&fake, &new_fake], beyond: &beyond };
        false_alarms = side.points(&accepted(point.false_alarms));
        let [real, new_real, fake, new_fake] = [&real, &new_real, &fake, &new_fake].map(Sample::negated);
        let beyond = |raw: f64| table.fake_at_or_below(a * -raw + b);
        let side = Side { wrong: [&fake, &new_fake], right: [&real, &new_real], beyond: &beyond };
        misses = side.points(&accepted(point.misses));
    }
    ClassFit {
        fit: [real.pictures(), fake.pictures()],
        report: [new_real.pictures(), new_fake.pictures()],
        auc,
        undecided: decided.err(),
        false_alarms,
        misses,
        combined,
        table,
    }
}

/// The calibration of a class that gives verdicts.
fn decide(
    real: &Sample,
    fake: &Sample,
    auc: Option<f64>,
    fitted: impl FnOnce() -> Option<[f64; 2]>,
) -> Result<[f64; 2], Undecided> {
    // Each picture in the fit half stands for two.
    let [real_missing, fake_missing] = [real, fake].map(|sample| 2 * LEAST.saturating_sub(sample.pictures()));
    if real_missing + fake_missing > 0 {
        return Err(Undecided::TooFew { real_missing, fake_missing });
    }
    let alike = Undecided::Alike { least_auc: RANKS };
    if auc.is_none_or(|auc| auc < RANKS) {
        return Err(alike);
    }
    fitted().ok_or(alike)
}

/// The calibrated distribution as a table stores it.
fn stored(sample: &Sample, a: f64, b: f64) -> Vec<f64> {
    sample.quantiles().into_iter().map(|raw| rounded(a * raw + b, 4)).collect()
}

fn counted(pictures: usize) -> u32 {
    u32::try_from(pictures).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{super::halves::Half, *};
    use crate::judge::Class;

    const POINT: OperatingPoint = OperatingPoint { false_alarms: 0.05, misses: 0.1 };

    /// Each score of a picture of its own.
    fn shots(half: Half, real: &[f32], fake: &[f32]) -> Vec<Shot> {
        let of = |fake, scores: &[f32]| {
            let shot =
                |(picture, &logit_raw)| Shot { class: Class::Lossless, fake, picture, half, logits: vec![logit_raw] };
            scores.iter().enumerate().map(shot).collect::<Vec<_>>()
        };
        [of(false, real), of(true, fake)].concat()
    }

    fn fitted(shots: &[Shot]) -> ClassFit {
        fit(&shots.iter().collect::<Vec<_>>(), POINT)
    }

    /// Scores that Python can make too.
    fn scores(n: u32, step: u32, factor: f64, shift: f64) -> Vec<f32> {
        (0..n).map(|index| ((f64::from(index * step % 101) - 50.0) / factor + shift) as f32).collect()
    }

    /// Figures of models/lfm/evidence.py on the same scores, scikit-learn 1.9.1. Its `calibrate` stops 1e-4 before the
    /// minimum; a and b are those of the same problem solved to the end (`newton-cholesky`, tol 1e-12).
    #[test]
    fn calibrations_are_those_of_scikit_learn() {
        let cases = [
            (scores(40, 37, 20.0, -0.5), scores(55, 53, 20.0, 1.0), [0.61184, -0.12292]),
            (scores(30, 37, 50.0, -3.0), scores(30, 53, 50.0, 2.0), [1.88217, 1.06638]),
            (scores(300, 37, 0.5, -40.0), scores(280, 53, 0.7, 60.0), [0.04045, -0.63366]),
            (scores(60, 37, 20.0, 0.0), scores(45, 53, 20.0, 0.2), [0.06205, -0.00277]),
        ];
        for (real, fake, expected) in cases {
            let sample = |scores: &[f32]| Sample::new(scores.iter().map(|&score| f64::from(score)).zip(0..));
            assert_eq!(calibration(&sample(&real), &sample(&fake)), Some(expected));
        }
    }

    /// As above; the stored logits are at most one unit of the fourth digit from Python's with its a and b.
    #[test]
    fn distributions_are_those_of_python() {
        let (real, fake) = (scores(300, 37, 0.5, -40.0), scores(280, 53, 0.7, 60.0));
        let found = fitted(&shots(Half::Fit, &real, &fake));
        let auc = found.auc.expect("both labels");
        assert!((auc - 0.907_488_095_238_095).abs() < 1e-12, "{auc}");
        let table = &found.table;
        assert_eq!((table.real.len(), table.fake.len(), table.n_real, table.n_fake), (256, 256, 300, 280));
        let some = |logits: &[f64]| [0, 1, 128, 255].map(|index| logits[index]);
        let expected = [[-6.2967, -6.2967, -2.2517, 1.7933], [-1.096, -1.096, 1.7933, 4.6826]];
        for (found, expected) in [&table.real, &table.fake].into_iter().zip(expected) {
            for (found, expected) in some(found).into_iter().zip(expected) {
                assert!((found - expected).abs() < 5e-3, "{found} is not {expected}");
            }
        }
    }

    #[test]
    fn a_class_without_enough_pictures_or_signal_stays_undecided() {
        let found = fitted(&shots(Half::Fit, &scores(12, 37, 20.0, -5.0), &scores(29, 53, 20.0, 5.0)));
        assert_eq!(found.undecided, Some(Undecided::TooFew { real_missing: 36, fake_missing: 2 }));
        assert_eq!((found.table.a, found.table.b, found.table.n_real), (0.0, 0.0, 12));
        assert_eq!(found.table.real, [0.0; 12]);
        // Of the first case above: its area is 0.7425.
        let found = fitted(&shots(Half::Fit, &scores(40, 37, 20.0, -0.5), &scores(55, 53, 20.0, 1.0)));
        assert_eq!(found.undecided, Some(Undecided::Alike { least_auc: 0.75 }));
        assert!(found.false_alarms.is_empty() && found.misses.is_empty());
        let empty = fitted(&[]);
        assert_eq!(empty.undecided, Some(Undecided::TooFew { real_missing: 60, fake_missing: 60 }));
        assert!(empty.table.real.is_empty());
    }

    /// Two networks that see different things tell more together than either; one that says nothing has no part.
    #[test]
    fn several_networks_are_weighted() {
        let mut random = fastrand::Rng::with_seed(3);
        let mut normal = || (0..12).map(|_| random.f64()).sum::<f64>() - 6.0;
        let mut shots = Vec::new();
        for (half, fake) in [Half::Fit, Half::Report].into_iter().flat_map(|half| [(half, false), (half, true)]) {
            for picture in 0..400 {
                let shift = if fake { 0.8 } else { -0.8 };
                let logits = [shift + normal(), 3.0 * (shift + normal()), 7.0].map(|logit| logit as f32).to_vec();
                shots.push(Shot { class: Class::Lossless, fake, picture, half, logits });
            }
        }
        let found = fitted(&shots);
        assert_eq!(found.undecided, None);
        let combined = found.combined.expect("weights");
        let [first, second, constant] = combined.weights[..] else { panic!("{combined:?}") };
        // Of two independent normal distributions with means of +-0.8 the log odds are 1.6 of each value.
        assert!((first - 1.6).abs() < 0.3 && (3.0 * second - 1.6).abs() < 0.3 && constant == 0.0, "{combined:?}");
        assert_eq!((found.table.a, found.table.b), (1.0, combined.bias));
        for alone in &combined.alone[..2] {
            assert!(combined.together.balanced_accuracy > alone.balanced_accuracy, "{combined:?}");
            assert!(combined.together.average_precision > alone.average_precision, "{combined:?}");
        }
        assert_eq!(combined.alone[2].balanced_accuracy, None, "nothing calibrates a constant");
        for point in found.false_alarms.iter().chain(&found.misses).filter(|point| point.reached) {
            assert!(point.right.fit > 0.2, "{point:?}");
        }

        let few: Vec<_> = shots.iter().filter(|shot| shot.picture < 29).cloned().collect();
        let few = fitted(&few);
        assert_eq!(few.undecided, Some(Undecided::TooFew { real_missing: 2, fake_missing: 2 }));
        assert!(few.combined.is_none() && few.auc.is_none());
        let constant: Vec<_> = shots.iter().map(|shot| Shot { logits: vec![7.0, 2.0], ..shot.clone() }).collect();
        assert_eq!(fitted(&constant).undecided, Some(Undecided::Alike { least_auc: RANKS }));
    }

    /// Of evenly spread scores the shares are known.
    #[test]
    fn points_say_what_a_share_means() {
        let even = |shift: f32| (0..199).map(|index| index as f32 + shift).collect::<Vec<_>>();
        let both: Vec<_> =
            [Half::Fit, Half::Report].into_iter().flat_map(|half| shots(half, &even(0.0), &even(100.5))).collect();
        let found = fitted(&both);
        assert_eq!((found.undecided, found.report), (None, [199, 199]));
        // At 1 in 100 one of 199 real pictures may score as high as what is called fake.
        let point = &found.false_alarms[0];
        assert_eq!((point.accepted, point.reached), (0.01, true));
        assert!((point.right.fit - 102.0 / 199.0).abs() < 1e-9, "{point:?}");
        for point in found.false_alarms.iter().chain(&found.misses) {
            // One picture more where its own logit was rounded down in the table.
            assert!(
                point.wrong.fit <= point.accepted + 1.0 / 199.0 && point.wrong.holds() && point.right.holds(),
                "{point:?}"
            );
            let [low, high] = point.right.interval_95;
            assert!(0.0 < low && low < point.right.fit && point.right.fit < high && high < 1.0, "{point:?}");
        }
        assert_eq!(found.misses.iter().map(|point| point.accepted).collect::<Vec<_>>(), [0.01, 0.05, 0.1]);

        let few = fitted(&shots(Half::Fit, &even(0.0)[..50], &even(40.5)[..50]));
        let reached: Vec<_> = few.false_alarms.iter().map(|point| point.reached).collect();
        assert_eq!(reached, [false, true, true], "1 in 100 needs 99 pictures");
        let [never, some, _] = &few.false_alarms[..] else { panic!("three points") };
        assert_eq!((never.right.fit, never.right.interval_95, never.right.report), (0.0, [0.0, 0.0], None));
        assert!(some.right.fit > 0.5, "{some:?}");
    }

    /// New sets fall into the intervals as often as they say.
    #[test]
    fn intervals_hold_on_new_sets() {
        let mut random = fastrand::Rng::with_seed(7);
        let mut normal = |mean: f64| (0..12).map(|_| random.f64()).sum::<f64>() - 6.0 + mean;
        let (mut held, mut all) = (0, 0);
        for _ in 0..40 {
            let mut half = |half| {
                let mut scores = |mean: f64| (0..80).map(|_| normal(mean) as f32).collect::<Vec<_>>();
                shots(half, &scores(0.0), &scores(2.0))
            };
            let found = fitted(&[half(Half::Fit), half(Half::Report)].concat());
            for point in found.false_alarms.iter().chain(&found.misses).filter(|point| point.reached) {
                held += usize::from(point.wrong.holds()) + usize::from(point.right.holds());
                all += 2;
            }
        }
        assert!(all >= 160 && (90..=99).contains(&(100 * held / all)), "{held} of {all}");
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        /// Whatever the scores, a class is undecided or keeps their order; its table is one that a manifest may have.
        #[test]
        fn order_is_kept(
            real in proptest::collection::vec(-60.0_f32..40.0, 0..80),
            fake in proptest::collection::vec(-40.0_f32..60.0, 0..80),
            scale in prop_oneof![Just(1.0_f32), Just(1e-3), Just(1e4), Just(1e30)],
            files in 1_usize..4,
        ) {
            let scaled = |scores: &[f32]| scores.iter().map(|score| score * scale).collect::<Vec<_>>();
            let mut shots = shots(Half::Fit, &scaled(&real), &scaled(&fake));
            shots.iter_mut().for_each(|shot| shot.picture /= files);
            let found = fitted(&shots);
            let table = &found.table;
            prop_assert!(table.check().is_ok(), "{:?}", table.check());
            let calibrated = if found.undecided.is_some() { (table.a, table.b) == (0.0, 0.0) } else { table.a > 0.0 };
            prop_assert!(calibrated);
            prop_assert_eq!(found.fit, [real.len().div_ceil(files), fake.len().div_ceil(files)]);
            let mut logits = scaled(&[real, fake].concat());
            logits.sort_by(f32::total_cmp);
            let shares = |raw: f32| {
                let logit = table.a * f64::from(raw) + table.b;
                (table.real_at_or_above(logit), table.fake_at_or_below(logit))
            };
            for pair in logits.windows(2) {
                let (low, high) = (shares(pair[0]), shares(pair[1]));
                prop_assert!(low.0 >= high.0 && low.1 <= high.1);
            }
        }
    }
}
