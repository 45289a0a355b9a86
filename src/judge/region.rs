//! What the network says of a part of a picture.

/// What the network says of one region.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RegionLogit {
    /// The part of the decoded picture, `[x0, y0, x1, y1]` in pixels, the ends outside.
    pub bounds: [u32; 4],
    /// The network's output.
    pub logit: f32,
    /// Whether its NPR residue is zero everywhere.
    pub no_signal: bool,
}

/// The mean of the regions' logits.
pub(super) fn mean(regions: &[RegionLogit]) -> f64 {
    regions.iter().map(|region| f64::from(region.logit)).sum::<f64>() / regions.len().max(1) as f64
}
