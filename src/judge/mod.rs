//! Postprocessing: a logit becomes a score, a verdict and warnings. Pure arithmetic.

use serde::{Deserialize, Serialize};

use crate::image::{Encoding, ImageFacts, SIDE};

/// A model's rules for turning a logit into a verdict; its manifest has them.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Rules {
    /// Score above which an image is fake.
    pub threshold: f64,
    /// Scores between which it is uncertain: open interval `[low, high]`.
    pub band: Option<[f64; 2]>,
    /// Warnings that make the verdict uncertain.
    pub voiding: Vec<Warning>,
    /// JPEG or WebP quality (1 to 100) below which `lossy_source` is given; none: it never is.
    #[serde(default)]
    pub lossy_below_quality: Option<u8>,
}

impl Rules {
    /// # Errors
    /// The first rule that makes no sense, for the operator.
    pub fn check(&self) -> Result<(), String> {
        let score = 0.0..=1.0;
        if !score.contains(&self.threshold) {
            return Err(format!("threshold {} is not between 0 and 1", self.threshold));
        }
        match self.band {
            Some([low, high]) if !(score.contains(&low) && score.contains(&high) && low <= high) => {
                Err(format!("band [{low}, {high}] is no interval between 0 and 1"))
            }
            _ => Ok(()),
        }
    }
}

/// What the service says of an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// Score at or below the threshold.
    Real,
    /// Score above the threshold.
    Fake,
    /// Inside the rules' band, or under a warning that voids the verdict.
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
    /// The NPR residue is zero everywhere (a flat image, an exact enlargement): nothing to judge.
    NoSignal,
    /// Compressed harder than the model can judge.
    LossySource,
    /// Smaller than the network's input on a side.
    SmallSource,
}

impl Warning {
    /// Every warning: the list is closed.
    pub const ALL: [Self; 3] = [Self::NoSignal, Self::LossySource, Self::SmallSource];

    /// The word on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NoSignal => "no_signal",
            Self::LossySource => "lossy_source",
            Self::SmallSource => "small_source",
        }
    }
}

/// The verdict with what it rests on.
#[derive(Debug, Clone, PartialEq)]
pub struct Judgement {
    /// The verdict.
    pub verdict: Verdict,
    /// Probability of fake: the sigmoid of the logit.
    pub score: f64,
    /// The network's output.
    pub logit: f32,
    /// The score above which an image counts as fake.
    pub threshold: f64,
    /// What weakens the score.
    pub warnings: Vec<Warning>,
}

/// Judges one image. `threshold` replaces the rules'; the band moves with it.
pub fn judge(rules: &Rules, logit: f32, warnings: Vec<Warning>, threshold: Option<f64>) -> Judgement {
    let score = sigmoid(f64::from(logit));
    let shift = threshold.map_or(0.0, |t| t - rules.threshold);
    let threshold = rules.threshold + shift;
    let in_band = rules.band.is_some_and(|[low, high]| score > low + shift && score < high + shift);
    let voided = warnings.iter().any(|warning| rules.voiding.contains(warning));
    let verdict = match () {
        () if in_band || voided => Verdict::Uncertain,
        () if score > threshold => Verdict::Fake,
        () => Verdict::Real,
    };
    Judgement { verdict, score, logit, threshold, warnings }
}

/// Warnings for this image under these rules.
pub fn warnings(rules: &Rules, image: &ImageFacts) -> Vec<Warning> {
    let lossy = match (image.header.encoding, rules.lossy_below_quality) {
        (Encoding::Lossy { quality: Some(quality) }, Some(least)) => quality < least,
        // A lossy WebP tells no quality, and halves its chroma at any.
        (Encoding::Lossy { quality: None }, Some(_)) => true,
        (Encoding::Lossless, _) | (_, None) => false,
    };
    let small = image.header.width.min(image.header.height) < SIDE;
    [(Warning::NoSignal, image.no_signal), (Warning::LossySource, lossy), (Warning::SmallSource, small)]
        .into_iter()
        .filter_map(|(warning, given)| given.then_some(warning))
        .collect()
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn sigmoid_is_symmetric_monotone_and_within_bounds(x in -800.0..800.0f64, step in 0.0..10.0f64) {
            let y = sigmoid(x);
            prop_assert!((0.0..=1.0).contains(&y));
            prop_assert!((y + sigmoid(-x) - 1.0).abs() < 1e-12);
            prop_assert!(sigmoid(x + step) >= y);
        }
    }
}
