//! Settings, one struct per stage. A flag's doc comment is its help and its reference. Invalid settings end the program
//! at start-up with one line.

use std::{path::PathBuf, str::FromStr};

use bytesize::ByteSize;
use clap::{Args, Parser, ValueEnum};

use crate::{
    declared, image,
    judge::{PointChoice, RegionChoice},
};

#[cfg(feature = "server")]
mod route;
#[cfg(feature = "server")]
mod serve;

#[cfg(feature = "server")]
pub use route::ClassRoute;
#[cfg(feature = "server")]
pub use serve::{LogConfig, LogFormat, ServeConfig};

/// Which model runs, and how.
#[derive(Debug, Clone, Args)]
pub struct ModelConfig {
    /// Model folder (manifest.json and its graphs). Default: beside the executable
    /// (../share/lfm-serve/model), then the checkout's models/.
    #[arg(long, env = "LFM_MODEL", value_name = "DIR")]
    pub model: Option<PathBuf>,

    /// The runtime.
    #[command(flatten)]
    pub runtime: RuntimeConfig,
}

impl ModelConfig {
    /// Each of these folders with the runtime; of none the default folder.
    #[cfg(feature = "server")]
    pub(crate) fn each(folders: &[PathBuf], runtime: &RuntimeConfig) -> Vec<Self> {
        let model = |model| Self { model, runtime: runtime.clone() };
        match folders {
            [] => vec![model(None)],
            folders => folders.iter().cloned().map(|folder| model(Some(folder))).collect(),
        }
    }
}

impl Default for ModelConfig {
    /// The command line's defaults and the environment.
    fn default() -> Self {
        #[derive(Parser)]
        struct Flags {
            #[command(flatten)]
            model: ModelConfig,
        }
        Flags::parse_from([""; 1]).model
    }
}

/// Location of ONNX Runtime, and how it runs a model.
#[derive(Debug, Clone, Args)]
pub struct RuntimeConfig {
    /// ONNX Runtime's shared library (1.31). Default: ORT_DYLIB_PATH, then beside the executable
    /// (../lib), then the checkout's vendor/onnxruntime-gpu, then its vendor/onnxruntime.
    #[arg(long, env = "LFM_ORT_LIBRARY", value_name = "FILE")]
    pub ort_library: Option<PathBuf>,

    /// Execution provider. If a named one cannot run, the program ends; `auto` takes the best that works of tensorrt, cuda
    /// and cpu, and the log and `lfm-serve doctor` say why others were not chosen.
    #[arg(long, env = "LFM_PROVIDER", value_name = "NAME", default_value = "auto")]
    pub provider: ProviderChoice,

    /// TensorRT RTX's plugin for ONNX Runtime, with the libraries that it needs beside it. Default: beside the executable
    /// (../lib), then the checkout's vendor/tensorrt-rtx.
    #[arg(long, env = "LFM_TENSORRT_RTX_LIBRARY", value_name = "FILE")]
    pub tensorrt_rtx_library: Option<PathBuf>,

    /// Precision of the arithmetic. fp16 needs TensorRT, and changes logits.
    #[arg(long, env = "LFM_PRECISION", value_name = "NAME", default_value = "fp32")]
    pub precision: Precision,

    /// Whether runs of up to 8 images are captured as CUDA graphs and replayed: `on` or `off`. Only on CUDA, with one model and
    /// one session. They are tried in a process of their own first; if that fails, CUDA runs without them. They have never
    /// run on a GPU.
    #[arg(long, env = "LFM_CUDA_GRAPHS", value_name = "WHETHER", default_value = "off")]
    pub cuda_graphs: Switch,

    /// Cache folder of TensorRT's engines, which take minutes to build, by model, GPU and versions. Off by default:
    /// they are built at every start.
    #[arg(long, env = "LFM_ENGINE_CACHE_DIR", value_name = "DIR")]
    pub engine_cache_dir: Option<PathBuf>,

    /// Limit of GPU memory for each session's arena. Off by default.
    #[arg(long, env = "LFM_GPU_MEMORY_LIMIT", value_name = "SIZE")]
    pub gpu_memory_limit: Option<ByteSize>,

