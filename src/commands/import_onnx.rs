//! `lfm-serve import-onnx`: a model folder from the graph of any image detector.

use std::{
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
    str::FromStr,
};

use anyhow::Context;
use clap::{Args, ValueEnum};
use serde_json::json;
use sha2::{Digest, Sha256};

use crate::{
    config::{ModelConfig, RuntimeConfig},
    image::{Filter, Recipe, Scale},
    import::{self, Layout, Normalisation, Reading, Spec},
    model::{FOREIGN, FOREIGN_GRAPH, GraphProbe, Input},
};

/// Settings of `import-onnx`.
#[derive(Debug, Args)]
#[command(after_help = NOTES)]
pub(super) struct ImportArgs {
    /// The exported graph, with its weights, for batches of any size.
    #[arg(value_name = "FILE.onnx")]
    file: PathBuf,

    /// The model folder to write: it must not exist.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,

    /// What a picture is resized to before the centre is cut out: `shorter=N` (the shorter side to N, as torchvision's
    /// and timm's `Resize(N)`), `both=HxW` (as `Resize((H, W))`), or `none`: tiles of native pixels.
    #[arg(long, value_name = "RULE")]
    resize: ResizeRule,

    /// The filter of the resize, as Pillow's.
    #[arg(long, value_enum)]
    filter: FilterArg,

    /// What the output holds for each image.
    #[arg(long, value_enum)]
    output_kind: Reading,

    /// Which of two outputs is "fake"; of one output 0 says that it speaks for "real".
    #[arg(long, value_name = "0|1", default_value_t = 1, value_parser = clap::value_parser!(u8).range(0..=1))]
    fake_index: u8,

    /// Mean that is subtracted from red, green and blue, e.g. 0.485,0.456,0.406.
    #[arg(long, value_name = "R,G,B", requires = "std")]
    mean: Option<Channels>,

    /// What red, green and blue are divided by then, e.g. 0.229,0.224,0.225.
    #[arg(long, value_name = "R,G,B", requires = "mean")]
    std: Option<Channels>,

    /// What the brightest byte is before that: 1 (torchvision's ToTensor) or 255.
    #[arg(long, value_name = "N", default_value_t = 1.0)]
    range: f64,

    /// Height and width of the input, if the graph's shape does not tell.
    #[arg(long, value_name = "HxW")]
    size: Option<Size>,

    /// Order of the input's dimensions, if the graph's shape does not tell.
    #[arg(long, value_enum)]
    layout: Option<Layout>,

    /// The input's name, if there are several.
    #[arg(long, value_name = "NAME")]
    input: Option<String>,

    /// The output's name, if there are several.
    #[arg(long, value_name = "NAME")]
    output: Option<String>,

    /// The model's name in answers and metrics. Default: the file's.
    #[arg(long)]
    name: Option<String>,

    /// The model's version.
    #[arg(long, value_name = "TEXT", default_value = "1")]
    model_version: String,

    /// What the licences of its weights and training data allow, e.g. research-only.
    #[arg(long, value_name = "TEXT", default_value = "unknown")]
    licence: String,

    /// Score above which an image is fake, as long as there is no evidence (`lfm-serve calibrate`).
    #[arg(long, value_name = "SCORE", default_value_t = 0.5)]
    threshold: f64,

    #[command(flatten)]
    runtime: RuntimeConfig,
}

const NOTES: &str = "\
The preprocessing must be the one that the network was trained with: nothing in the file tells it, and a wrong one costs \
accuracy without an error. docs/models.md goes through a timm checkpoint.

The folder is run once before the command ends. `lfm-serve doctor --model DIR` checks it further.";

#[derive(Debug, Clone, Copy, ValueEnum)]
enum FilterArg {
    Bilinear,
    Bicubic,
}

#[derive(Debug, Clone, Copy)]
enum ResizeRule {
    None,
    Shorter(u32),
    Both(Size),
}

impl FromStr for ResizeRule {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once('=') {
            None if text == "none" => Ok(Self::None),
            Some(("shorter", side)) => side.parse().map(Self::Shorter).map_err(|_| format!("{side:?} is no side")),
            Some(("both", size)) => size.parse().map(Self::Both),
            _ => Err("expected shorter=N, both=HxW or none".into()),
        }
    }
}

/// Height and width.
#[derive(Debug, Clone, Copy)]
struct Size([u32; 2]);

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let sides = text.split_once('x').and_then(|(height, width)| Some([height.parse().ok()?, width.parse().ok()?]));
        sides.map(Self).ok_or_else(|| format!("{text:?} is no HEIGHTxWIDTH"))
    }
}

