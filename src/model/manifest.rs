//! `manifest.json`: the description of a model folder. `models/README.md` documents every field.

use std::{
    collections::BTreeMap,
    fs,
    io::{self, Read},
    path::{Path, PathBuf},
};

use serde::Deserialize;
use sha2::{Digest, Sha256};

use super::{histogram::ScoreHistogram, input::Input};
use crate::{
    image::{Preprocessing, Recipe},
    judge::{Evidence, RegionRules, Rules, Warning},
};

/// Supported values of `format_version`: 1 and 2 are LFM's, 3 is for any other detector.
const FORMAT_VERSIONS: [u32; 3] = [1, 2, FOREIGN];

/// The format of a folder that `import-onnx` writes.
pub const FOREIGN: u32 = 3;

/// Longest name, version or licence class, in bytes: they are labels of metrics.
pub(super) const LONGEST_NAME: usize = 256;

/// Size limits of a manifest, and of a file that it lists: ours have 20 KB and 4 MB.
pub(super) const LARGEST_MANIFEST: u64 = 4 << 20;
const LARGEST_FILE: u64 = 1 << 30;

/// Limit of the files that a manifest lists.
const MOST_FILES: usize = 256;

/// The graph with `lfm:TopKPooling`.
pub const GRAPH: &str = "lfm.onnx";

/// The same with `lfm:ResidueConv` and `lfm:WinogradConv`, for CPUs. Older folders do not have it.
pub const CPU_GRAPH: &str = "lfm.cpu.onnx";

/// The same with the standard TopK: the interchange file.
pub const STANDARD_GRAPH: &str = "lfm.std.onnx";

/// The one graph of a folder of format 3: `pixels` in, `logit` out.
pub const FOREIGN_GRAPH: &str = "model.onnx";

/// A model folder's validated manifest.
#[derive(Debug, Clone)]
pub struct Manifest {
    /// Name of the model.
    pub name: String,
    /// Version of the model.
    pub version: String,
    /// `sha256:` and the digest of the weights: the same for all graphs of one set of weights.
    pub digest: String,
    pub(super) files: BTreeMap<String, FileEntry>,
    /// Top-K values taken from each of the 64 maps; 0 in a graph that has no Top-K places.
    pub k: usize,
    /// How an image becomes the network's input.
    pub preprocessing: Preprocessing,
    /// How logits become a verdict.
    pub rules: Rules,
    /// Scores of the validation images, the reference for drift. An imported model has none.
    pub val_score_histogram: Option<ScoreHistogram>,
    /// Use that the licences of the training data allow.
    pub licence_class: String,
    /// The model's quality as measured at export.
    pub metrics: serde_json::Value,
}

/// The file's fields, unchecked.
#[derive(Deserialize)]
struct Fields {
    format_version: u32,
    name: String,
    version: String,
    digest: String,
    files: BTreeMap<String, FileEntry>,
    #[serde(default)]
    k: usize,
    #[serde(default)]
    preprocessing: Option<Method>,
    #[serde(default)]
    input: Option<Input>,
    threshold: f64,
    band: Option<[f64; 2]>,
    voiding: Vec<Warning>,
    #[serde(default)]
    lossy_below_quality: Option<u8>,
    #[serde(default)]
    calibration: Option<Folded>,
    #[serde(default)]
    regions: Option<RegionRules>,
    #[serde(default)]
    evidence: Option<Evidence>,
    #[serde(default)]
    val_score_histogram: Option<ScoreHistogram>,
    licence_class: String,
    #[serde(default)]
    metrics: serde_json::Value,
}

/// A calibration that the export folded into the weights.
#[derive(Deserialize)]
struct Folded {
    a: f64,
    b: f64,
}

/// Whether a name is a plain file name, without a path.
fn is_file_name(name: &str) -> bool {
    Path::new(name).file_name().is_some_and(|file| file == name)
}