    /// Parallel sessions of each model. `auto`: one per CPU that the cgroup allows; 2 on a GPU, 1 with CUDA graphs.
    #[arg(long, env = "LFM_SESSIONS", value_name = "N", default_value = "auto")]
    pub sessions: Auto<usize>,

    /// Threads per session. `auto`: 1 (one single-threaded session per core has the highest throughput).
    #[arg(long, env = "LFM_INTRA_THREADS", value_name = "N", default_value = "auto")]
    pub intra_threads: Auto<usize>,
}

impl RuntimeConfig {
    /// Checks for settings that exclude each other, where this many models run.
    ///
    /// # Errors
    /// The first of them, as one line for the operator.
    pub(crate) fn check(&self, models: usize) -> Result<(), &'static str> {
        match self.sessions {
            _ if self.cuda_graphs == Switch::Off => Ok(()),
            Auto::Fixed(2..) => Err("--cuda-graphs on takes one session: give --sessions 1 or auto"),
            _ if models > 1 => Err("--cuda-graphs on takes one session, and so one model"),
            _ => Ok(()),
        }
    }
}

/// How a model's logits become a verdict.
#[derive(Debug, Clone, Copy, Default, Args)]
pub struct JudgeConfig {
    /// Regions of 256x256 pixels that a picture is judged by, under preprocessing `crop`; a small picture has fewer.
    /// `auto`: the manifest's rule: more while the first regions leave the verdict open, and to confirm a verdict that rests
    /// on a small share of the picture.
    #[arg(long, env = "LFM_REGIONS", value_name = "N", default_value = "auto")]
    pub regions: RegionChoice,

    /// Accepted shares of wrong verdicts, e.g. 0.05 (false alarms) or false_alarms=0.05,misses=0.1. The verdict is
    /// `fake` where at most the share `false_alarms` of the real validation pictures of that class of file scores as
    /// high, `real` where at most the share `misses` of the generated ones scores as low. Default: the manifest's.
    #[arg(long, env = "LFM_OPERATING_POINT", value_name = "SHARES", default_value = "", hide_default_value = true, value_parser = operating_point)]
    pub operating_point: PointChoice,

    /// Score above which an image counts as fake, in place of the manifest's or of the evidence; the manifest's band
    /// moves with it. Not together with --operating-point.
    #[arg(long, env = "LFM_THRESHOLD", value_name = "SCORE", value_parser = share)]
    pub threshold: Option<f64>,
}

/// A number between 0 and 1.
fn share(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(share) if (0.0..=1.0).contains(&share) => Ok(share),
        _ => Err("expected a number between 0 and 1".into()),
    }
}

/// An empty text, the default, means the manifest's.
fn operating_point(text: &str) -> Result<PointChoice, String> {
    if text.is_empty() { Ok(PointChoice::default()) } else { text.parse() }
}

/// Limits on what a client may send; each has its own error code.
#[derive(Debug, Clone, Args)]
pub struct LimitsConfig {
    /// Largest request body (`body_too_large`).
    #[arg(long, env = "LFM_MAX_BODY_BYTES", value_name = "SIZE", default_value = "32MiB")]
    pub max_body_bytes: ByteSize,

    /// Largest pixel count in an image's header (`image_too_large`); 1MP is 1,000,000 pixels.
    #[arg(long, env = "LFM_MAX_PIXELS", value_name = "PIXELS", default_value = "64MP")]
    pub max_pixels: Pixels,

    /// Smallest width and height that is judged, in pixels (`image_too_small`); 0 judges everything.
    #[arg(long, env = "LFM_MIN_SIDE", value_name = "PIXELS", default_value_t = 0)]
    pub min_side: u32,

    /// Whether HEIC, as phones send it, is read (docs/heic.md): `on` or `off`. Needs libde265 (Debian's libde265-0), which
    /// runs in a process without rights.
    #[arg(long, env = "LFM_HEIF", value_name = "WHETHER", default_value = "off", value_parser = heif)]
    pub heif: Switch,
}

/// HEIC is only promised where the library is that decodes it.
fn heif(text: &str) -> Result<Switch, String> {
    let switch = Switch::from_str(text, false)?;
    if switch == Switch::On {
        image::heif_library(None)?;
    }
    Ok(switch)
}

impl LimitsConfig {
    /// The part that the image stage checks.
    pub fn image(&self) -> image::Limits {
        let Self { max_pixels, min_side, heif, .. } = *self;
        image::Limits { max_pixels: max_pixels.0, min_side, heif: heif == Switch::On, ..Default::default() }
    }
}

