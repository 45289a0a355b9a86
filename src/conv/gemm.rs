//! A matrix product in registers: several rows times a panel two vectors wide.

use pulp::Simd;

use super::{
    LINE,
    kernel::{mul_add, prefetch},
};

/// Width of a panel in vectors.
pub(super) const PANEL: usize = 2;

/// Unrolled steps of depth. On a core shared with a sibling hyperthread, issue slots are the bottleneck: without
/// unrolling it took half as long again there (AVX2 on Zen 3).
const STEPS: usize = 4;

/// A row of a panel or of its product.
pub(super) type Columns<S> = [<S as Simd>::f32s; PANEL];

/// Rows of a matrix.
#[derive(Clone, Copy)]
pub(super) struct Rows<'a> {
    pub(super) values: &'a [f32],
    /// From the start of a row to that of the next one, in floats.
    pub(super) apart: usize,
}

impl<'a> Rows<'a> {
    fn skip(self, rows: usize) -> Self {
        Self { values: &self.values[rows * self.apart..], ..self }
    }
}

/// `a` (rows, depth) times `panel` (depth, columns). A row of the product is every `apart`-th value of `out`. The depth is
/// a multiple of every kernel's vector length, hence of [`STEPS`].
///
/// `ahead` are the weights after the panel: one panel's length of them is prefetched meanwhile. Without, the products of
/// the last layer, whose weights (26 MB) do not fit in the L2 cache, wait for memory a third of their time.
#[inline(always)]
pub(super) fn multiply<S: Simd>(
    simd: S,
    a: Rows<'_>,
    panel: &[Columns<S>],
    ahead: &[f32],
    out: &mut [Columns<S>],
    apart: usize,
) {
    let rows = out.len().div_ceil(apart);
    // The registers hold two accumulators a row, the panel's row and a value of `a`.
    let most = (S::REGISTER_COUNT - 4) / PANEL;
    let groups = rows.div_ceil(most);
    let mut done = 0;
    for group in 0..groups {
        // Groups of about equal size: a group of few rows has too few accumulators to keep the FMA units busy.
        let group_rows = (rows - done).div_ceil(groups - group);
        let (a, out) = (a.skip(done), &mut out[done * apart..]);
        let ahead = Ahead { weights: ahead, first: group, every: groups };
        macro_rules! dispatch {
            ($($rows:literal)*) => {
                match group_rows {
                    $($rows => group_product::<S, $rows>(simd, a, panel, ahead, out, apart),)*
                    _ => unreachable!("no CPU has more than 32 vector registers"),
                }
            };
        }
        dispatch!(1 2 3 4 5 6 7 8 9 10 11 12 13 14);
        done += group_rows;
    }
}

/// A group's share of what is prefetched, so that it is spread evenly over the time that the panel takes.
#[derive(Clone, Copy)]
struct Ahead<'a> {
    weights: &'a [f32],
    /// First of its chunks of [`STEPS`] rows, and the distance to its next one.
    first: usize,
    every: usize,
}

#[inline(always)]
fn group_product<S: Simd, const ROWS: usize>(
    simd: S,
    a: Rows<'_>,
    panel: &[Columns<S>],
    ahead: Ahead<'_>,
    out: &mut [Columns<S>],
    apart: usize,
) {
    let depth = panel.len();
    let (panel, _) = panel.as_chunks::<STEPS>();
    let mut rows = [a.values.as_chunks::<STEPS>().0; ROWS];
    for (row, start) in rows.iter_mut().enumerate() {
        *start = &a.skip(row).values[..depth].as_chunks().0[..panel.len()];
    }
    let mut sums = [[simd.splat_f32s(0.0); PANEL]; ROWS];
    let mut due = ahead.first;
    for k in 0..panel.len() {
        if k == due {
            due += ahead.every;
            let chunk = STEPS * PANEL * S::F32_LANES;
            for line in (0..chunk).step_by(LINE) {
                prefetch(ahead.weights, k * chunk + line);
            }
        }
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
    for (row, sum) in sums.into_iter().enumerate() {
        out[row * apart] = sum;
    }
}
