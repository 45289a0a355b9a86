//! Which pictures a run is for: a share of them, by their paths alone, so that machines agree without a word.

use std::{env, str::FromStr};

use sha2::{Digest, Sha256};

/// The index that Kubernetes gives to a pod of an Indexed Job.
const JOB_INDEX: &str = "JOB_COMPLETION_INDEX";

/// A path's place among all: shards are told by it, and what is done is remembered by it.
pub(super) fn key(path: &str) -> u128 {
    let digest = Sha256::digest(path.as_bytes());
    digest.iter().take(size_of::<u128>()).fold(0, |key, &byte| key << 8 | u128::from(byte))
}

/// One of `count` shares of the pictures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Shard {
    pub(super) index: u32,
    pub(super) count: u32,
}

impl Shard {
    /// What the flags ask for; with `--shards` alone the index is the job's.
    ///
    /// # Errors
    /// For the user: in an Indexed Job a run without a share would score everything in every pod.
    pub(super) fn of(shard: Option<Self>, shards: Option<u32>) -> Result<Self, anyhow::Error> {
        let index = env::var(JOB_INDEX).ok();
        match (shard, shards, index) {
            (Some(shard), ..) => Ok(shard),
            (None, Some(count), Some(index)) => format!("{index}/{count}").parse().map_err(anyhow::Error::msg),
            (None, Some(1), None) | (None, None, None) => Ok(Self { index: 0, count: 1 }),
            (None, Some(_), None) => anyhow::bail!("--shards needs --shard, or {JOB_INDEX}, which Kubernetes sets"),
            (None, None, Some(_)) => anyhow::bail!("{JOB_INDEX} is set: --shards must be the job's completions"),
        }
    }

    /// Whether the picture at this path is of the share.
    pub(super) fn holds(self, path: &str) -> bool {
        key(path) % u128::from(self.count) == u128::from(self.index)
    }
}

impl FromStr for Shard {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parsed = text.split_once('/').and_then(|(index, count)| {
            let shard = Self { index: index.parse().ok()?, count: count.parse().ok()? };
            (shard.index < shard.count).then_some(shard)
        });
        parsed.ok_or_else(|| format!("{text:?} is no share: I/N, with I from 0 to N - 1"))
    }
}
