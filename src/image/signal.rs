use super::{Pixels, SIDE};

/// True if the NPR residue `x - up2(down2(x))` (nearest, the top-left pixel of each 2 x 2 block) is zero everywhere: a
/// flat image, or one enlarged two-fold by nearest neighbour. The network returns the same logit for every such image,
/// so it cannot be judged.
pub(super) fn no_signal(pixels: &Pixels) -> bool {
    let row_bytes = SIDE as usize * 3;
    pixels.as_bytes().chunks_exact(2 * row_bytes).all(|pair| {
        let (top, bottom) = pair.split_at(row_bytes);
        let flat = |row: &[u8]| row.chunks_exact(6).all(|p| p.get(..3) == p.get(3..));
        // Equal rows of horizontally flat pairs make every block one colour.
        top == bottom && flat(top)
    })
}
