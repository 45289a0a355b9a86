//! Cropping, rotation and mirroring (ISO 23008-12, section 6.5): which stored sample is shown where.

use serde::{Deserialize, Serialize};

/// The part of a stored picture that is shown, and how it is turned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct View {
    pub(super) left: u32,
    pub(super) top: u32,
    pub(super) width: u32,
    pub(super) height: u32,
    /// Rows and columns are swapped, before the part is mirrored.
    pub(super) swapped: bool,
    /// The part is mirrored left to right, and top to bottom.
    pub(super) mirrored: [bool; 2],
}

impl View {
    pub(super) fn whole([width, height]: [u32; 2]) -> Self {
        Self { left: 0, top: 0, width, height, swapped: false, mirrored: [false; 2] }
    }

    pub(super) fn is_turned(self) -> bool {
        self.swapped || self.mirrored != [false; 2]
    }

    /// Width and height as it is shown.
    pub(super) fn shown(self) -> (u32, u32) {
        if self.swapped { (self.height, self.width) } else { (self.width, self.height) }
    }

    /// Turned further by 90 degrees anti-clockwise.
    pub(super) fn rotated(self) -> Self {
        let Self { swapped, mirrored: [x, y], .. } = self;
        Self { swapped: !swapped, mirrored: if swapped { [x, !y] } else { [!x, y] }, ..self }
    }

    /// Mirrored further, left to right or top to bottom as it is shown.
    pub(super) fn flipped(self, left_to_right: bool) -> Self {
        let Self { swapped, mirrored: [x, y], .. } = self;
        Self { mirrored: if swapped == left_to_right { [x, !y] } else { [!x, y] }, ..self }
    }

    /// The stored column and row of a pixel that is shown.
    #[cfg(any(test, feature = "server"))]
    pub(super) fn stored(self, x: usize, y: usize) -> (usize, usize) {
        let (column, row) = if self.swapped { (y, x) } else { (x, y) };
        let mirror = |at: usize, side: u32, mirrored| if mirrored { (side as usize - 1).wrapping_sub(at) } else { at };
        let [across, down] = self.mirrored;
        (self.left as usize + mirror(column, self.width, across), self.top as usize + mirror(row, self.height, down))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The rows of a picture of 3 x 2 pixels as they are shown.
    fn rows(view: View) -> Vec<String> {
        let (width, height) = view.shown();
        let pixel = |x, y| {
            let (column, row) = view.stored(x, y);
            ["abc", "def"][row].as_bytes()[column] as char
        };
        (0..height as usize).map(|y| (0..width as usize).map(|x| pixel(x, y)).collect()).collect()
    }

    #[test]
    fn turns_add_up() {
        let whole = View::whole([3, 2]);
        assert_eq!(rows(whole), ["abc", "def"]);
        assert_eq!(rows(whole.rotated()), ["cf", "be", "ad"]);
        assert_eq!(rows(whole.rotated().rotated()), ["fed", "cba"]);
        assert_eq!(rows(whole.rotated().rotated().rotated()), ["da", "eb", "fc"]);
        assert_eq!(rows(whole.flipped(true)), ["cba", "fed"]);
        assert_eq!(rows(whole.flipped(false)), ["def", "abc"]);
        assert_eq!(rows(whole.rotated().flipped(true)), ["fc", "eb", "da"]);
        assert_eq!(rows(whole.rotated().flipped(false)), ["ad", "be", "cf"]);
        assert_eq!(rows(View { left: 1, top: 0, width: 2, height: 2, ..whole }.rotated()), ["cf", "be"]);
    }
}
