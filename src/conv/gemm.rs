//! A matrix product in registers: several rows times a panel two vectors wide.

use pulp::Simd;

use super::kernel::mul_add;

/// Width of a panel in vectors.
pub(super) const PANEL: usize = 2;

/// Unrolled steps of depth. On a core shared with a sibling hyperthread, issue slots are the bottleneck: without
/// unrolling it took half as long again there (AVX2 on Zen 3).
const STEPS: usize = 4;

/// A row of a panel or of its product.
pub(super) type Columns<S> = [<S as Simd>::f32s; PANEL];

/// `a` (rows, depth) times `panel` (depth, columns) into `out` (rows, columns). The depth is a multiple of every
/// kernel's vector length, hence of [`STEPS`].
#[inline(always)]
pub(super) fn multiply<S: Simd>(simd: S, a: &[f32], panel: &[Columns<S>], out: &mut [Columns<S>]) {
    let (depth, rows) = (panel.len(), out.len());
    // The registers hold two accumulators a row, the panel's row and a value of `a`.
    let most = (S::REGISTER_COUNT - 4) / PANEL;
    let groups = rows.div_ceil(most);
    let mut done = 0;
    for group in 0..groups {
        // Groups of about equal size: a group of few rows has too few accumulators to keep the FMA units busy.
        let group_rows = (rows - done).div_ceil(groups - group);
        let (a, out) = (&a[done * depth..], &mut out[done..]);
        macro_rules! dispatch {
            ($($rows:literal)*) => {
                match group_rows {
                    $($rows => group_product::<S, $rows>(simd, a, panel, out),)*
                    _ => unreachable!("no CPU has more than 32 vector registers"),
                }
            };
        }
        dispatch!(1 2 3 4 5 6 7 8 9 10 11 12 13 14);
        done += group_rows;
    }
}

#[inline(always)]
fn group_product<S: Simd, const ROWS: usize>(simd: S, a: &[f32], panel: &[Columns<S>], out: &mut [Columns<S>]) {
    let depth = panel.len();
    let (panel, _) = panel.as_chunks::<STEPS>();
    let mut rows = [a.as_chunks::<STEPS>().0; ROWS];
    for (row, start) in rows.iter_mut().enumerate() {
        *start = &a[row * depth..][..depth].as_chunks().0[..panel.len()];
    }
    let mut sums = [[simd.splat_f32s(0.0); PANEL]; ROWS];
    for k in 0..panel.len() {
        for step in 0..STEPS {
            let [left, right] = panel[k][step];
            // By index, over a constant number of rows: so the compiler keeps all sums in registers.
            for row in 0..ROWS {
                let value = simd.splat_f32s(rows[row][k][step]);
                sums[row][0] = mul_add(simd, value, left, sums[row][0]);
                sums[row][1] = mul_add(simd, value, right, sums[row][1]);
            }
        }
    }
    out[..ROWS].copy_from_slice(&sums);
}
