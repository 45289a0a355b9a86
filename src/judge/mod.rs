//! Facts of an image and the logits of its regions become a calibrated logit, a verdict, what it rests on, and
//! warnings. Pure arithmetic.

mod evidence;
mod judgement;
mod region;
mod rules;
mod share;
#[cfg(test)]
mod tests;
mod weights;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

pub use evidence::{Class, ClassTables, Evidence, OperatingPoint, PointChoice, Table};
pub use judgement::{Asked, Calibration, Found, Judge, JudgedRegion, Judgement, Part, Settings};
pub use region::RegionLogit;
pub use rules::{Auto, Disagree, RegionRules, Rules};
pub use weights::{MOST_COMBINED, Weights};

/// What the service says of an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// Few generated images of this class of file score so low; without evidence: score at or below the threshold.
    Real,
    /// Few real images of this class of file score so high; without evidence: score above the threshold.
    Fake,
    /// Neither, or under a warning that voids the verdict.
    Uncertain,
}

impl Verdict {
    /// Every verdict.
    pub const ALL: [Self; 3] = [Self::Real, Self::Fake, Self::Uncertain];

    /// The word on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Real => "real",
            Self::Fake => "fake",
            Self::Uncertain => "uncertain",
        }
    }
}

/// A property of the image under which the score says less than it seems to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Warning {
    /// The NPR residue is zero everywhere in the judged regions (a flat image, an exact enlargement): nothing to judge.
    NoSignal,
    /// Compressed harder than the model can judge.
    LossySource,
    /// Smaller than the network's input on a side.
    SmallSource,
    /// A region is clearly on the other side than the whole picture, or the whole looks real and a region alone hardly: it
    /// may be a collage or partly edited.
    RegionsDisagree,
    /// The file holds several pictures (frames, pages, views); the first was judged.
    FirstFrameOnly,
}

impl Warning {
    /// Every warning: the list is closed.
    pub const ALL: [Self; 5] =
        [Self::NoSignal, Self::LossySource, Self::SmallSource, Self::RegionsDisagree, Self::FirstFrameOnly];

    /// The word on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NoSignal => "no_signal",
            Self::LossySource => "lossy_source",
            Self::SmallSource => "small_source",
            Self::RegionsDisagree => "regions_disagree",
            Self::FirstFrameOnly => "first_frame_only",
        }
    }
}

/// How many regions of a picture are judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ValueEnum)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
pub enum RegionChoice {
    /// By the manifest's rule: more only while the first leave the answer open.
    #[default]
    #[serde(rename = "auto")]
    Auto,
    /// The centre.
    #[serde(rename = "1")]
    #[value(name = "1")]
    One,
    /// The centre and the centres of the quadrants.
    #[serde(rename = "5")]
    #[value(name = "5")]
    Five,
    /// The centre and a grid of 3 x 3.
    #[serde(rename = "9")]
    #[value(name = "9")]
    Nine,
    /// The centre and a grid of 4 x 4.
    #[serde(rename = "16")]
    #[value(name = "16")]
    Sixteen,
}

/// The logistic function, without overflow at either end.
pub fn sigmoid(x: f64) -> f64 {
    if x >= 0.0 {
        1.0 / (1.0 + (-x).exp())
    } else {
        let e = x.exp();
        e / (1.0 + e)
    }
}
