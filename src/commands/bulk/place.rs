//! Where pictures and results lie: on this machine, or in a bucket.

use std::{
    collections::HashMap,
    fmt::Display,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use object_store::{
    ObjectStore, RetryConfig, aws::AmazonS3Builder, azure::MicrosoftAzureBuilder, gcp::GoogleCloudStorageBuilder,
    path::Path,
};

/// A file or folder here, or an object or prefix in a bucket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Place {
    Local(PathBuf),
    Remote {
        /// `s3://bucket`: the scheme, and a bucket or container.
        bucket: String,
        path: Path,
    },
}

impl Place {
    /// Reads a path or `s3://bucket/path`, `gs://bucket/path`, `az://container/path`. The path is taken as it stands: it
    /// is no URL, and nothing in it is an escape.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let Some((scheme, rest)) = text.split_once("://") else { return Ok(Self::Local(text.into())) };
        if !["s3", "gs", "az"].contains(&scheme) {
            return Err(format!("{text:?} is neither a path nor s3://, gs:// or az://"));
        }
        let (bucket, path) = rest.split_once('/').unwrap_or((rest, ""));
        if bucket.is_empty() {
            return Err(format!("{text:?} names no bucket"));
        }
        let path = Path::parse(path).map_err(|error| format!("{text:?}: {error}"))?;
        Ok(Self::Remote { bucket: format!("{scheme}://{bucket}"), path })
    }

    /// Whether this lies in another place, or is it.
    pub(super) fn is_below(&self, above: &Self) -> bool {
        match (self, above) {
            (Self::Local(path), Self::Local(above)) => {
                let whole = |path: &PathBuf| std::path::absolute(path).unwrap_or_else(|_| path.clone());
                whole(path).starts_with(whole(above))
            }
            (Self::Remote { bucket, path }, Self::Remote { bucket: other, path: above }) => {
                bucket == other && path.prefix_matches(above)
            }
            _ => false,
        }
    }
}

/// What a store says went wrong, for the user. Its text has its causes' texts in it already.
pub(super) fn failed(what: impl Display, error: &object_store::Error) -> anyhow::Error {
    anyhow::anyhow!("{what}: {error}")
}

/// The buckets of a run, each opened once.
pub(super) struct Stores {
    retry: RetryConfig,
    open: Mutex<HashMap<String, Arc<dyn ObjectStore>>>,
}

impl Stores {
    /// What fails for a while is tried again for this long.
    pub(super) fn new(retry_timeout: Duration) -> Self {
        // An error says that another provider is there already, which serves as well.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let retry = RetryConfig { max_retries: usize::MAX, retry_timeout, ..RetryConfig::default() };
        Self { retry, open: Mutex::default() }
    }

    /// A bucket, with the credentials that the environment has for it.
    ///
    /// # Errors
    /// If its settings contradict each other.
    pub(super) fn bucket(&self, bucket: &str) -> object_store::Result<Arc<dyn ObjectStore>> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(store) = open.get(bucket) {
            return Ok(Arc::clone(store));
        }
        let retry = self.retry.clone();
        let store: Arc<dyn ObjectStore> = match bucket.split("://").next() {
            Some("gs") => Arc::new(GoogleCloudStorageBuilder::from_env().with_url(bucket).with_retry(retry).build()?),
            Some("az") => Arc::new(MicrosoftAzureBuilder::from_env().with_url(bucket).with_retry(retry).build()?),
            _ => Arc::new(AmazonS3Builder::from_env().with_url(bucket).with_retry(retry).build()?),
        };
        open.insert(bucket.to_owned(), Arc::clone(&store));
        Ok(store)
    }
}
