//! A model's rules for turning logits into a verdict; its manifest has them.

use serde::{Deserialize, Serialize};

use super::{Evidence, Warning, Weights, evidence::COUNTS};
use crate::image::{Encoding, Header, Regions, SIDE};

/// All rules of a model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rules {
    /// Score above which an image is fake, where there is no evidence or a caller asks for a threshold.
    pub threshold: f64,
    /// Scores between which it is uncertain then: open interval `[low, high]`.
    pub band: Option<[f64; 2]>,
    /// Warnings that make the verdict uncertain, and score and logit null.
    pub voiding: Vec<Warning>,
    /// JPEG or WebP quality (1 to 100) below which `lossy_source` is given; none: it never is.
    pub lossy_below_quality: Option<u8>,
    /// How many regions are judged. A manifest of format 1 has none: one region.
    pub regions: Option<RegionRules>,
    /// What a verdict rests on. A manifest of format 1 has none: the threshold decides.
    pub evidence: Option<Evidence>,
    /// How the logits of several networks become one; none where one network judges.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weights: Option<Weights>,
}

/// The manifest's `regions`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct RegionRules {
    /// The rule of `auto`.
    pub auto: Auto,
    /// When regions disagree.
    pub disagree: Disagree,
}

/// How `auto` decides on the number of regions.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Auto {
    /// Regions to begin with.
    pub start: u8,
    /// Regions in all, where the first leave the answer open.
    pub then: u8,
    /// It is open while the absolute value of the calibrated logit is below this.
    pub open_below: f64,
    /// A verdict other than `uncertain` is confirmed by all regions too where the first cover less than this share of the
    /// picture: one that was put together shows it elsewhere. 0: never.
    #[serde(default)]
    pub confirm_below: f64,
    /// The same for the verdict `real`, which is about all of the picture; `fake` may be about a part. 0: as above.
    #[serde(default)]
    pub confirm_real_below: f64,
}

/// When regions disagree.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Disagree {
    /// A region's calibrated logit is on the other side of 0 than the picture's by at least this.
    pub margin: f64,
    /// Whether that voids the verdict.
    pub voids: bool,
    /// Where the evidence calls the picture real, also a region that it would not call real alone and whose calibrated logit
    /// is not below this.
    #[serde(default)]
    pub real_below: Option<f64>,
}

impl Rules {
    /// # Errors
    /// The first rule that makes no sense, for the operator.
    pub fn check(&self) -> Result<(), String> {
        let score = 0.0..=1.0;
        if !score.contains(&self.threshold) {
            return Err(format!("threshold {} is not between 0 and 1", self.threshold));
        }
        if let Some([low, high]) = self.band
            && !(score.contains(&low) && score.contains(&high) && low <= high)
        {
            return Err(format!("band [{low}, {high}] is no interval between 0 and 1"));
        }
        self.regions.as_ref().map_or(Ok(()), RegionRules::check)?;
        self.evidence.as_ref().map_or(Ok(()), Evidence::check)
    }

    /// Warnings that the header alone gives.
    pub(super) fn of_header(&self, header: &Header) -> impl Iterator<Item = Warning> {
        let lossy = match (header.encoding, self.lossy_below_quality) {
            (Encoding::Lossy { quality: Some(quality) }, Some(least)) => quality < least,
            // A lossy WebP tells no quality, and halves its chroma at any.
            (Encoding::Lossy { quality: None }, Some(_)) => true,
            (Encoding::Lossless, _) | (_, None) => false,
        };
        let small = header.width.min(header.height) < SIDE;
        let given = [
            (Warning::LossySource, lossy),
            (Warning::SmallSource, small),
            (Warning::FirstFrameOnly, header.frames > 1),
        ];
        given.into_iter().filter_map(|(warning, given)| given.then_some(warning))
    }

    pub(super) fn voids(&self, warning: Warning) -> bool {
        let disagree =
            warning == Warning::RegionsDisagree && self.regions.is_some_and(|regions| regions.disagree.voids);
        disagree || self.voiding.contains(&warning)
    }
}

impl RegionRules {
    fn check(&self) -> Result<(), String> {
        let Auto { start, then, open_below, confirm_below, confirm_real_below } = self.auto;
        if !(COUNTS.contains(&start) && COUNTS.contains(&then) && start <= then) {
            return Err(format!("regions.auto begins with {start} and ends with {then}, of {COUNTS:?}"));
        }
        if self.disagree.real_below.is_some_and(|bound| !bound.is_finite()) {
            return Err("regions.disagree.real_below is no number".into());
        }
        let bounds = [
            ("auto.open_below", open_below),
            ("auto.confirm_below", confirm_below),
            ("auto.confirm_real_below", confirm_real_below),
            ("disagree.margin", self.disagree.margin),
        ];
        match bounds.into_iter().find(|(_, bound)| !(bound.is_finite() && *bound >= 0.0)) {
            Some((name, bound)) => Err(format!("regions.{name} is {bound}, not a number from 0")),
            None => Ok(()),
        }
    }

    /// The most regions that `auto` judges.
    pub(super) fn most(&self) -> Regions {
        match self.auto.then {
            16 => Regions::Sixteen,
            9 => Regions::Nine,
            5 => Regions::Five,
            _ => Regions::One,
        }
    }
}
