//! Any rows: both kernels give what a stable sort gives.

#![no_main]

use std::cmp::Ordering;

use lfm_serve::topk::Kernel;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some((&[k, length, repeat], rest)) = data.split_first_chunk::<3>() else { return };
    let row_len = usize::from(length) * 4 + 1;
    let k = usize::from(k) % row_len.min(40) + 1;
    // Few bytes make many values: rows that repeat are the ones that defeat a bound.
    let values: Vec<f32> =
        rest.chunks_exact(4).map(|bits| f32::from_le_bytes([bits[0], bits[1], bits[2], bits[3]])).collect();
    if values.is_empty() {
        return;
    }
    let row: Vec<f32> = (0..row_len).map(|i| values[(i / (usize::from(repeat) + 1)) % values.len()]).collect();

    let mut order: Vec<usize> = (0..row_len).collect();
    order.sort_by(|&a, &b| descending(row[a], row[b]).then(a.cmp(&b)));
    for kernel in [Some(Kernel::PORTABLE), Kernel::avx2()].into_iter().flatten() {
        let (mut top, mut places) = (vec![0.0; k], vec![0; k]);
        kernel.top_k(k, row_len, &row, &mut top, &mut places).expect("the shapes fit");
        for (rank, &place) in order.iter().take(k).enumerate() {
            assert_eq!(places[rank], place as i64, "{}", kernel.name());
            assert_eq!(top[rank].to_bits(), row[place].to_bits(), "{}", kernel.name());
        }
    }
});

/// NaN first, then larger first; -0 and +0 are equal.
fn descending(a: f32, b: f32) -> Ordering {
    b.is_nan().cmp(&a.is_nan()).then_with(|| b.partial_cmp(&a).unwrap_or(Ordering::Equal))
}
