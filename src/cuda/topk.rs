//! Launches the Top-K kernel.
#![allow(unsafe_code, reason = "the kernel reads and writes through pointers into the GPU's memory")]

use std::ffi::{CStr, c_longlong, c_uint, c_void};

use super::{CudaError, Driver, Stream, driver::Handle};

/// The kernel for compute capability 7.5; the driver compiles it for the actual GPU.
const PTX: &str = concat!(include_str!("topk.ptx"), "\0");
const FUNCTION: &CStr = c"lfm_top_k";

/// As in topk.cu.
const WARPS_A_BLOCK: usize = 4;
const THREADS: c_uint = 32 * WARPS_A_BLOCK as c_uint;

/// The kernel, loaded for one GPU.
pub struct TopK {
    driver: &'static Driver,
    context: Handle,
    module: Handle,
    function: Handle,
}

// SAFETY: the driver's handles may be used on any thread, and by several at once.
unsafe impl Send for TopK {}
// SAFETY: as above.
unsafe impl Sync for TopK {}

/// Rows of equal length in GPU memory, and room for their results.
#[derive(Debug, Clone, Copy)]
pub struct Rows {
    /// Number of rows.
    pub rows: usize,
    /// Values in each, at most `i32::MAX`.
    pub row_len: usize,
    /// Values taken of each, 1 to `row_len`.
    pub k: usize,
    /// rows x row_len values.
    pub input: *const f32,
    /// Room for rows x k.
    pub values: *mut f32,
    /// Room for rows x k.
    pub indices: *mut i64,
}

impl TopK {
    /// Loads the kernel for the GPU that `stream` belongs to.
    ///
    /// # Errors
    /// The driver's error: it is too old for the PTX, or the stream is invalid.
    pub fn load(driver: &'static Driver, stream: Stream) -> Result<Self, CudaError> {
        // The terminating null is added above.
        let ptx = CStr::from_bytes_with_nul(PTX.as_bytes()).unwrap_or_default();
        let context = driver.context_of(stream)?;
        let (module, function) = driver.within(context, || driver.load(ptx, FUNCTION))?;
        Ok(Self { driver, context, module, function })
    }

    /// Enqueues the Top-K of every row on `stream`, in the order that [`crate::topk`] documents. There may be no rows.
    ///
    /// # Errors
    /// A stream of another GPU, or the driver's error.
    ///
    /// # Safety
    /// The pointers are in the stream's GPU and have the sizes given by [`Rows`], and stay valid until the stream has
    /// completed this launch.
    pub unsafe fn launch(&self, stream: Stream, rows: Rows) -> Result<(), CudaError> {
        if rows.rows == 0 {
            return Ok(());
        }
        if self.driver.context_of(stream)? != self.context {
            return Err(CudaError::OtherDevice);
        }
        // The most blocks of a grid are 2^31 - 1.
        let blocks = i32::try_from(rows.rows.div_ceil(WARPS_A_BLOCK)).map_err(|_| CudaError::TooManyRows(rows.rows))?;
        let Rows { rows, row_len, k, mut input, mut values, mut indices } = rows;
        let (mut rows, mut row_len, mut k) = (rows as c_longlong, row_len as c_uint, k as c_uint);
        let mut parameters: [*mut c_void; 6] = [
            (&raw mut input).cast(),
            (&raw mut values).cast(),
            (&raw mut indices).cast(),
            (&raw mut rows).cast(),
            (&raw mut row_len).cast(),
            (&raw mut k).cast(),
        ];
        self.driver.within(self.context, || {
            // SAFETY: the parameters are those of `lfm_top_k`, in order; the caller guarantees the pointers.
            unsafe { self.driver.launch(self.function, blocks as c_uint, THREADS, stream, &mut parameters) }
        })
    }
}

impl Drop for TopK {
    fn drop(&mut self) {
        let _ = self.driver.within(self.context, || {
            self.driver.unload(self.module);
            Ok(())
        });
    }
}