/// A number for each channel.
#[derive(Debug, Clone, Copy)]
struct Channels([f64; 3]);

impl FromStr for Channels {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let numbers =
            text.split(',').map(|number| number.trim().parse::<f64>().ok().filter(|number| number.is_finite()));
        let numbers: Option<Vec<_>> = numbers.collect();
        match numbers.as_deref() {
            Some(&[red, green, blue]) => Ok(Self([red, green, blue])),
            _ => Err(format!("{text:?} is not three numbers")),
        }
    }
}

pub(super) fn run(args: &ImportArgs) -> Result<ExitCode, anyhow::Error> {
    let file = &args.file;
    let bytes = fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
    let cannot = |reason: String| anyhow::anyhow!("cannot import {}: {reason}", file.display());
    if let Some(Channels(std)) = args.std {
        anyhow::ensure!(std.iter().all(|&std| std > 0.0), "--std has to be above 0");
    }
    anyhow::ensure!(args.range.is_finite() && args.range > 0.0, "--range has to be above 0");
    let channels = args.mean.zip(args.std);
    let normalisation = channels.map(|(Channels(mean), Channels(std))| Normalisation { range: args.range, mean, std });
    let spec = Spec {
        input: args.input.as_deref(),
        output: args.output.as_deref(),
        layout: args.layout,
        size: args.size.map(|Size(size)| size),
        normalisation,
        reading: args.output_kind,
        fake_index: args.fake_index,
    };
    let (graph, info, [height, width]) = import::wrap(&bytes, &spec).map_err(cannot)?;
    let recipe = recipe(args, width, height);
    recipe.check().map_err(cannot)?;

    let sha256 = crate::hex(&Sha256::digest(&graph));
    let stem = file.file_stem().map(|stem| stem.to_string_lossy().into_owned());
    let manifest = json!({
        "format_version": FOREIGN,
        "name": args.name.clone().or(stem).unwrap_or_default(),
        "version": args.model_version,
        "digest": format!("sha256:{sha256}"),
        "files": {FOREIGN_GRAPH: {"bytes": graph.len(), "sha256": sha256}},
        "input": Input::from(recipe),
        "threshold": args.threshold,
        "band": null,
        "voiding": [],
        "licence_class": args.licence,
        "source": {
            "sha256": crate::hex(&Sha256::digest(&bytes)),
            "layout": info.layout,
            "normalisation": normalisation,
            "output_kind": args.output_kind,
            "fake_index": args.fake_index,
        },
    });
    fs::create_dir(&args.out).with_context(|| format!("cannot make {}", args.out.display()))?;
    let written = write(&args.out, &manifest, &graph).and_then(|()| check(args));
    let apart = match written {
        Ok(apart) => apart,
        Err(error) => {
            // Made above, so nothing of anyone else is in it.
            let _ = fs::remove_dir_all(&args.out);
            return Err(error);
        }
    };
    super::print_line(&format!(
        "{}: {recipe}; a logit in a batch and alone differ by {apart:.1e} at most. Next: lfm-serve doctor --model {0}",
        args.out.display(),
    ))?;
    Ok(ExitCode::SUCCESS)
}

fn recipe(args: &ImportArgs, width: u32, height: u32) -> Recipe {
    let scale = match args.resize {
        ResizeRule::None => Scale::Native,
        ResizeRule::Shorter(side) => Scale::Shorter(side),
        ResizeRule::Both(Size([height, width])) => Scale::Both(width, height),
    };
    let filter = match args.filter {
        FilterArg::Bilinear => Filter::Bilinear,
        FilterArg::Bicubic => Filter::Bicubic,
    };
    Recipe { width, height, scale, filter }
}

fn write(folder: &Path, manifest: &serde_json::Value, graph: &[u8]) -> Result<(), anyhow::Error> {
    let files = [(FOREIGN_GRAPH, graph.to_vec()), ("manifest.json", serde_json::to_vec_pretty(manifest)?)];
    for (name, bytes) in files {
        let path = folder.join(name);
        fs::write(&path, bytes).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

/// Reads the folder as `serve` does, and runs it.
fn check(args: &ImportArgs) -> Result<f32, anyhow::Error> {
    let model = ModelConfig { model: Some(args.out.clone()), runtime: args.runtime.clone() };
    let apart = GraphProbe::start(&model, FOREIGN_GRAPH)?.batch_dependence();
    apart.map_err(|error| anyhow::anyhow!("the graph does not run: {error}"))
}
