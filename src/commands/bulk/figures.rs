//! What a result says in figures: verdicts, classes of file, errors, and how far the logits are from the validation
//! pictures' in the model's manifest.

use std::{collections::BTreeMap, path::Path};

use serde::Serialize;

use super::row::Known;
use crate::{
    commands::files::is_named_as_picture,
    error::Code,
    judge::{Evidence, Table},
};

/// Pictures of a class below which a distance says nothing.
const FEWEST: u64 = 200;

/// Steps in which the share of generated pictures is tried.
const STEPS: u32 = 100;

/// Counts of rows.
#[derive(Default)]
pub(super) struct Figures<'a> {
    evidence: Option<&'a Evidence>,
    images: u64,
    no_pictures: u64,
    errors: BTreeMap<String, u64>,
    verdicts: BTreeMap<String, u64>,
    classes: BTreeMap<String, BTreeMap<String, u64>>,
    spreads: BTreeMap<(String, usize), Spread<'a>>,
}

/// The figures in JSON.
#[derive(Debug, Serialize)]
pub(super) struct Summary {
    /// Rows.
    pub(super) images: u64,
    pub(super) scored: u64,
    /// Rows of what is no picture, by content and by name: no fault of the run.
    pub(super) no_pictures: u64,
    /// Rows of pictures that could not be scored.
    pub(super) failed: u64,
    /// The same and those that are no pictures, by code.
    pub(super) errors: BTreeMap<String, u64>,
    pub(super) verdicts: BTreeMap<String, u64>,
    /// By class of file.
    pub(super) classes: BTreeMap<String, ClassSummary>,
}

/// A class of file.
#[derive(Debug, Serialize)]
pub(super) struct ClassSummary {
    pub(super) verdicts: BTreeMap<String, u64>,
    /// By number of regions judged, where there are enough pictures.
    pub(super) drift: Vec<Drift>,
}

/// How the logits lie among those of the manifest's validation pictures.
#[derive(Debug, Clone, Serialize, PartialEq)]
pub(super) struct Drift {
    pub(super) regions: usize,
    pub(super) images: u64,
    /// The share of generated pictures with which a mix of the two kinds comes nearest.
    pub(super) generated: f64,
    /// The largest distance from that mix (Kolmogorov-Smirnov): 0 alike, 1 nowhere near.
    pub(super) distance: f64,
}

impl<'a> Figures<'a> {
    pub(super) fn new(evidence: Option<&'a Evidence>) -> Self {
        Self { evidence, ..Self::default() }
    }

    pub(super) fn add(&mut self, row: &Known) {
        self.images += 1;
        if let Some(code) = &row.error {
            let is_image = [Code::EmptyBody, Code::UnsupportedFormat].iter().all(|none| none.as_str() != code);
            self.no_pictures += u64::from(!is_image && !is_named_as_picture(Path::new(&row.path)));
            *self.errors.entry(code.clone()).or_default() += 1;
        }
        let Some(verdict) = &row.verdict else { return };
        *self.verdicts.entry(verdict.clone()).or_default() += 1;
        let Some(name) = &row.class else { return };
        *self.classes.entry(name.clone()).or_default().entry(verdict.clone()).or_default() += 1;
        let class = serde_json::from_value(name.clone().into()).ok();
        let table = class.and_then(|class| self.evidence?.table(class, row.regions));
        if let (Some(table), Some(logit)) = (table, row.logit) {
            self.spreads.entry((name.clone(), row.regions)).or_insert_with(|| Spread::new(table)).add(logit);
        }
    }

    pub(super) fn summary(&self) -> Summary {
        let errors: u64 = self.errors.values().sum();
        let class = |(name, verdicts): (&String, &BTreeMap<String, u64>)| {
            let drift = self.spreads.iter().filter(|((of, _), spread)| of == name && spread.images >= FEWEST);
            let drift = drift.map(|(&(_, regions), spread)| spread.drift(regions)).collect();
            (name.clone(), ClassSummary { verdicts: verdicts.clone(), drift })
        };
        Summary {
            images: self.images,
            scored: self.images - errors,
            no_pictures: self.no_pictures,
            failed: errors - self.no_pictures,
            errors: self.errors.clone(),
            verdicts: self.verdicts.clone(),
            classes: self.classes.iter().map(class).collect(),
        }
    }
}

/// How many logits lie between those of the validation pictures.
struct Spread<'a> {
    table: &'a Table,
    /// The validation pictures' logits, ascending, each once.
    edges: Vec<f64>,
    /// Logits up to each edge and above the one before, and above the last.
    counts: Vec<u64>,
    images: u64,
}

impl<'a> Spread<'a> {
    fn new(table: &'a Table) -> Self {
        let mut edges = [&*table.real, &*table.fake].concat();
        edges.sort_by(f64::total_cmp);
        edges.dedup();
        let counts = vec![0; edges.len() + 1];
        Self { table, edges, counts, images: 0 }
    }

    fn add(&mut self, logit: f64) {
        self.counts[self.edges.partition_point(|&edge| edge < logit)] += 1;
        self.images += 1;
    }

    fn drift(&self, regions: usize) -> Drift {
        let share = |logits: &[f64], edge: f64| {
            logits.partition_point(|&logit| logit <= edge) as f64 / logits.len().max(1) as f64
        };
        let mut below = 0;
        let shares = self.edges.iter().zip(&self.counts).map(|(&edge, &count)| {
            below += count;
            [below as f64 / self.images.max(1) as f64, share(&self.table.real, edge), share(&self.table.fake, edge)]
        });
        let shares: Vec<[f64; 3]> = shares.collect();
        let distance = |generated: f64| {
            let far = |&[here, real, fake]: &[f64; 3]| (here - (1.0 - generated) * real - generated * fake).abs();
            shares.iter().map(far).fold(0.0, f64::max)
        };
        let tried = (0..=STEPS).map(|step| f64::from(step) / f64::from(STEPS)).map(|share| (share, distance(share)));
        let nearest = tried.min_by(|(_, a), (_, b)| a.total_cmp(b)).unwrap_or_default();
        Drift { regions, images: self.images, generated: nearest.0, distance: nearest.1 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drift(logits: impl IntoIterator<Item = f64>) -> Drift {
        let quantiles = |from: f64| (0..100).map(|step| from + f64::from(step) / 10.0).collect::<Vec<_>>();
        let table = Table { a: 1.0, b: 0.0, real: quantiles(-10.0), fake: quantiles(0.0), n_real: 100, n_fake: 100 };
        let mut spread = Spread::new(&table);
        logits.into_iter().for_each(|logit| spread.add(logit));
        spread.drift(1)
    }

    #[test]
    fn a_mix_of_the_validation_pictures_is_near_and_its_share_is_found() {
        let real = (0..300).map(|step| -10.0 + f64::from(step % 100) / 10.0);
        let fake = (0..100).map(|step| f64::from(step) / 10.0);
        let found = drift(real.chain(fake));
        assert!((found.generated - 0.25).abs() < 1e-9 && found.distance < 1e-9, "{found:?}");
        assert_eq!(found.images, 400);
    }

    #[test]
    fn logits_where_neither_kind_has_any_are_far() {
        let found = drift((0..300).map(|_| -0.05));
        assert!(found.distance > 0.4, "{found:?}");
        assert!(drift((0..300).map(|_| 100.0)).distance > 0.9);
    }
}
