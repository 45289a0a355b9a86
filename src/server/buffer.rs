//! The buffer that bytes of a request are gathered in.

use crate::{
    error::{Code, Error},
    scheduler::{Scheduler, Share},
};

/// Reserves memory for `capacity` bytes in all, first in the budget, then in fact.
///
/// # Errors
/// `overloaded` when either has no more.
pub(super) fn grow(scheduler: &Scheduler, held: &mut Share, bytes: &mut Vec<u8>, capacity: usize) -> Result<(), Error> {
    let more = capacity.saturating_sub(bytes.capacity());
    scheduler.grow_bytes(held, more as u64)?;
    bytes.try_reserve_exact(capacity - bytes.len()).map_err(|_| scheduler.out_of_memory())
}

pub(crate) fn too_large(limit: u64) -> Error {
    Error::new(Code::BodyTooLarge, format!("the body is larger than the limit of {limit} bytes"))
}
