//! What each node of a graph takes in a run, as ONNX Runtime's profiler writes it.

use std::{collections::BTreeMap, fs, path::Path, time::Duration};

use anyhow::Context;
use ort::{session::RunOptions, value::Tensor};
use serde::Deserialize;

use super::{GraphProbe, runtime};
use crate::image::Pixels;

/// A node in one run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeRun {
    /// The node's name.
    pub name: String,
    /// The operator's name, without its domain.
    pub operator: String,
    /// Wall-clock time, in whole microseconds.
    pub time: Duration,
    /// Shapes of the inputs, constants included.
    pub inputs: Vec<Vec<usize>>,
    /// Shapes of the outputs.
    pub outputs: Vec<Vec<usize>>,
    /// Bytes of all of these.
    pub bytes: usize,
}

/// An entry of the profile.
#[derive(Deserialize)]
struct Event {
    name: String,
    /// Microseconds.
    dur: u64,
    args: Args,
}

/// A node's entry has all of it, other entries lack the operator.
#[derive(Deserialize)]
struct Args {
    op_name: Option<String>,
    #[serde(default)]
    input_type_shape: Vec<Shape>,
    #[serde(default)]
    output_type_shape: Vec<Shape>,
}

/// A tensor: `{"float": [1, 30, 30, 512]}`.
#[derive(Deserialize)]
struct Shape(BTreeMap<String, Vec<usize>>);

impl Shape {
    fn sides(&self) -> Vec<usize> {
        self.0.values().next().cloned().unwrap_or_default()
    }

    fn bytes(&self) -> usize {
        let size = |(element, sides): (&String, &Vec<usize>)| match &**element {
            "uint8" => sides.iter().product(),
            "int64" => 8 * sides.iter().product::<usize>(),
            _ => 4 * sides.iter().product::<usize>(),
        };
        self.0.iter().map(size).sum()
    }
}

impl GraphProbe {
    /// Runs one image under the profiler, whose file is written to `folder`, which is empty before and after.
    ///
    /// # Errors
    /// If the graph does not run, or the profile cannot be read.
    pub fn profile(&mut self, pixels: &Pixels, folder: &Path) -> Result<Vec<NodeRun>, anyhow::Error> {
        self.run_profiled(pixels, folder).map_err(|error| anyhow::anyhow!(runtime::one_line(&error)))?;
        let entry = fs::read_dir(folder)?.next().context("ONNX Runtime wrote no profile")??;
        let profile = fs::read_to_string(entry.path())?;
        fs::remove_file(entry.path())?;
        parse(&profile).context("ONNX Runtime's profile is not as expected")
    }

    fn run_profiled(&mut self, pixels: &Pixels, folder: &Path) -> ort::Result<()> {
        let [width, height] = self.runner.input().map(|side| side as usize);
        let input = Tensor::from_array(([1, height, width, 3], pixels.as_bytes().to_vec()))?;
        let mut options = RunOptions::new()?;
        options.enable_profiling(folder.join("run"))?;
        self.runner.session.run_with_options(ort::inputs!["pixels" => input], &options)?;
        Ok(())
    }
}

fn parse(profile: &str) -> serde_json::Result<Vec<NodeRun>> {
    let events: Vec<Event> = serde_json::from_str(profile)?;
    let nodes = events.into_iter().filter_map(|Event { name, dur, args }| {
        let (inputs, outputs) = (&args.input_type_shape, &args.output_type_shape);
        Some(NodeRun {
            name: name.strip_suffix("_kernel_time")?.to_owned(),
            operator: args.op_name?,
            time: Duration::from_micros(dur),
            inputs: inputs.iter().map(Shape::sides).collect(),
            outputs: outputs.iter().map(Shape::sides).collect(),
            bytes: inputs.iter().chain(outputs).map(Shape::bytes).sum(),
        })
    });
    Ok(nodes.collect())
}
