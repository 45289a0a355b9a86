//! The Top-K kernels against a stable sort.

use super::report::Finding;
use crate::topk::{Kernel, TopKError, by_stable_sort};

/// Rows as in the network: a 30x30 map, of which 16 values are taken.
const ROW: usize = 900;
const K: usize = 16;
const ROWS: usize = 512;

/// Every kernel of this machine.
pub(super) fn check() -> Result<Finding, anyhow::Error> {
    let mut names = Vec::new();
    for kernel in [Some(Kernel::PORTABLE), Kernel::avx2()].into_iter().flatten() {
        check_kernel(|row, values, indices| kernel.top_k(K, row.len(), row, values, indices))
            .map_err(|error| error.context(format!("the {} kernel", kernel.name())))?;
        names.push(kernel.name());
    }
    Ok(Finding::ok(format!("Top-K as a stable sort on {ROWS} rows: {}", names.join(", "))))
}

/// One kernel, as `top_k(row, values, indices)`.
fn check_kernel(top_k: impl Fn(&[f32], &mut [f32], &mut [i64]) -> Result<(), TopKError>) -> Result<(), anyhow::Error> {
    for (number, row) in rows().enumerate() {
        let (mut values, mut indices) = ([0.0_f32; K], [0_i64; K]);
        top_k(&row, &mut values, &mut indices)?;
        let (expected_values, expected_indices) = by_stable_sort(&row, K);
        let values = values.map(f32::to_bits);
        let wrong = (0..K).find(|&rank| {
            values.get(rank) != expected_values.get(rank) || indices.get(rank) != expected_indices.get(rank)
        });
        if let Some(rank) = wrong {
            anyhow::bail!("disagrees with a stable sort at place {rank} of row {number}");
        }
    }
    Ok(())
}

/// Fixed pseudo-random rows: any values, few distinct ones (many ties), zeros of both signs, sorted ones.
fn rows() -> impl Iterator<Item = Vec<f32>> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = move || {
        // xorshift64 (Marsaglia 2003, "Xorshift RNGs").
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u32
    };
    (0..ROWS).map(move |number| {
        let mut row: Vec<f32> = (0..ROW)
            .map(|_| {
                let bits = random();
                match number % 4 {
                    0 | 3 => bits as f32 / u32::MAX as f32 - 0.5,
                    1 => (bits % 5) as f32,
                    _ => [0.0, -0.0, -1.0, -2.0].get(bits as usize % 16).copied().unwrap_or(-3.0),
                }
            })
            .collect();
        if number % 4 == 3 {
            row.sort_by(f32::total_cmp);
        }
        row
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The correct op with an injected error.
    fn spoilt(spoil: impl Fn(&mut [f32], &mut [i64])) -> String {
        let op = |row: &[f32], values: &mut [f32], indices: &mut [i64]| {
            Kernel::PORTABLE.top_k(K, row.len(), row, values, indices)?;
            spoil(values, indices);
            Ok(())
        };
        check_kernel(op).unwrap_err().to_string()
    }

    #[test]
    fn an_op_that_disagrees_is_found() {
        assert!(check_kernel(|row, values, indices| Kernel::PORTABLE.top_k(K, ROW, row, values, indices)).is_ok());
        assert_eq!(spoilt(|values, _| values[15] += 1.0), "disagrees with a stable sort at place 15 of row 0");
        // Ties in another order: right values, wrong indices.
        let ties = spoilt(|values, indices| {
            if values[3] == values[4] {
                indices.swap(3, 4);
            }
        });
        assert_eq!(ties, "disagrees with a stable sort at place 3 of row 1");
        // The sign of a zero.
        assert!(spoilt(|values, _| values.iter_mut().for_each(|x| *x += 0.0)).ends_with("row 2"));
        let refused = check_kernel(|row, values, indices| Kernel::PORTABLE.top_k(0, ROW, row, values, indices));
        assert_eq!(refused.unwrap_err().to_string(), "k is 0, must be from 1 to the 900 values of a row");
    }
}
