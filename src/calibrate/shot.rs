//! A labelled file with what the networks said of it.

use super::{halves::Half, sample::Sample};
use crate::judge::Class;

/// A labelled file that the network has scored, or each of several.
#[derive(Debug, Clone)]
pub struct Shot {
    /// Its class.
    pub class: Class,
    /// Its label.
    pub fake: bool,
    /// The number of its picture: files of one picture count as one in each class.
    pub picture: usize,
    /// Its half.
    pub half: Half,
    /// The networks' own logits, in their order.
    pub logits: Vec<f32>,
}

impl Shot {
    /// The weighted sum of the logits; of one network the logit.
    pub fn logit_raw(&self, weights: Option<&[f64]>) -> f64 {
        match (weights, &self.logits[..]) {
            (Some(weights), logits) => weights.iter().zip(logits).map(|(w, &logit)| w * f64::from(logit)).sum(),
            (None, &[logit]) => logit.into(),
            // Several that are not combined: nothing is known.
            (None, _) => 0.0,
        }
    }
}

/// The scores of real and generated pictures, of the fit half and of the report half.
pub(super) fn samples(shots: &[&Shot], score: &dyn Fn(&Shot) -> f64) -> [[Sample; 2]; 2] {
    [Half::Fit, Half::Report].map(|half| {
        [false, true].map(|fake| {
            let of = shots.iter().filter(|shot| shot.fake == fake && shot.half == half);
            Sample::new(of.map(|shot| (score(shot), shot.picture)))
        })
    })
}
