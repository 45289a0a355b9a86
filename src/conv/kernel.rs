//! Instruction sets of the convolutions.

#[cfg(target_arch = "x86_64")]
use pulp::x86::{V3, V4};
use pulp::{Scalar128b, Simd, WithSimd};

/// An instruction set that this CPU supports. All share one source, compiled once for each.
#[derive(Clone, Copy, Debug)]
pub struct Kernel(Variant);

#[derive(Clone, Copy, Debug)]
enum Variant {
    Portable,
    #[cfg(target_arch = "x86_64")]
    Avx2(V3),
    #[cfg(target_arch = "x86_64")]
    Avx512(V4),
}

impl Kernel {
    /// Plain Rust, for any CPU.
    pub const PORTABLE: Self = Self(Variant::Portable);

    /// Those that this CPU can run, the fastest first.
    pub fn all() -> impl Iterator<Item = Self> {
        #[cfg(target_arch = "x86_64")]
        let fast = [V4::try_new().map(Variant::Avx512), V3::try_new().map(Variant::Avx2)];
        #[cfg(not(target_arch = "x86_64"))]
        let fast: [Option<Variant>; 0] = [];
        fast.into_iter().flatten().map(Self).chain([Self::PORTABLE])
    }

    /// The fastest for this CPU.
    #[must_use]
    pub fn fastest() -> Self {
        Self::all().next().unwrap_or(Self::PORTABLE)
    }

    /// Short name for reports: `portable`, `avx2` (with FMA) or `avx512`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self.0 {
            Variant::Portable => "portable",
            #[cfg(target_arch = "x86_64")]
            Variant::Avx2(_) => "avx2",
            #[cfg(target_arch = "x86_64")]
            Variant::Avx512(_) => "avx512",
        }
    }

    /// Floats in a vector.
    pub(super) fn lanes(self) -> usize {
        match self.0 {
            Variant::Portable => Scalar128b::F32_LANES,
            #[cfg(target_arch = "x86_64")]
            Variant::Avx2(_) => V3::F32_LANES,
            #[cfg(target_arch = "x86_64")]
            Variant::Avx512(_) => V4::F32_LANES,
        }
    }

    pub(super) fn run<W: WithSimd>(self, work: W) -> W::Output {
        match self.0 {
            Variant::Portable => Simd::vectorize(Scalar128b, work),
            #[cfg(target_arch = "x86_64")]
            Variant::Avx2(simd) => Simd::vectorize(simd, work),
            #[cfg(target_arch = "x86_64")]
            Variant::Avx512(simd) => Simd::vectorize(simd, work),
        }
    }
}

/// `factor * a + b`, rounded once where the CPU has FMA. The portable kernel, recognised by its short vectors, rounds
/// twice: pulp would emulate FMA there, a hundred times slower.
#[inline(always)]
pub(super) fn mul_add<S: Simd>(simd: S, factor: S::f32s, a: S::f32s, b: S::f32s) -> S::f32s {
    if S::F32_LANES == Scalar128b::F32_LANES {
        simd.add_f32s(simd.mul_f32s(factor, a), b)
    } else {
        simd.mul_add_f32s(factor, a, b)
    }
}

/// The vector at `at`, padded with zeros past the end of `values`.
#[inline(always)]
pub(super) fn load<S: Simd>(simd: S, values: &[f32], at: usize) -> S::f32s {
    let values = &values[at..];
    match S::as_simd_f32s(values).0.first() {
        Some(&vector) => vector,
        None => simd.partial_load_f32s(values),
    }
}

/// Stores a vector at `at`, truncated at the end of `values`.
#[inline(always)]
pub(super) fn store<S: Simd>(simd: S, values: &mut [f32], at: usize, vector: S::f32s) {
    let values = &mut values[at..];
    match S::as_mut_simd_f32s(values).0.first_mut() {
        Some(place) => *place = vector,
        None => simd.partial_store_f32s(values, vector),
    }
}

/// Asks for the cache line of `values[at]`, which may lie past their end. Memory that was last used a layer ago is in the
/// L3 cache at best, and the hardware does not recognise a tile's walk through it.
#[inline(always)]
pub(super) fn prefetch(values: &[f32], at: usize) {
    #[cfg(target_arch = "x86_64")]
    #[allow(unsafe_code, reason = "the intrinsic takes a pointer")]
    // SAFETY: a prefetch of any address is allowed and changes no value.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T0>(values.as_ptr().wrapping_add(at).cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (values, at);
}
