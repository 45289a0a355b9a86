//! Figures of a set of images: by source, by class of file, of all, with bootstrap intervals.

use std::collections::BTreeMap;

use serde::Serialize;

use super::figures::{Counts, Figure, Figures, Judged, ranked};
use crate::{
    calibrate::quantile,
    judge::{Class, Verdict},
};

/// Bootstrap draws, and the generator's seed: equal judgements give equal intervals.
const DRAWS: usize = 1000;
const SEED: u64 = 0;

/// Figures of all images that one model judged, as stored or after one JPEG quality.
#[derive(Debug, Serialize)]
pub(in crate::commands) struct Report {
    pub(super) sources: BTreeMap<String, Row>,
    /// By class of file.
    pub(super) classes: BTreeMap<Class, Row>,
    /// Of all images as one set.
    pub(super) all: Row,
    /// The means of the sources' figures, each source counting alike.
    pub(super) mean: Row,
}

/// Figures with what they rest on.
#[derive(Debug, Default, Serialize)]
pub(super) struct Row {
    pub(super) n: usize,
    pub(super) n_real: usize,
    pub(super) n_fake: usize,
    /// Images called real.
    pub(super) real_verdicts: usize,
    /// Images called fake.
    pub(super) fake_verdicts: usize,
    #[serde(flatten)]
    pub(super) figures: Figures,
    /// 95 % bootstrap intervals of the figures, images drawn anew within each source and label.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) interval_95: Option<BTreeMap<&'static str, [f64; 2]>>,
}

impl Report {
    pub(in crate::commands) fn new(judged: &[Judged<'_>]) -> Self {
        let images = ranked(judged);
        let mut sources = BTreeMap::<_, Vec<_>>::new();
        let mut classes = BTreeMap::<_, Vec<_>>::new();
        for &image in &images {
            sources.entry(image.source.to_owned()).or_default().push(image);
            classes.entry(image.class).or_default().push(image);
        }
        let row = |images: Vec<&Judged<'_>>| Row::of(&once(&images));
        let classes = classes.into_iter().map(|(name, images)| (name, row(images))).collect();
        let sources: BTreeMap<_, _> = sources.into_iter().map(|(name, images)| (name, row(images))).collect();
        let mean = Row::mean(sources.values());
        let mut report = Self { sources, classes, all: row(images.clone()), mean };
        let [all, mean] = intervals(&images);
        (report.all.interval_95, report.mean.interval_95) = (Some(all), Some(mean));
        report
    }
}

fn once<'a>(images: &[&'a Judged<'a>]) -> Counts {
    Counts::new(images.iter().map(|&image| (image, 1)))
}

impl Row {
    fn of(counts: &Counts) -> Self {
        let (n_real, n_fake) = (counts.reals(), counts.fakes());
        Self {
            n: n_real + n_fake,
            n_real,
            n_fake,
            real_verdicts: counts.verdicts(Verdict::Real),
            fake_verdicts: counts.verdicts(Verdict::Fake),
            figures: counts.figures(),
            interval_95: None,
        }
    }

    fn mean<'a>(rows: impl Iterator<Item = &'a Self> + Clone) -> Self {
        let sum = |count: fn(&Self) -> usize| rows.clone().map(count).sum();
        Self {
            n: sum(|row| row.n),
            n_real: sum(|row| row.n_real),
            n_fake: sum(|row| row.n_fake),
            real_verdicts: sum(|row| row.real_verdicts),
            fake_verdicts: sum(|row| row.fake_verdicts),
            figures: Figures::each(&rows.map(|row| row.figures).collect::<Vec<_>>(), mean),
            interval_95: None,
        }
    }
}

fn mean(values: Vec<f64>) -> Option<f64> {
    (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
}

/// 95 % intervals of the figures of all images as one set, and of the means over sources. `images` come ranked.
fn intervals(images: &[&Judged<'_>]) -> [BTreeMap<&'static str, [f64; 2]>; 2] {
    let mut strata = BTreeMap::<_, Vec<usize>>::new();
    let mut sources = BTreeMap::<_, Vec<usize>>::new();
    for (index, image) in images.iter().enumerate() {
        strata.entry((image.source, image.fake)).or_default().push(index);
        sources.entry(image.source).or_default().push(index);
    }
    let mut random = fastrand::Rng::with_seed(SEED);
    let (mut all, mut means) = (Vec::with_capacity(DRAWS), Vec::with_capacity(DRAWS));
    for _ in 0..DRAWS {
        let mut times = vec![0; images.len()];
        for members in strata.values() {
            for _ in members {
                times[members[random.usize(..members.len())]] += 1;
            }
        }
        all.push(Counts::new(images.iter().zip(&times).map(|(&image, &times)| (image, times))).figures());
        let of_source =
            |members: &Vec<usize>| Counts::new(members.iter().map(|&index| (images[index], times[index]))).figures();
        means.push(Figures::each(&sources.values().map(of_source).collect::<Vec<_>>(), mean));
    }
    [all, means].map(|draws| {
        let (low, high) = (
            Figures::each(&draws, |values| quantile(values, 0.025)),
            Figures::each(&draws, |values| quantile(values, 0.975)),
        );
        let both = |figure: Figure| Some((figure.as_str(), [low.get(figure)?, high.get(figure)?]));
        Figure::ALL.into_iter().filter_map(both).collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of 400 images a binomial share's interval is known, and the same images give the same one.
    #[test]
    fn intervals_are_those_of_the_draws_and_the_same_each_time() {
        let image = |index: usize| Judged {
            source: ["one", "two"][index % 2],
            fake: index % 4 > 1,
            class: Class::Lossless,
            verdict: if index.is_multiple_of(5) { Verdict::Uncertain } else { Verdict::Real },
            score: Some(0.5),
            logit_raw: index as f32,
            regions: 1,
        };
        let images: Vec<_> = (0..400).map(image).collect();
        let report = Report::new(&images);
        for row in [&report.all, &report.mean] {
            let intervals = row.interval_95.as_ref().expect("intervals");
            let [low, high] = intervals["coverage"];
            // 1.96 standard deviations of 400 draws of 0.8 are 0.039.
            assert!((low - 0.761).abs() < 0.01 && (high - 0.839).abs() < 0.01, "{low} to {high}");
            assert_eq!(intervals["false_alarms"], [0.0, 0.0]);
            assert!(!intervals.contains_key("fake_verdicts_right"), "nothing was called fake");
        }
        let again = serde_json::to_string(&Report::new(&images)).expect("JSON");
        assert_eq!(serde_json::to_string(&report).expect("JSON"), again);
    }
}
