//! The rate of multiply-adds that a CPU reaches without memory: what the layers' rates are compared with.

use std::hint::black_box;

use pulp::{Simd, WithSimd};

use super::kernel::{Kernel, mul_add};

/// Independent sums: more than the FMA units have in flight (two of them, four cycles each), and within the registers of
/// every instruction set.
const SUMS: usize = 12;

impl Kernel {
    /// Computes at least `least` multiply-adds in registers; returns their number.
    pub fn multiply_adds(self, least: u64) -> u64 {
        let step = (SUMS * self.lanes()) as u64;
        let steps = least.div_ceil(step);
        self.run(InRegisters(steps));
        steps * step
    }
}

struct InRegisters(u64);

impl WithSimd for InRegisters {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        // Not constants, which the compiler would compute with; the sums tend to 1.
        let (factor, term) = black_box((0.75, 0.25));
        let (factor, term) = (simd.splat_f32s(factor), simd.splat_f32s(term));
        let mut sums = [simd.splat_f32s(0.0); SUMS];
        for _ in 0..self.0 {
            for sum in &mut sums {
                *sum = mul_add(simd, factor, *sum, term);
            }
        }
        black_box(sums);
    }
}
