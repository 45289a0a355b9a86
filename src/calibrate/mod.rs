//! The evidence of a manifest from labelled pictures that a network has scored. Pure arithmetic, and the rules of
//! `models/lfm/evidence.py`; the bundled model's evidence comes from that.

mod class;
mod combined;
mod halves;
mod logistic;
mod platt;
mod points;
mod quantile;
mod sample;
mod shot;

pub use class::{ClassFit, Undecided, fit};
pub use combined::{CombinedFit, Skill};
pub use halves::{Half, halves};
pub use points::{Measure, Point};
pub use quantile::quantile;
pub use shot::Shot;
