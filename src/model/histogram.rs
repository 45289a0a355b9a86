//! How a model scores its validation pictures: what live traffic is held against.

use serde::{Deserialize, Serialize};

/// Limits of the score histogram's bins and pictures: each picture is counted at start-up.
const MOST_BINS: usize = 256;
const MOST_PICTURES: u64 = 1_000_000;

/// Image counts by score, real and fake separately.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ScoreHistogram {
    /// Bounds of the bins, ascending.
    pub edges: Vec<f64>,
    /// Real images in each bin.
    pub real: Vec<u32>,
    /// Fake images in each bin.
    pub fake: Vec<u32>,
}

impl ScoreHistogram {
    pub(super) fn check(&self) -> Result<(), String> {
        let Self { edges, real, fake } = self;
        let bins = real.len();
        if bins > MOST_BINS || fake.len() != bins || edges.len() != bins + 1 || !edges.is_sorted() {
            return Err(format!("val_score_histogram does not have ascending edges around 1 to {MOST_BINS} bins"));
        }
        let pictures: u64 = real.iter().chain(fake).map(|&count| u64::from(count)).sum();
        if pictures > MOST_PICTURES {
            return Err(format!("val_score_histogram counts {pictures} pictures, more than {MOST_PICTURES}"));
        }
        Ok(())
    }
}
