//! The model folder: its files, its graphs, and whether the graphs agree.

use super::{golden, report::Finding};
use crate::{
    app,
    config::{ModelConfig, ServeConfig},
    image::Pixels,
    judge::Class,
    model::{CPU_GRAPH, FOREIGN_GRAPH, GRAPH, GraphProbe, Manifest, Output, STANDARD_GRAPH, find_folder},
};

/// Graphs that a folder may have beside [`GRAPH`], and their tolerance in logits and Top-K values: they differ by the
/// order of some sums, or by the rounding of Winograd's transforms.
const OTHERS: [(&str, f32); 2] = [(STANDARD_GRAPH, 1e-5), (CPU_GRAPH, 5e-4)];

/// Difference of a logit in a batch and alone above which a graph mixes images. Sums in another order differ by less.
const MOST_APART: f32 = 1e-3;

/// The manifest, and the hash of every file that it lists.
pub(super) fn manifest(config: &ModelConfig) -> Result<Finding, anyhow::Error> {
    let folder = find_folder(config.model.as_deref())?;
    let manifest = Manifest::read(&folder)?;
    let mut names = Vec::new();
    for name in manifest.file_names() {
        manifest.read_file(&folder, name)?;
        names.push(name);
    }
    let Manifest { name, version, digest, licence_class, .. } = &manifest;
    let detail = format!(
        "{name} version {version} in {}, {digest}, licence class {licence_class}; sha256 as listed: {}",
        folder.display(),
        names.join(", ")
    );
    if names.contains(&STANDARD_GRAPH) || !manifest.explains() {
        return Ok(Finding::ok(detail));
    }
    Ok(Finding::warn(format!("{detail}; there is no {STANDARD_GRAPH} to compare with")))
}

/// Which of several models judges which class of file, or that all judge together.
pub(super) fn routes(config: &ServeConfig) -> Result<Finding, anyhow::Error> {
    let manifest = |model: &ModelConfig| Ok(Manifest::read(&find_folder(model.model.as_deref())?)?.into());
    let manifests = config.models().iter().map(manifest).collect::<Result<Vec<_>, anyhow::Error>>()?;
    let models = app::configured(manifests, config)?;
    if models.combination().is_some() {
        let names: Vec<_> = models.listed().map(|(_, served)| served.manifest.name.as_str()).collect();
        return Ok(Finding::ok(format!("{} judge every class together", names.join(" and "))));
    }
    let judges = models.all().iter().enumerate().map(|(number, served)| {
        let classes: Vec<_> = models.classes_of(number).into_iter().map(Class::as_str).collect();
        format!("{} judges {}", served.manifest.name, classes.join(", "))
    });
    Ok(Finding::ok(judges.collect::<Vec<_>>().join("; ")))
}

/// The folder's graphs, each in a session.
struct Graphs {
    /// [`GRAPH`].
    ours: GraphProbe,
    /// The others that the manifest lists.
    others: Vec<Other>,
}

struct Other {
    name: &'static str,
    graph: GraphProbe,
    tolerance: f32,
    /// Largest difference from ours.
    worst: f32,
}

impl Graphs {
    /// Builds the sessions.
    fn start(config: &ModelConfig, manifest: &Manifest) -> Result<Self, anyhow::Error> {
        let start = |name| {
            let graph = GraphProbe::start(config, name)?;
            let digest = graph.digest().unwrap_or_else(|| "none".into());
            let expected = &manifest.digest;
            anyhow::ensure!(digest == *expected, "{name} is of other weights: its digest is {digest}, not {expected}");
            Ok(graph)
        };
        let ours = start(GRAPH)?;
        let listed = OTHERS.into_iter().filter(|(name, _)| manifest.lists(name));
        let others = listed.map(|(name, tolerance)| Ok(Other { name, graph: start(name)?, tolerance, worst: 0.0 }));
        Ok(Self { ours, others: others.collect::<Result<_, anyhow::Error>>()? })
    }

