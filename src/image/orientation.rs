//! Orientation: how a viewer rotates and mirrors a stored picture.

/// Values 1 to 8 of the orientation tag (TIFF 6.0 page 36), also used by EXIF; 1 is the identity.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Orientation(pub(super) u8);

impl Orientation {
    /// Rows and columns are swapped.
    pub(super) fn is_transposed(self) -> bool {
        self.0 >= 5
    }

    /// The stored first row is shown at the opposite side: at the bottom, or on the right.
    pub(super) fn reverses_rows(self) -> bool {
        matches!(self.0, 3 | 4 | 6 | 7)
    }

    /// The stored first column is shown at the opposite side.
    pub(super) fn reverses_columns(self) -> bool {
        matches!(self.0, 2 | 3 | 7 | 8)
    }

    /// Where a box of the stored picture, of `width` x `height`, is shown.
    pub(super) fn seen(self, width: u32, height: u32, [x0, y0, x1, y1]: [u32; 4]) -> [u32; 4] {
        let [x0, x1] = if self.reverses_columns() { reverse(width, [x0, x1]) } else { [x0, x1] };
        let [y0, y1] = if self.reverses_rows() { reverse(height, [y0, y1]) } else { [y0, y1] };
        if self.is_transposed() { [y0, x0, y1, x1] } else { [x0, y0, x1, y1] }
    }

    /// The inverse orientation.
    pub(super) fn inverse(self) -> Self {
        match self.0 {
            6 => Self(8),
            8 => Self(6),
            _ => self,
        }
    }
}

fn reverse(size: u32, [from, to]: [u32; 2]) -> [u32; 2] {
    [size.saturating_sub(to), size.saturating_sub(from)]
}
