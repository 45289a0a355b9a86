//! The combination of several models, as `serve --combine` reads it.

use std::{collections::BTreeMap, fs, path::Path};

use anyhow::Context;
use serde_json::json;

use super::folder::histogram;
use crate::{
    calibrate::{ClassFit, Shot},
    config::ModelConfig,
    judge::{Class, Evidence, MOST_COMBINED, OperatingPoint, Rules, Warning, Weights},
    model::{Combination, CombinedModel, Manifest, find_folder},
};

/// The models that are combined.
pub(super) struct Combining(Vec<Manifest>);

impl Combining {
    pub(super) fn read(models: &[ModelConfig]) -> Result<Self, anyhow::Error> {
        anyhow::ensure!(models.len() <= MOST_COMBINED, "at most {MOST_COMBINED} models are combined");
        let read = |model: &ModelConfig| Ok(Manifest::read(&find_folder(model.model.as_deref())?)?);
        let models = models.iter().map(read).collect::<Result<Vec<_>, anyhow::Error>>()?;
        let twice = models.iter().enumerate().find(|(at, model)| models[..*at].iter().any(|m| m.name == model.name));
        if let Some((_, Manifest { name, .. })) = twice {
            anyhow::bail!("two models are called {name}: their names tell them apart, so they must differ");
        }
        Ok(Self(models))
    }

    pub(super) fn names(&self) -> Vec<String> {
        self.0.iter().map(|model| model.name.clone()).collect()
    }

    /// Of the first model that has evidence.
    pub(super) fn operating_point(&self) -> Option<OperatingPoint> {
        self.0.iter().find_map(|model| Some(model.rules.evidence.as_ref()?.operating_point))
    }

    /// Writes the file; of a failed one nothing stays.
    pub(super) fn write(
        &self,
        out: &Path,
        evidence: Evidence,
        classes: &BTreeMap<Class, ClassFit>,
        shots: &[&Shot],
    ) -> Result<(), anyhow::Error> {
        let models = self.0.iter().map(CombinedModel::of).collect();
        let (rules, histogram) = (self.rules(evidence, classes), histogram(classes, shots));
        let combination = Combination::new(models, rules, histogram, json!({"calibrated": {"classes": classes}}));
        fs::write(out, serde_json::to_vec_pretty(&combination)?)
            .inspect_err(|_| _ = fs::remove_file(out))
            .with_context(|| format!("cannot write {}", out.display()))
    }

    /// What voids a model's logit voids the sum of them. Regions are the first model's.
    fn rules(&self, evidence: Evidence, classes: &BTreeMap<Class, ClassFit>) -> Rules {
        let voids = |warning: &Warning| self.0.iter().any(|model| model.rules.voiding.contains(warning));
        let weights = |(class, found): (&Class, &ClassFit)| {
            let fitted = found.combined.as_ref().filter(|_| found.undecided.is_none());
            (*class, fitted.map_or_else(|| vec![0.0; self.0.len()], |combined| combined.weights.clone()))
        };
        Rules {
            threshold: 0.5,
            band: None,
            voiding: Warning::ALL.into_iter().filter(voids).collect(),
            lossy_below_quality: self.0.iter().filter_map(|model| model.rules.lossy_below_quality).max(),
            regions: self.0.first().and_then(|first| first.rules.regions),
            evidence: Some(evidence),
            weights: Some(Weights(classes.iter().map(weights).collect())),
        }
    }
}
