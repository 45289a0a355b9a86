//! `manifest.json`: what a model folder says of itself. `models/README.md` describes every field.

use std::{
    collections::BTreeMap,
    fs,
    io::{self, Read},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Deserializer};
use sha2::{Digest, Sha256};

use crate::{image::Preprocessing, judge::Rules};

/// The version of the manifest's own shape that this program reads.
const FORMAT_VERSION: u32 = 1;

/// Bytes of a manifest, and of a file that it lists: ours have 20 KB and 4 MB.
const LARGEST_MANIFEST: u64 = 4 << 20;
const LARGEST_FILE: u64 = 1 << 30;

/// Files that a manifest lists.
const MOST_FILES: usize = 256;

/// Bytes of a name or a version, which stand in metrics, answers and the log.
const LONGEST_TEXT: usize = 200;

/// Bins of the score histogram, and images in it.
const MOST_BINS: usize = 1000;
const MOST_IMAGES: u64 = 10_000_000;

/// The graph with `lfm:TopKPooling`.
pub const GRAPH: &str = "lfm.onnx";

/// The same with `lfm:ResidueConv` and `lfm:WinogradConv`, for CPUs. A folder written before they were there has none.
pub const CPU_GRAPH: &str = "lfm.cpu.onnx";

/// The same with the standard TopK: the interchange file.
pub const STANDARD_GRAPH: &str = "lfm.std.onnx";

/// A model folder's description, checked.
#[derive(Debug, Clone, Deserialize)]
pub struct Manifest {
    format_version: u32,
    /// Name of the model.
    pub name: String,
    /// Version of the model.
    pub version: String,
    /// `sha256:` and the digest of the weights: the same for all graphs of one set of weights.
    pub digest: String,
    files: BTreeMap<String, FileEntry>,
    /// Values taken from each of the 64 maps.
    pub k: usize,
    /// How an image becomes 256x256.
    #[serde(deserialize_with = "preprocessing")]
    pub preprocessing: Preprocessing,
    /// How a logit becomes a verdict.
    #[serde(flatten)]
    pub rules: Rules,
    /// How the model scored its validation images: what drift is measured against. An imported model has none.
    #[serde(default)]
    pub val_score_histogram: Option<ScoreHistogram>,
    /// What the licences of the training data allow.
    pub licence_class: String,
}

/// Images by score, real and fake ones apart.
#[derive(Debug, Clone, Deserialize)]
pub struct ScoreHistogram {
    /// Bounds of the bins, ascending.
    pub edges: Vec<f64>,
    /// Real images in each bin.
    pub real: Vec<u32>,
    /// Fake images in each bin.
    pub fake: Vec<u32>,
}

impl ScoreHistogram {
    fn check(&self) -> Result<(), String> {
        let Self { edges, real, fake } = self;
        let ascending = edges.windows(2).all(|pair| pair[0] < pair[1]) && edges.iter().all(|edge| edge.is_finite());
        if !ascending || edges.len() > MOST_BINS || [real, fake].iter().any(|counts| counts.len() + 1 != edges.len()) {
            return Err("val_score_histogram: edges ascend, and each bin between two has a count".into());
        }
        // Each image is put into the metric by itself.
        let images: u64 = real.iter().chain(fake).map(|&count| u64::from(count)).sum();
        if images > MOST_IMAGES {
            return Err(format!("val_score_histogram counts {images} images, more than {MOST_IMAGES}"));
        }
        Ok(())
    }
}

/// Whether a name is one of a file in the folder itself.
fn is_file_name(name: &str) -> bool {
    Path::new(name).file_name().is_some_and(|file| file == name)
}

/// Reads a file of at most `most` bytes.
fn read_limited(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    // Asked before opening: opening a pipe would wait for its writer.
    if !fs::metadata(path)?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no file"));
    }
    let mut bytes = Vec::new();
    fs::File::open(path)?.take(most + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > most {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("it is larger than {most} bytes")));
    }
    Ok(bytes)
}

