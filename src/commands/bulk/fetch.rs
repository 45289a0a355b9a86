//! Reading an object, a bounded number of bytes at a time over all.

use bytes::Bytes;
use object_store::{ObjectStore, ObjectStoreExt, path::Path};
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::{
    commands::scorer::check_size,
    error::{Code, Error},
};

/// The unit in which bytes are reserved: a semaphore counts to 2^29.
const UNIT: u64 = 1024;

/// How many bytes of objects are held at a time.
pub(super) struct Budget {
    units: Semaphore,
    all: u32,
}

impl Budget {
    pub(super) fn new(bytes: u32) -> Self {
        let all = bytes / UNIT as u32;
        Self { units: Semaphore::new(all as usize), all }
    }

    async fn reserve(&self, bytes: u64) -> Result<SemaphorePermit<'_>, Error> {
        // What is larger than the whole budget has it for itself.
        let units = u32::try_from(bytes.div_ceil(UNIT)).unwrap_or(u32::MAX).min(self.all);
        self.units.acquire_many(units).await.map_err(|_| Error::inference_failed())
    }
}

/// An object that was read.
pub(super) struct Fetched<'a> {
    pub(super) bytes: Bytes,
    /// The version that was read.
    pub(super) etag: Option<String>,
    _reserved: SemaphorePermit<'a>,
}

/// Reads an object in the version that was listed, where a listing named one.
///
/// # Errors
/// `changed` for another version; `body_too_large`; `unreadable`, when the store's retries have ended.
pub(super) async fn fetch<'a>(
    store: &dyn ObjectStore,
    path: &Path,
    listed: Option<&str>,
    limit: u64,
    budget: &'a Budget,
) -> Result<Fetched<'a>, Error> {
    let found = store.get(path).await.map_err(|error| unreadable(&error))?;
    let etag = found.meta.e_tag.clone();
    // One answer is of one version, also where its end had to be asked for again: object_store compares.
    if let (Some(listed), Some(found)) = (listed, &etag)
        && bare(listed) != bare(found)
    {
        let detail =
            format!("the object changed between listing and reading: ETag {listed} was listed, {found} is there");
        return Err(Error::new(Code::Changed, detail));
    }
    check_size(found.meta.size, limit)?;
    let reserved = budget.reserve(found.meta.size).await?;
    let bytes = found.bytes().await.map_err(|error| unreadable(&error))?;
    Ok(Fetched { bytes, etag, _reserved: reserved })
}

/// A store's listing and its answers quote differently.
fn bare(etag: &str) -> &str {
    etag.trim_start_matches("W/").trim_matches('"')
}

fn unreadable(error: &object_store::Error) -> Error {
    let detail = match error {
        object_store::Error::NotFound { .. } => "the object is not there".to_owned(),
        error => format!("the object cannot be read: {error}"),
    };
    Error::new(Code::Unreadable, detail)
}