/// What is reported of what files say of themselves (docs/declared.md).
#[derive(Debug, Clone, Args)]
pub struct DeclaredConfig {
    /// Whether `declared` reports what a file says of itself: its C2PA manifest, IPTC, XMP, EXIF and texts of PNG. It never
    /// moves the score.
    #[arg(long, env = "LFM_DECLARED", value_name = "WHETHER", default_value = "on")]
    pub declared: Switch,

    /// How much of a file's own words `declared` repeats. `brief`: which field says it; `full`: its beginning too, with prompts
    /// and names of people.
    #[arg(long, env = "LFM_DECLARED_DETAIL", value_name = "DETAIL", default_value = "brief")]
    pub declared_detail: declared::Detail,

    /// Certificates in PEM, such as C2PA's public trust list: a manifest signed under one of them is `valid`, any other that
    /// is intact `untrusted`. Off by default: none is `valid`.
    #[arg(long, env = "LFM_C2PA_TRUST", value_name = "FILE")]
    pub c2pa_trust: Option<PathBuf>,
}

/// Something that can be switched off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Switch {
    /// It is done.
    On,
    /// It is not.
    Off,
}

/// Execution providers of ONNX Runtime that can be requested.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ProviderChoice {
    /// The best that works.
    Auto,
    /// The CPU.
    Cpu,
    /// CUDA.
    Cuda,
    /// TensorRT, with CUDA for the nodes that it does not support.
    Tensorrt,
    /// TensorRT RTX, a plugin (`make vendor-rtx`). It has never run on a GPU, so `auto` does not take it.
    TensorrtRtx,
}

/// Precisions of the arithmetic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Precision {
    /// 32-bit floats, as in training.
    Fp32,
    /// 16-bit floats where TensorRT finds them faster.
    Fp16,
}

impl Precision {
    /// Its name in `--precision` and the metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Fp32 => "fp32",
            Self::Fp16 => "fp16",
        }
    }
}

/// A setting that the program determines itself unless it is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Auto<T> {
    /// Determined from the machine.
    Auto,
    /// As given.
    Fixed(T),
}

impl<T> Auto<T> {
    /// The given value, or what the machine suggests.
    pub fn or_else(self, suggest: impl FnOnce() -> T) -> T {
        match self {
            Self::Auto => suggest(),
            Self::Fixed(value) => value,
        }
    }
}

impl FromStr for Auto<usize> {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "auto" {
            return Ok(Self::Auto);
        }
        match text.parse() {
            Ok(value) if value > 0 => Ok(Self::Fixed(value)),
            _ => Err("expected `auto` or a number above 0".into()),
        }
    }
}

/// A number of pixels, written `64MP`, `1.5MP` or in full.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pixels(pub u64);

impl FromStr for Pixels {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (number, unit) = match text.strip_suffix("MP") {
            Some(number) => (number.trim(), 1e6),
            None => (text.trim(), 1.0),
        };
        match number.parse::<f64>() {
            // 2^53: above it a float cannot represent every integer.
            Ok(value) if value * unit >= 1.0 && value * unit <= 9e15 => Ok(Self((value * unit) as u64)),
            _ => Err("expected a number of pixels above 0, such as 64MP or 640000".into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pixels_read_megapixels_and_plain_numbers() {
        assert_eq!("64MP".parse(), Ok(Pixels(64_000_000)));
        assert_eq!("1.5MP".parse(), Ok(Pixels(1_500_000)));
        assert_eq!("4096".parse(), Ok(Pixels(4096)));
        for bad in ["", "MP", "-1", "0", "NaN", "inf", "1GP", "1e300MP"] {
            assert!(bad.parse::<Pixels>().is_err(), "{bad:?} was accepted");
        }
    }

    #[test]
    fn auto_takes_the_word_or_a_positive_number() {
        assert_eq!("auto".parse(), Ok(Auto::Auto));
        assert_eq!("3".parse(), Ok(Auto::Fixed(3)));
        for bad in ["", "0", "-1", "AUTO", "1.5"] {
            assert!(bad.parse::<Auto<usize>>().is_err(), "{bad:?} was accepted");
        }
    }
}
