//! The part of a picture that its regions cover.

/// The share of `width` x `height` pixels in the union of `boxes`.
pub(super) fn covered(boxes: &[[u32; 4]], width: u32, height: u32) -> f64 {
    let mut rows: Vec<u32> = boxes.iter().flat_map(|&[_, y0, _, y1]| [y0, y1]).collect();
    rows.sort_unstable();
    rows.dedup();
    let area: u64 = rows.windows(2).map(|row| u64::from(row[1] - row[0]) * within(boxes, row[0])).sum();
    area as f64 / (f64::from(width) * f64::from(height)).max(1.0)
}

/// Pixels of row `y` in any of the boxes.
fn within(boxes: &[[u32; 4]], y: u32) -> u64 {
    let mut spans: Vec<[u32; 2]> =
        boxes.iter().filter(|&&[_, y0, _, y1]| (y0..y1).contains(&y)).map(|&[x0, _, x1, _]| [x0, x1]).collect();
    spans.sort_unstable();
    let mut end = 0;
    spans.into_iter().fold(0, |sum, [x0, x1]| {
        let fresh = u64::from(x1.saturating_sub(x0.max(end)));
        end = end.max(x1);
        sum + fresh
    })
}
