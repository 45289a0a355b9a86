//! What is known of a server from its start on.

/// The values of `lfm_build_info`, `lfm_model_info` and `lfm_judge_info`, and the labels that are known from the start.
#[derive(Debug, Clone)]
pub struct Identity<'a> {
    /// The models that are served, by number.
    pub models: Vec<ModelIdentity<'a>>,
    /// What judges where they are combined.
    pub combination: Option<ModelIdentity<'a>>,
    /// Version of ONNX Runtime.
    pub ort_version: &'a str,
    /// Every execution provider.
    pub providers: Vec<&'static str>,
    /// Every verdict.
    pub verdicts: Vec<&'static str>,
    /// Every warning.
    pub warnings: Vec<&'static str>,
    /// Every class of file.
    pub classes: Vec<&'static str>,
    /// Every source and every kind of declared claims.
    pub declared: [Vec<&'static str>; 2],
}

/// What is known of a model.
#[derive(Debug, Clone)]
pub struct ModelIdentity<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its version.
    pub version: &'a str,
    /// Digest of its weights.
    pub digest: &'a str,
    /// Digest of the rules and settings that turn its logits into verdicts.
    pub rules: &'a str,
    /// How its logits become verdicts: the labels of `lfm_judge_info`, which the settings alone decide.
    pub judging: [(&'static str, String); 4],
    /// Its scores on validation images, if it has any.
    pub reference: Option<ScoreReference<'a>>,
}

/// Images by score, real and fake ones apart.
#[derive(Debug, Clone, Copy)]
pub struct ScoreReference<'a> {
    /// Bounds of the bins, ascending.
    pub edges: &'a [f64],
    /// Real images in each bin.
    pub real: &'a [u32],
    /// Fake images in each bin.
    pub fake: &'a [u32],
}
