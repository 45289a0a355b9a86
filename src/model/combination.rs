//! The file by which several models judge together: their names and digests, the weights of their logits, the evidence.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{
    histogram::ScoreHistogram,
    manifest::{LARGEST_MANIFEST, LONGEST_NAME, Manifest, ManifestError, format_version, is_digest, read_limited},
};
use crate::judge::{MOST_COMBINED, Rules, Weights};

/// The supported value of `format_version`.
const FORMAT_VERSION: u32 = 1;

/// A combination, as its file has it.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Combination {
    format_version: u32,
    /// Its name, as a model has one.
    pub name: String,
    /// Its version.
    pub version: String,
    /// The models, in the order of the weights.
    pub models: Vec<CombinedModel>,
    /// Weights, evidence and all other rules; `a` of the evidence is 1 where the class has a signal, `b` the bias.
    pub rules: Rules,
    /// Scores of the pictures that it was made from.
    pub val_score_histogram: Option<ScoreHistogram>,
    /// How good it was on them.
    #[serde(default)]
    pub metrics: serde_json::Value,
    /// `sha256:` and the digest of the file.
    #[serde(skip)]
    digest: String,
}

/// A model of a combination.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CombinedModel {
    /// The manifest's name.
    pub name: String,
    /// Digest of its weights.
    pub digest: String,
    /// How a picture becomes its input, in words: an imported model's digest does not tell.
    pub preprocessing: String,
}

impl CombinedModel {
    /// The entry of a model.
    pub fn of(manifest: &Manifest) -> Self {
        let Manifest { name, digest, preprocessing, .. } = manifest;
        Self { name: name.clone(), digest: digest.clone(), preprocessing: preprocessing.to_string() }
    }

    /// # Errors
    /// In what the model of this name differs from the one that was combined.
    fn check(&self, manifest: &Manifest) -> Result<(), String> {
        let Self { name, digest, preprocessing } = self;
        if manifest.digest != *digest {
            return Err(format!("it was made with {name} of digest {digest}, the model given has {}", manifest.digest));
        }
        let given = manifest.preprocessing.to_string();
        if given != *preprocessing {
            return Err(format!("it was made with {name} on pictures {preprocessing}; the model given has {given}"));
        }
        Ok(())
    }
}

impl Combination {
    /// A new one.
    pub fn new(
        models: Vec<CombinedModel>,
        rules: Rules,
        histogram: ScoreHistogram,
        metrics: serde_json::Value,
    ) -> Self {
        let names: Vec<_> = models.iter().map(|model| model.name.as_str()).collect();
        Self {
            format_version: FORMAT_VERSION,
            name: names.join("+"),
            version: "1".into(),
            models,
            rules,
            val_score_histogram: Some(histogram),
            metrics,
            digest: String::new(),
        }
    }

    /// Reads and checks a combination's file.
    ///
    /// # Errors
    /// If it cannot be read or is invalid.
    pub fn read(path: &Path) -> Result<Self, ManifestError> {
        let text = read_limited(path, LARGEST_MANIFEST)
            .map_err(|source| ManifestError::Read { path: path.to_path_buf(), source })?;
        Self::parse(&text).map_err(|reason| ManifestError::NoCombination { path: path.to_path_buf(), reason })
    }

    fn parse(text: &[u8]) -> Result<Self, String> {
        let format_version = format_version(text)?;
        if format_version != FORMAT_VERSION {
            return Err(format!("format_version is {format_version}, this program reads {FORMAT_VERSION}"));
        }
        let read: Self = serde_json::from_slice(text).map_err(|error| error.to_string())?;
        read.check()?;
        Ok(Self { digest: format!("sha256:{}", crate::hex(&Sha256::digest(text))), ..read })
    }

    fn check(&self) -> Result<(), String> {
        let models = self.models.len();
        if !(2..=MOST_COMBINED).contains(&models) {
            return Err(format!("models lists {models}, not 2 to {MOST_COMBINED}"));
        }
        if [&self.name, &self.version].iter().any(|text| text.len() > LONGEST_NAME) {
            return Err(format!("name or version has more than {LONGEST_NAME} bytes"));
        }
        for (at, model) in self.models.iter().enumerate() {
            if !is_digest(&model.digest) {
                return Err(format!("the digest of {} is not sha256: and 64 hexadecimal digits", model.name));
            }
            if self.models[..at].iter().any(|earlier| earlier.name == model.name) {
                return Err(format!("models lists {} twice", model.name));
            }
        }
        self.rules.check()?;
        if self.rules.evidence.is_none() {
            return Err("rules.evidence is missing".into());
        }
        self.rules.weights.as_ref().unwrap_or(&Weights(BTreeMap::new())).check(models)?;
        self.val_score_histogram.as_ref().map_or(Ok(()), ScoreHistogram::check)
    }

    /// The place of each of its models among `given`.
    ///
    /// # Errors
    /// Which model is missing, is another one, or has no part.
    pub fn places(&self, given: &[&Manifest]) -> Result<Vec<usize>, String> {
        let place = |model: &CombinedModel| {
            let place = given.iter().position(|manifest| manifest.name == model.name);
            let place = place.ok_or_else(|| format!("no --model is called {}", model.name))?;
            model.check(given[place]).map(|()| place)
        };
        let places = self.models.iter().map(place).collect::<Result<Vec<_>, _>>()?;
        match (0..given.len()).find(|number| !places.contains(number)) {
            Some(idle) => Err(format!("the model {} has no part in it", given[idle].name)),
            None => Ok(places),
        }
    }

    /// The manifest that it is served under beside those of its models, given in its order: without files, and without
    /// places to explain. Pictures are shown as the first one sees them.
    pub fn manifest(&self, models: &[&Manifest]) -> Manifest {
        let licences: BTreeSet<_> = models.iter().map(|model| model.licence_class.as_str()).collect();
        Manifest {
            name: self.name.clone(),
            version: self.version.clone(),
            digest: self.digest.clone(),
            files: BTreeMap::new(),
            k: 0,
            preprocessing: models.first().map(|first| first.preprocessing).unwrap_or_default(),
            rules: self.rules.clone(),
            val_score_histogram: self.val_score_histogram.clone(),
            licence_class: licences.into_iter().collect::<Vec<_>>().join(", "),
            metrics: self.metrics.clone(),
        }
    }
}
