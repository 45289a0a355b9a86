//! The logits of several networks become one: a weighted sum, with weights of each class of file.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{
    Class,
    region::{RegionLogit, mean},
};

/// The most networks whose logits are combined.
pub const MOST_COMBINED: usize = 8;

/// The weights of the networks' logits by class of file, in the networks' order. 0 where the class has no signal.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
#[serde(transparent)]
pub struct Weights(pub BTreeMap<Class, Vec<f64>>);

impl Weights {
    /// # Errors
    /// The first value that makes no sense, for the operator.
    pub fn check(&self, networks: usize) -> Result<(), String> {
        for class in Class::ALL {
            let name = class.as_str();
            let weights = self.0.get(&class).ok_or_else(|| format!("weights lacks {name}"))?;
            if weights.len() != networks {
                return Err(format!("weights.{name} has {} numbers for {networks} models", weights.len()));
            }
            if !weights.iter().all(|weight| weight.is_finite()) {
                return Err(format!("weights.{name} holds a number that is not finite"));
            }
        }
        Ok(())
    }

    /// The weights of a class.
    pub fn of(&self, class: Class) -> &[f64] {
        self.0.get(&class).map_or(&[], Vec::as_slice)
    }

    /// The first network's regions, each with the picture's logit as if that network had seen this region alone: the mean
    /// over them is the weighted sum of the networks' means. A network that finds nothing to judge makes the sum void.
    pub fn combine(&self, class: Class, networks: &[Vec<RegionLogit>]) -> Vec<RegionLogit> {
        let weights = self.of(class);
        let (Some((first, others)), Some((weight, weights))) = (networks.split_first(), weights.split_first()) else {
            return Vec::new();
        };
        let rest: f64 = weights.iter().zip(others).map(|(weight, regions)| weight * mean(regions)).sum();
        let blind = others.iter().any(|regions| regions.iter().all(|region| region.no_signal));
        let combined = |region: &RegionLogit| RegionLogit {
            bounds: region.bounds,
            logit: (weight * f64::from(region.logit) + rest) as f32,
            no_signal: region.no_signal || blind,
        };
        first.iter().map(combined).collect()
    }
}