    /// Runs all graphs on the golden images, on noise and on a flat image, and compares.
    fn compare(&mut self) -> Result<Finding, anyhow::Error> {
        let mut inputs = golden::pixels()?;
        inputs.extend([self.ours.noise(1), Pixels::new(vec![128; Pixels::LEN])].into_iter().flatten());
        for (number, pixels) in inputs.iter().enumerate() {
            let ours = self.ours.run(pixels).map_err(|error| anyhow::anyhow!("{GRAPH} does not run: {error}"))?;
            anyhow::ensure!(ours.logit.is_finite(), "{GRAPH} gives the logit {} on input {number}", ours.logit);
            for Other { name, graph, tolerance, worst } in &mut self.others {
                let other = graph.run(pixels).map_err(|error| anyhow::anyhow!("{name} does not run: {error}"))?;
                let apart = distance(&ours, &other);
                anyhow::ensure!(
                    apart <= *tolerance,
                    "{GRAPH} and {name} differ by {apart:.1e} on input {number} (logits {} and {}; at most {tolerance:.0e})",
                    ours.logit,
                    other.logit
                );
                *worst = worst.max(apart);
            }
        }
        let others = self.others.iter().map(|other| format!(" and {}, at most {:.1e} apart", other.name, other.worst));
        Ok(Finding::ok(format!("{} images run on {GRAPH}{}", inputs.len(), others.collect::<String>())))
    }
}

/// Runs the one graph of a folder of format 3: whether its outputs have the interface's shapes, and whether a logit
/// depends on the other images of its batch.
fn foreign(config: &ModelConfig, manifest: &Manifest) -> Result<Finding, anyhow::Error> {
    let mut probe = GraphProbe::start(config, FOREIGN_GRAPH)?;
    let apart = probe.batch_dependence();
    let apart = apart.map_err(|error| anyhow::anyhow!("{FOREIGN_GRAPH} does not run: {error}"))?;
    let [width, height] = manifest.preprocessing.input();
    let detail = format!(
        "{FOREIGN_GRAPH} runs on {width} x {height} ({}); a logit in a batch and alone differ by {apart:.1e} at most",
        manifest.preprocessing
    );
    if apart > MOST_APART {
        let hint =
            "it mixes the images of a batch, so an answer depends on other requests: serve with --max-batch-size 1";
        return Ok(Finding::warn(format!("{detail}; {hint}")));
    }
    Ok(Finding::ok(detail))
}

/// Runs and compares the folder's graphs.
pub(super) fn graphs(config: &ModelConfig) -> Result<Finding, anyhow::Error> {
    let manifest = Manifest::read(&find_folder(config.model.as_deref())?)?;
    if manifest.explains() { Graphs::start(config, &manifest)?.compare() } else { foreign(config, &manifest) }
}

/// The largest difference of two outputs; infinite where they cannot be compared.
fn distance(a: &Output, b: &Output) -> f32 {
    if a.topk_values.len() != b.topk_values.len() {
        return f32::INFINITY;
    }
    let values = a.topk_values.iter().zip(&b.topk_values);
    let apart = values.chain([(&a.logit, &b.logit)]).map(|(a, b)| (a - b).abs());
    // NaN counts as infinitely far.
    apart.fold(0.0, |most, apart| if apart.is_nan() { f32::INFINITY } else { most.max(apart) })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn output(logit: f32, values: &[f32]) -> Output {
        Output { logit, topk_values: values.into(), topk_indices: [].into(), linear: Arc::default() }
    }

    #[test]
    fn distance_is_the_worst_and_infinite_for_nan() {
        let a = output(1.0, &[2.0, 3.0]);
        assert_eq!(distance(&a, &a), 0.0);
        assert_eq!(distance(&a, &output(1.5, &[2.0, 3.25])), 0.5);
        assert_eq!(distance(&a, &output(1.0, &[2.0, 4.0])), 1.0);
        assert_eq!(distance(&a, &output(1.0, &[f32::NAN, 3.0])), f32::INFINITY);
        assert_eq!(distance(&a, &output(f32::NAN, &[2.0, 3.0])), f32::INFINITY);
        assert_eq!(distance(&a, &output(1.0, &[2.0])), f32::INFINITY);
    }
}
