//! What was judged, and what the verdict rests on.

use serde::Serialize;

use crate::{
    image::Header,
    judge::{Class, Found, JudgedRegion, Judgement, OperatingPoint},
};

/// The parts of the picture that were judged.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
pub struct JudgedInfo {
    /// `crop`: regions of 256x256 pixels; `resize`: the whole picture, brought to that size.
    method: &'static str,
    /// The share of the picture's pixels that the regions cover.
    #[cfg_attr(feature = "server", schema(minimum = 0.0, maximum = 1.0))]
    share: f64,
    /// The regions, the centre first. The logit is the calibrated mean of theirs.
    regions: Vec<RegionInfo>,
}

/// A region that was judged.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
struct RegionInfo {
    /// `[x0, y0, x1, y1]` in pixels of the stored picture, the ends outside. EXIF orientation is not applied.
    #[serde(rename = "box")]
    stored: [u32; 4],
    /// The same in the picture as it is shown, EXIF orientation applied.
    shown: [u32; 4],
    /// Its logit, calibrated as the picture's. Null where there is nothing to judge.
    logit: Option<f32>,
    /// The sigmoid of it.
    #[cfg_attr(feature = "server", schema(minimum = 0.0, maximum = 1.0))]
    score: Option<f64>,
}

/// What the verdict rests on: how validation pictures of the same class of file score.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
pub struct EvidenceInfo {
    class: Class,
    /// The share of real pictures that score at least so high: false alarms, if this one is called fake. Null under a
    /// warning that voids the verdict.
    #[cfg_attr(feature = "server", schema(minimum = 0.0, maximum = 1.0))]
    real_at_or_above: Option<f64>,
    /// The share of generated pictures that score at most so high: misses, if this one is called real. Null under a
    /// warning that voids the verdict.
    #[cfg_attr(feature = "server", schema(minimum = 0.0, maximum = 1.0))]
    fake_at_or_below: Option<f64>,
    /// Real pictures that this rests on.
    n_real: u32,
    /// Generated pictures that this rests on.
    n_fake: u32,
    /// What decided: `fake` where `real_at_or_above` is at most `false_alarms`, `real` where `fake_at_or_below` is at
    /// most `misses`. Null where a threshold was asked for.
    operating_point: Option<OperatingPoint>,
}

impl JudgedInfo {
    /// The wire's form of a judgement of this image.
    pub fn new(judgement: &Judgement, header: &Header) -> Self {
        let region = |&JudgedRegion { bounds, logit, score }: &JudgedRegion| RegionInfo {
            stored: header.as_stored(bounds),
            shown: header.as_shown(bounds),
            logit,
            score,
        };
        Self {
            method: judgement.method.as_str(),
            share: judgement.share,
            regions: judgement.regions.iter().map(region).collect(),
        }
    }
}

impl From<&Found> for EvidenceInfo {
    fn from(found: &Found) -> Self {
        let &Found { class, real_at_or_above, fake_at_or_below, n_real, n_fake, operating_point } = found;
        Self { class, real_at_or_above, fake_at_or_below, n_real, n_fake, operating_point }
    }
}
