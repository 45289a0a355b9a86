//! The model folder that is copied, and what changes in its manifest.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use anyhow::Context;
use serde_json::{Value, json};

use crate::{
    calibrate::{ClassFit, Shot},
    judge::{Class, Evidence, OperatingPoint, sigmoid},
    model::{Manifest, ScoreHistogram, find_folder},
};

/// Bins of the score histogram.
const BINS: usize = 20;

/// Figures of the bundled model's manifest that are of its former evidence.
const FORMER: [&str; 2] = ["classes", "expected_calibration_error"];

/// A model folder.
pub(super) struct Folder {
    place: PathBuf,
    manifest: Manifest,
    /// The manifest's text: what is not known here is copied too.
    text: Value,
}

impl Folder {
    pub(super) fn read(given: Option<&Path>) -> Result<Self, anyhow::Error> {
        let place = find_folder(given)?;
        let manifest = Manifest::read(&place)?;
        let path = place.join("manifest.json");
        let mut text: Value = serde_json::from_slice(&fs::read(&path)?)?;
        if text["format_version"] == 1 {
            // Evidence needs format 2, in which nothing may be folded into the weights. The other rules stay those of format 1:
            // one region.
            let folded = &text["calibration"];
            let none = folded.is_null() || (folded["a"] == 1.0 && folded["b"] == 0.0);
            anyhow::ensure!(
                none,
                "{}: its weights hold a calibration of their own; export the model anew",
                path.display()
            );
            text["format_version"] = 2.into();
            text["regions"] = json!({
                "auto": {"start": 1, "then": 1, "open_below": 0.0},
                "disagree": {"margin": 3.0, "voids": false},
            });
        }
        Ok(Self { place, manifest, text })
    }

    /// The default operating point, if there is evidence.
    pub(super) fn operating_point(&self) -> Option<OperatingPoint> {
        self.manifest.rules.evidence.as_ref().map(|evidence| evidence.operating_point)
    }

    /// Writes the copy; of a failed one nothing stays.
    pub(super) fn write(
        mut self,
        out: &Path,
        evidence: &Evidence,
        classes: &BTreeMap<Class, ClassFit>,
        shots: &[&Shot],
    ) -> Result<(), anyhow::Error> {
        self.text["evidence"] = serde_json::to_value(evidence)?;
        self.text["val_score_histogram"] = serde_json::to_value(histogram(classes, shots))?;
        let figures = &mut self.text["metrics"];
        if !figures.is_object() {
            *figures = json!({});
        }
        if let Some(figures) = figures.as_object_mut() {
            FORMER.iter().for_each(|name| _ = figures.remove(*name));
            figures.insert("calibrated".into(), json!({"classes": classes}));
        }
        fs::create_dir(out).with_context(|| format!("cannot make {}", out.display()))?;
        self.fill(out).inspect_err(|_| {
            let _ = fs::remove_dir_all(out);
        })
    }

    fn fill(&self, out: &Path) -> Result<(), anyhow::Error> {
        for name in self.manifest.file_names() {
            let (from, to) = (self.place.join(name), out.join(name));
            fs::copy(&from, &to).with_context(|| format!("cannot copy {} to {}", from.display(), to.display()))?;
        }
        let path = out.join("manifest.json");
        fs::write(&path, serde_json::to_vec_pretty(&self.text)?)
            .with_context(|| format!("cannot write {}", path.display()))
    }
}

/// How the new calibration scores all pictures: what live traffic is held against.
pub(super) fn histogram(classes: &BTreeMap<Class, ClassFit>, shots: &[&Shot]) -> ScoreHistogram {
    let mut counts = [[0_u32; BINS]; 2];
    for shot in shots {
        let found = &classes[&shot.class];
        let table = &found.table;
        let weights = found.combined.as_ref().map(|combined| &combined.weights[..]);
        let score = sigmoid(table.a * shot.logit_raw(weights) + table.b);
        counts[usize::from(shot.fake)][((score * BINS as f64) as usize).min(BINS - 1)] += 1;
    }
    let edges = (0..=BINS).map(|edge| edge as f64 / BINS as f64).collect();
    let [real, fake] = counts.map(Vec::from);
    ScoreHistogram { edges, real, fake }
}