#[derive(Debug, Clone, Deserialize)]
struct FileEntry {
    sha256: String,
}

/// `image/` is pure and knows no serde, so its enum is read here.
fn preprocessing<'de, D: Deserializer<'de>>(value: D) -> Result<Preprocessing, D::Error> {
    #[derive(Deserialize)]
    #[serde(rename_all = "lowercase")]
    enum Name {
        Resize,
        Crop,
    }
    Ok(match Name::deserialize(value)? {
        Name::Resize => Preprocessing::Resize,
        Name::Crop => Preprocessing::Crop,
    })
}

/// Why a model folder cannot be used: one line, for the operator.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// A file cannot be read.
    #[error("cannot read {path}: {source}")]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The manifest is no manifest.
    #[error("{path} is not a model manifest: {reason}")]
    Invalid {
        /// Which.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// A file is not the one that the manifest was written for.
    #[error("{path} does not match its manifest: sha256 is {found}, the manifest says {expected}")]
    Tampered {
        /// Which.
        path: PathBuf,
        /// The file's hash.
        found: String,
        /// The manifest's.
        expected: String,
    },
}

impl Manifest {
    /// Reads and checks `folder/manifest.json`.
    ///
    /// # Errors
    /// If it cannot be read or does not hold what this program needs.
    pub fn read(folder: &Path) -> Result<Self, ManifestError> {
        let path = folder.join("manifest.json");
        let text = read_limited(&path, LARGEST_MANIFEST)
            .map_err(|source| ManifestError::Read { path: path.clone(), source })?;
        let invalid = |reason: String| ManifestError::Invalid { path: path.clone(), reason };
        let manifest: Self = serde_json::from_slice(&text).map_err(|error| invalid(error.to_string()))?;
        manifest.check().map_err(invalid)?;
        Ok(manifest)
    }

    fn check(&self) -> Result<(), String> {
        if self.format_version != FORMAT_VERSION {
            return Err(format!("format_version is {}, this program reads {FORMAT_VERSION}", self.format_version));
        }
        self.rules.check()?;
        if [&self.name, &self.version, &self.digest, &self.licence_class].iter().any(|text| text.len() > LONGEST_TEXT) {
            return Err(format!("a text in it is longer than {LONGEST_TEXT} bytes"));
        }
        if self.files.len() > MOST_FILES || self.files.keys().any(|name| !is_file_name(name)) {
            return Err(format!("files lists more than {MOST_FILES} files, or one that is outside the folder"));
        }
        if let Some(histogram) = &self.val_score_histogram {
            histogram.check()?;
        }
        if !self.lists(GRAPH) {
            return Err(format!("files does not list {GRAPH}"));
        }
        Ok(())
    }

    /// Reads one of the folder's files and holds it against the manifest's hash.
    ///
    /// # Errors
    /// If the manifest does not list it, it cannot be read, or it is another one.
    pub fn read_file(&self, folder: &Path, name: &str) -> Result<Vec<u8>, ManifestError> {
        let path = folder.join(name);
        let entry = self.files.get(name).ok_or_else(|| ManifestError::Invalid {
            path: folder.join("manifest.json"),
            reason: format!("files does not list {name}"),
        })?;
        let bytes =
            read_limited(&path, LARGEST_FILE).map_err(|source| ManifestError::Read { path: path.clone(), source })?;
        let found = crate::hex(&Sha256::digest(&bytes));
        if found != entry.sha256 {
            return Err(ManifestError::Tampered { path, found, expected: entry.sha256.clone() });
        }
        Ok(bytes)
    }

    /// Whether the folder has this file.
    pub fn lists(&self, name: &str) -> bool {
        self.files.contains_key(name)
    }

    /// Names of the files that the manifest lists.
    pub fn file_names(&self) -> impl Iterator<Item = &str> {
        self.files.keys().map(String::as_str)
    }
}
