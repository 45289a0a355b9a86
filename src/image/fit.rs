//! How a picture of any size is brought to the input of a network: what is resized to what, with which filter, and
//! which part is kept. The arithmetic is torchvision's `Resize` and `CenterCrop` on Pillow images.

use super::SIDE;

/// Limits of a network's input and of what a picture is resized to, a side.
pub const MOST_SIDE: u32 = 2048;

/// A filter of Pillow's `Image.resize`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Filter {
    /// The triangle filter.
    Bilinear,
    /// The cubic filter with a = -0.5.
    Bicubic,
}

impl Filter {
    /// The word in the manifest and on the command line.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Bilinear => "bilinear",
            Self::Bicubic => "bicubic",
        }
    }
}

/// What a picture is resized to before the centre is cut out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scale {
    /// Nothing: tiles of native pixels. A picture smaller than the input is resized to it.
    Native,
    /// The shorter side to this, the other in proportion.
    Shorter(u32),
    /// Width and height to these, regardless of aspect.
    Both(u32, u32),
}

/// The preprocessing that a network other than LFM was trained with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Recipe {
    /// Width of the network's input.
    pub width: u32,
    /// Its height.
    pub height: u32,
    /// What the picture is resized to.
    pub scale: Scale,
    /// With which filter.
    pub filter: Filter,
}

impl Recipe {
    /// # Errors
    /// The first value that makes no sense, for the operator.
    pub fn check(&self) -> Result<(), String> {
        let (width, height) = (self.width, self.height);
        let (scaled_width, scaled_height) = match self.scale {
            Scale::Native => (width, height),
            Scale::Shorter(side) => (side, side),
            Scale::Both(width, height) => (width, height),
        };
        if [width, height, scaled_width, scaled_height].iter().any(|side| !(1..=MOST_SIDE).contains(side)) {
            return Err(format!("a side of the input or of the resized picture is not 1 to {MOST_SIDE}"));
        }
        // torchvision would pad with black.
        if scaled_width < width || scaled_height < height {
            return Err(format!(
                "the picture is resized to {scaled_width} x {scaled_height}, less than the input of {width} x {height}"
            ));
        }
        Ok(())
    }
}

impl std::fmt::Display for Recipe {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { width, height, scale, filter } = self;
        let filter = filter.as_str();
        match scale {
            Scale::Native => write!(f, "tiles of {width} x {height}; smaller pictures resized ({filter})"),
            Scale::Shorter(side) => write!(f, "shorter side to {side} ({filter}), centre {width} x {height}"),
            Scale::Both(w, h) => write!(f, "resized to {w} x {h} ({filter}), centre {width} x {height}"),
        }
    }
}

/// One axis of a resize: `size` samples become `total`, of which `len` from `offset` on are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct AxisFit {
    pub(super) size: u32,
    pub(super) total: u32,
    pub(super) offset: u32,
    pub(super) len: u32,
}

impl AxisFit {
    /// All of it.
    pub(super) fn whole(size: u32, len: u32) -> Self {
        Self { size, total: len, offset: 0, len }
    }

    /// The centre, as torchvision's `center_crop` rounds: half to even.
    fn centre(size: u32, total: u32, len: u32) -> Self {
        let rest = total.saturating_sub(len);
        let half = rest / 2;
        Self { size, total, offset: half + ((rest % 2) & (half % 2)), len }
    }
}

/// A resize.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Fit {
    pub(super) x: AxisFit,
    pub(super) y: AxisFit,
    pub(super) filter: Filter,
}

impl Fit {
    /// LFM's.
    pub(super) fn square(width: u32, height: u32) -> Self {
        Self { x: AxisFit::whole(width, SIDE), y: AxisFit::whole(height, SIDE), filter: Filter::Bilinear }
    }

    /// What `recipe` makes of a picture of this size.
    pub(super) fn of(recipe: &Recipe, width: u32, height: u32) -> Self {
        let (wide, high) = match recipe.scale {
            Scale::Native => (recipe.width, recipe.height),
            Scale::Both(wide, high) => (wide, high),
            Scale::Shorter(side) => {
                // `int(side * long / short)`: exact below 2^53, so a whole division.
                let longer = |long: u32, short: u32| {
                    let longer = u64::from(side) * u64::from(long) / u64::from(short.max(1));
                    u32::try_from(longer).unwrap_or(u32::MAX)
                };
                if width <= height { (side, longer(height, width)) } else { (longer(width, height), side) }
            }
        };
        let x = AxisFit::centre(width, wide, recipe.width);
        Self { x, y: AxisFit::centre(height, high, recipe.height), filter: recipe.filter }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Calculated with torchvision's formulas: `int(side * long / short)`, `round((size - crop) / 2)`.
    #[test]
    fn sizes_and_offsets_are_torchvisions() {
        let recipe = Recipe { width: 224, height: 224, scale: Scale::Shorter(256), filter: Filter::Bilinear };
        let fit = |width, height| {
            let Fit { x, y, .. } = Fit::of(&recipe, width, height);
            [x.total, x.offset, y.total, y.offset]
        };
        assert_eq!(fit(640, 427), [383, 80, 256, 16]); // 79.5 to 80
        assert_eq!(fit(427, 640), [256, 16, 383, 80]);
        assert_eq!(fit(500, 333), [384, 80, 256, 16]);
        assert_eq!(fit(333, 501), [256, 16, 385, 80]); // 80.5 to 80
        assert_eq!(fit(65_535, 1), [16_776_960, 8_388_368, 256, 16]);
    }

    #[test]
    fn a_recipe_that_would_pad_is_refused() {
        let recipe = |scale| Recipe { width: 384, height: 224, scale, filter: Filter::Bicubic };
        assert!(recipe(Scale::Shorter(224)).check().is_err());
        assert!(recipe(Scale::Shorter(384)).check().is_ok());
        assert!(recipe(Scale::Both(384, 200)).check().is_err());
        assert!(recipe(Scale::Both(384, 224)).check().is_ok());
        assert!(recipe(Scale::Shorter(4096)).check().is_err());
    }
}