/// Whether it is `sha256:` and a digest.
pub(super) fn is_digest(text: &str) -> bool {
    let hex = text.strip_prefix("sha256:").unwrap_or_default();
    hex.len() == 64 && hex.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// The field that determines how the others are read.
pub(super) fn format_version(text: &[u8]) -> Result<u32, String> {
    #[derive(Deserialize)]
    struct Version {
        format_version: u32,
    }
    let version: Version = serde_json::from_slice(text).map_err(|error| error.to_string())?;
    Ok(version.format_version)
}

/// Reads a file of at most `most` bytes.
pub(super) fn read_limited(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    // Checked before opening: opening a pipe would wait for its writer.
    if !fs::metadata(path)?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
    }
    let mut bytes = Vec::new();
    fs::File::open(path)?.take(most + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > most {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("it is larger than {most} bytes")));
    }
    Ok(bytes)
}

#[derive(Debug, Clone, Deserialize)]
pub(super) struct FileEntry {
    sha256: String,
}

/// LFM's `preprocessing`. `image/` does not depend on serde, so its types are parsed here.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Method {
    Resize,
    Crop,
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
    /// The manifest is invalid.
    #[error("{path} is not a model manifest: {reason}")]
    Invalid {
        /// Which.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// A combination's file is invalid.
    #[error("{path} is no combination of models: {reason}")]
    NoCombination {
        /// Which.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// A file's hash differs from the manifest's.
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
    /// If it cannot be read or is invalid.
    pub fn read(folder: &Path) -> Result<Self, ManifestError> {
        let path = folder.join("manifest.json");
        let text = read_limited(&path, LARGEST_MANIFEST)
            .map_err(|source| ManifestError::Read { path: path.clone(), source })?;
        let invalid = |reason: String| ManifestError::Invalid { path: path.clone(), reason };
        Self::parse(&text).map_err(invalid)
    }

    fn parse(text: &[u8]) -> Result<Self, String> {
        let format_version = format_version(text)?;
        if !FORMAT_VERSIONS.contains(&format_version) {
            return Err(format!("format_version is {format_version}, this program reads {FORMAT_VERSIONS:?}"));
        }
        let fields: Fields = serde_json::from_slice(text).map_err(|error| error.to_string())?;
        fields.check()?;
        let preprocessing = fields.preprocessing()?;
        let rules = Rules {
            threshold: fields.threshold,
            band: fields.band,
            voiding: fields.voiding,
            lossy_below_quality: fields.lossy_below_quality,
            regions: fields.regions,
            evidence: fields.evidence,
            weights: None,
        };
        rules.check()?;
        Ok(Self {
            name: fields.name,
            version: fields.version,
            digest: fields.digest,
            files: fields.files,
            k: fields.k,
            preprocessing,
            rules,
            val_score_histogram: fields.val_score_histogram,
            licence_class: fields.licence_class,
            metrics: fields.metrics,
        })
    }

    /// Reads one of the folder's files and checks it against the manifest's hash.
    ///
    /// # Errors
    /// If the manifest does not list it, it cannot be read, or its hash differs.
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

    /// Whether the graph gives the Top-K places that an explanation is computed from.
    pub fn explains(&self) -> bool {
        self.k > 0
    }

    /// Whether the manifest lists this file.
    pub fn lists(&self, name: &str) -> bool {
        self.files.contains_key(name)
    }

    /// Names of the files that the manifest lists.
    pub fn file_names(&self) -> impl Iterator<Item = &str> {
        self.files.keys().map(String::as_str)
    }
}

impl Fields {
    fn check(&self) -> Result<(), String> {
        let texts = [("name", &self.name), ("version", &self.version), ("licence_class", &self.licence_class)];
        if let Some((field, text)) = texts.into_iter().find(|(_, text)| text.len() > LONGEST_NAME) {
            return Err(format!("{field} has {} bytes, more than {LONGEST_NAME}", text.len()));
        }
        if !is_digest(&self.digest) {
            return Err("digest is not sha256: and 64 hexadecimal digits".into());
        }
        if self.files.len() > MOST_FILES || self.files.keys().any(|name| !is_file_name(name)) {
            return Err(format!("files lists more than {MOST_FILES} files, or one that is outside the folder"));
        }
        let graph = if self.format_version == FOREIGN { FOREIGN_GRAPH } else { GRAPH };
        if !self.files.contains_key(graph) {
            return Err(format!("files does not list {graph}"));
        }
        match (self.format_version, &self.regions, &self.evidence) {
            (1, None, None) | (2, Some(_), Some(_)) | (FOREIGN, ..) => {}
            (1, ..) => return Err("format 1 has neither regions nor evidence".into()),
            (..) => return Err("format 2 needs regions and evidence".into()),
        }
        // The service calibrates per class of file: a calibration folded into the weights would apply twice.
        let folded = self.calibration.as_ref().is_some_and(|folded| (folded.a, folded.b) != (1.0, 0.0));
        if self.format_version >= 2 && folded {
            return Err("format 2 folds no calibration into the weights: calibration is a = 1, b = 0".into());
        }
        self.val_score_histogram.as_ref().map_or(Ok(()), ScoreHistogram::check)
    }

    /// LFM's formats say `preprocessing` and `k`, format 3 says `input`.
    fn preprocessing(&self) -> Result<Preprocessing, String> {
        match (self.format_version, self.k, self.preprocessing, self.input) {
            (1 | 2, 1.., Some(Method::Resize), None) => Ok(Preprocessing::Resize),
            (1 | 2, 1.., Some(Method::Crop), None) => Ok(Preprocessing::Crop),
            (1 | 2, ..) => Err(format!("format {} needs k and preprocessing, and has no input", self.format_version)),
            (_, 0, None, Some(input)) => {
                let recipe = Recipe::from(input);
                recipe.check().map_err(|reason| format!("input: {reason}"))?;
                Ok(Preprocessing::Recipe(recipe))
            }
            (..) => Err("format 3 needs input, and has neither k nor preprocessing".into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::image::{Filter, Scale};

    type Change<'a> = &'a dyn Fn(&mut Value);

    fn manifest(change: impl FnOnce(&mut Value)) -> Result<Manifest, String> {
        let table = json!({"a": 1.5, "b": -0.5, "real": [-3.0, 0.5], "fake": [0.0, 4.0], "n_real": 2, "n_fake": 300});
        let classes = crate::judge::Class::ALL.map(|class| (class.as_str(), json!({"regions": {"1": table}})));
        let mut value = json!({
            "format_version": 2, "name": "m", "version": "1", "digest": format!("sha256:{}", "0".repeat(64)),
            "files": {GRAPH: {"sha256": ""}}, "k": 16, "preprocessing": "crop", "threshold": 0.5, "band": null,
            "voiding": ["no_signal"], "licence_class": "research-only", "calibration": {"a": 1.0, "b": 0.0},
            "regions": {"auto": {"start": 1, "then": 5, "open_below": 2.0}, "disagree": {"margin": 3.0, "voids": true}},
            "evidence": {
                "operating_point": {"false_alarms": 0.05, "misses": 0.1}, "classes": classes.into_iter().collect::<Value>(),
            },
        });
        change(&mut value);
        Manifest::parse(value.to_string().as_bytes())
    }

    #[test]
    fn a_manifest_of_format_2_is_read() {
        let read = manifest(|_| ()).expect("valid");
        let evidence = read.rules.evidence.expect("evidence");
        let table = evidence.table(crate::judge::Class::Small, 9).expect("the next smaller");
        assert_eq!((table.a, table.n_fake), (1.5, 300));
        assert_eq!(read.rules.regions.expect("regions").auto.then, 5);
    }

    #[test]
    fn invalid_fields_are_refused_by_name() {
        let table = |value: &mut Value, field: &str, with: Value| {
            value["evidence"]["classes"]["jpeg_95"]["regions"]["1"][field] = with;
        };
        let cases: [(&str, Change<'_>); 21] = [
            ("format_version is 4", &|v| v["format_version"] = json!(4)),
            ("files does not list model.onnx", &|v| v["format_version"] = json!(3)),
            ("needs k and preprocessing", &|v| v["k"] = json!(0)),
            ("format 1 has neither", &|v| v["format_version"] = json!(1)),
            ("needs regions and evidence", &|v| v["evidence"] = Value::Null),
            ("folds no calibration", &|v| v["calibration"]["a"] = json!(2.0)),
            ("jpeg_95.regions.1: a = -1", &|v| table(v, "a", json!(-1.0))),
            ("real is not ascending", &|v| table(v, "real", json!([1.0, 0.0]))),
            ("fake holds 0 logits", &|v| table(v, "fake", json!([]))),
            ("fake holds 257 logits", &|v| table(v, "fake", json!(vec![0.0; 257]))),
            ("n_real is 1", &|v| table(v, "n_real", json!(1))),
            ("unknown field `c`", &|v| table(v, "c", json!(1))),
            ("lacks webp_lossy", &|v| {
                v["evidence"]["classes"].as_object_mut().expect("classes").remove("webp_lossy");
            }),
            ("unknown variant `jpeg`", &|v| v["evidence"]["classes"]["jpeg"] = json!({"regions": {}})),
            ("small.regions lacks 1", &|v| v["evidence"]["classes"]["small"]["regions"] = json!({})),
            ("is for none of", &|v| {
                let regions = &mut v["evidence"]["classes"]["small"]["regions"];
                regions["4"] = regions["1"].clone();
            }),
            ("operating_point", &|v| v["evidence"]["operating_point"]["misses"] = json!(1.5)),
            ("regions.auto begins with 9", &|v| v["regions"]["auto"]["start"] = json!(9)),
            ("regions.disagree.margin is -1", &|v| v["regions"]["disagree"]["margin"] = json!(-1)),
            ("val_score_histogram counts", &|v| {
                v["val_score_histogram"] = json!({"edges": [0, 1], "real": [u32::MAX], "fake": [0]});
            }),
            ("digest is not", &|v| v["digest"] = json!("md5:1")),
        ];
        for (reason, change) in cases {
            let found = manifest(|value| change(value)).expect_err(reason);
            assert!(found.contains(reason), "{found:?} does not contain {reason:?}");
        }
    }

    fn foreign(change: impl FnOnce(&mut Value)) -> Result<Manifest, String> {
        let mut value = json!({
            "format_version": 3, "name": "vit", "version": "1", "digest": format!("sha256:{}", "0".repeat(64)),
            "files": {FOREIGN_GRAPH: {"sha256": ""}}, "threshold": 0.5, "band": null, "voiding": [],
            "licence_class": "unknown",
            "input": {"width": 384, "height": 224, "resize": {"shorter": 400}, "filter": "bicubic"},
        });
        change(&mut value);
        Manifest::parse(value.to_string().as_bytes())
    }

    #[test]
    fn a_manifest_of_format_3_describes_another_network() {
        let read = foreign(|_| ()).expect("valid");
        let recipe = Recipe { width: 384, height: 224, scale: Scale::Shorter(400), filter: Filter::Bicubic };
        assert_eq!(read.preprocessing, Preprocessing::Recipe(recipe));
        assert!(!read.explains());
        let again = serde_json::to_value(Input::from(recipe)).expect("JSON");
        assert_eq!(again, json!({"width": 384, "height": 224, "resize": {"shorter": 400}, "filter": "bicubic"}));
        let cases: [(&str, Change<'_>); 5] = [
            ("has neither k", &|v| v["k"] = json!(16)),
            ("has neither k", &|v| v["input"] = Value::Null),
            ("less than the input", &|v| v["input"]["resize"] = json!({"both": [383, 224]})),
            ("unknown variant", &|v| v["input"]["filter"] = json!("lanczos")),
            ("unknown field", &|v| v["input"]["mean"] = json!(0.5)),
        ];
        for (reason, change) in cases {
            let found = foreign(|value| change(value)).expect_err(reason);
            assert!(found.contains(reason), "{found:?} does not contain {reason:?}");
        }
    }

    #[test]
    fn a_huge_manifest_is_not_read() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("manifest.json");
        fs::File::create(&path).and_then(|file| file.set_len(1 << 40)).expect("a sparse file");
        let refused = Manifest::read(folder.path()).expect_err("too large").to_string();
        assert!(refused.contains("larger than 4194304 bytes"), "{refused}");
    }
}
