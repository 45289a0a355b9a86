//! Copies between the host's memory and the GPU's.
#![allow(unsafe_code, reason = "the driver reads and writes through pointers into the GPU's memory")]

use std::ffi::c_void;

use super::{CudaError, Driver, driver::Handle};

/// Copies to and from the GPU in use. A copy is over when its function returns, so it is in order with whatever ran, or
/// will run, on any stream.
pub struct Copies {
    driver: &'static Driver,
    /// That of CUDA's runtime, and so of ONNX Runtime.
    context: Handle,
}

// SAFETY: the driver's handles may be used on any thread, and by several at once.
unsafe impl Send for Copies {}
// SAFETY: as above.
unsafe impl Sync for Copies {}

impl Copies {
    /// Opens the GPU's context.
    ///
    /// # Errors
    /// The driver's.
    pub fn new(driver: &'static Driver) -> Result<Self, CudaError> {
        Ok(Self { driver, context: driver.retain_context()? })
    }

    /// Copies to the GPU.
    ///
    /// # Errors
    /// The driver's.
    ///
    /// # Safety
    /// `from` is in pinned memory: of any other the driver may return before the bytes have arrived. `to` is the start of as
    /// many bytes in the GPU's memory, which nothing else uses meanwhile.
    pub unsafe fn to_gpu(&self, from: &[u8], to: *mut c_void) -> Result<(), CudaError> {
        // SAFETY: the caller's guarantee.
        self.driver.within(self.context, || unsafe { self.driver.copy_to_gpu(from, to) })
    }

    /// Copies from the GPU.
    ///
    /// # Errors
    /// The driver's.
    ///
    /// # Safety
    /// `from` is the start of as many bytes in the GPU's memory as `to` has, which nothing writes meanwhile, and they are
    /// values of its type.
    pub unsafe fn to_host<T: Copy>(&self, from: *const c_void, to: &mut [T]) -> Result<(), CudaError> {
        // SAFETY: the caller's guarantee.
        self.driver.within(self.context, || unsafe { self.driver.copy_to_host(from, to) })
    }
}

impl Drop for Copies {
    fn drop(&mut self) {
        self.driver.release_context();
    }
}
