//! The evidence of a manifest from labelled pictures that a network has scored. Pure arithmetic, and the rules of
//! `models/lfm/evidence.py`; the bundled model's evidence comes from that.

mod class;
mod halves;
mod logistic;
mod points;
mod quantile;
mod sample;

pub use class::{ClassFit, Shot, Undecided, fit};
pub use halves::{Half, halves};
pub use points::{Measure, Point};
pub use quantile::quantile;
