//! Top-K of the rows of a matrix: the pooling of the LFM detector (top `k` of each feature map).
//!
//! Every kernel gives the same result, to the last bit:
//! * descending order; equal values keep the order of their indices (lowest first);
//! * `-0.0` and `+0.0` are equal, and NaN ranks above `+inf`, all NaN being equal, as in ONNX
//!   Runtime 1.32 (1.31 misplaces values after a NaN; ONNX leaves NaN undefined: onnx/onnx#4716);
//! * the values are the row's own bits: the sign of a zero and the payload of a NaN survive.
//!
//! The fast path never sorts a row. The maxima of 32 columns give a bound that at least `k` values
//! reach; the few values above it are collected and ranked; the remaining results equal the bound
//! and are taken from the left. Its cost hardly depends on the data: rows of equal values are no
//! slower than random ones. Rows with too many values above the bound, and `k` above 16, take a
//! slower general path.

#[cfg(target_arch = "x86_64")]
mod avx2;
mod key;
mod lanes;
mod portable;
mod prune;
mod reference;
#[cfg(test)]
mod tests;

pub use reference::by_stable_sort;

/// Invalid shapes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TopKError {
    /// `k` must be at least 1 and at most the row's length.
    #[error("k is {k}, must be from 1 to the {row_len} values of a row")]
    K {
        /// Values wanted of each row.
        k: usize,
        /// Values in a row.
        row_len: usize,
    },
    /// A row's indices must fit an `i32`.
    #[error("a row of {row_len} values is too long")]
    RowTooLong {
        /// Values in a row.
        row_len: usize,
    },
    /// The slices do not hold the same whole number of rows.
    #[error("{input} inputs, {values} values, {indices} indices: not the same number of rows")]
    Length {
        /// Length of the input.
        input: usize,
        /// Length of the output for values.
        values: usize,
        /// Length of the output for indices.
        indices: usize,
    },
}

/// Checks `k` and a row's length against the limits of all kernels, the GPU kernel included.
///
/// # Errors
/// If `k` is 0 or above `row_len`, or a row is longer than `i32::MAX`.
pub fn check(k: usize, row_len: usize) -> Result<(), TopKError> {
    if k == 0 || k > row_len {
        return Err(TopKError::K { k, row_len });
    }
    match i32::try_from(row_len) {
        Ok(_) => Ok(()),
        Err(_) => Err(TopKError::RowTooLong { row_len }),
    }
}

/// An implementation of Top-K that this machine can run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kernel(Variant);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Variant {
    Portable,
    #[cfg(target_arch = "x86_64")]
    Avx2(avx2::Avx2),
}

impl Kernel {
    /// The kernel in plain Rust, for any CPU.
    pub const PORTABLE: Self = Self(Variant::Portable);

    /// The AVX2 kernel, if this CPU has AVX2.
    #[must_use]
    pub fn avx2() -> Option<Self> {
        #[cfg(target_arch = "x86_64")]
        return avx2::Avx2::detect().map(|avx2| Self(Variant::Avx2(avx2)));
        #[cfg(not(target_arch = "x86_64"))]
        None
    }

    /// The fastest kernel for this CPU.
    #[must_use]
    pub fn fastest() -> Self {
        Self::avx2().unwrap_or(Self::PORTABLE)
    }

    /// Short name for reports: `portable` or `avx2`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self.0 {
            Variant::Portable => "portable",
            #[cfg(target_arch = "x86_64")]
            Variant::Avx2(_) => "avx2",
        }
    }

    /// Top `k` of each row of `input` (rows x `row_len`, row-major) into `values` and `indices`
    /// (rows x `k`, row-major); an index counts from the start of its row. There may be no rows.
    ///
    /// # Errors
    /// [`TopKError`] if `k` is 0 or above `row_len`, if a row is longer than `i32::MAX`, or if the
    /// three slices do not hold the same whole number of rows. Nothing is written then.
    pub fn top_k(
        self,
        k: usize,
        row_len: usize,
        input: &[f32],
        values: &mut [f32],
        indices: &mut [i64],
    ) -> Result<(), TopKError> {
        check(k, row_len)?;
        let rows = input.len() / row_len;
        let whole = input.len() == rows * row_len;
        // `k <= row_len` and `rows * row_len` is the length of a slice: no overflow.
        if !whole || values.len() != rows * k || indices.len() != rows * k {
            return Err(TopKError::Length { input: input.len(), values: values.len(), indices: indices.len() });
        }
        let outputs = values.chunks_exact_mut(k).zip(indices.chunks_exact_mut(k));
        for (row, (values, indices)) in input.chunks_exact(row_len).zip(outputs) {
            match self.0 {
                Variant::Portable => portable::select(row, values, indices),
                #[cfg(target_arch = "x86_64")]
                Variant::Avx2(avx2) => avx2.select(row, values, indices),
            }
        }
        Ok(())
    }
}
