//! A manifest's `input`, of format 3: how a picture becomes the network's input. `image` does not depend on serde.

use serde::{Deserialize, Serialize};

use crate::image::{Filter, Recipe, Scale};

/// How a picture becomes the network's input.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Input {
    width: u32,
    height: u32,
    resize: Resize,
    filter: FilterName,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Resize {
    None,
    Shorter(u32),
    Both([u32; 2]),
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum FilterName {
    Bilinear,
    Bicubic,
}

impl From<Input> for Recipe {
    fn from(Input { width, height, resize, filter }: Input) -> Self {
        let scale = match resize {
            Resize::None => Scale::Native,
            Resize::Shorter(side) => Scale::Shorter(side),
            Resize::Both([width, height]) => Scale::Both(width, height),
        };
        let filter = match filter {
            FilterName::Bilinear => Filter::Bilinear,
            FilterName::Bicubic => Filter::Bicubic,
        };
        Self { width, height, scale, filter }
    }
}

impl From<Recipe> for Input {
    fn from(Recipe { width, height, scale, filter }: Recipe) -> Self {
        let resize = match scale {
            Scale::Native => Resize::None,
            Scale::Shorter(side) => Resize::Shorter(side),
            Scale::Both(width, height) => Resize::Both([width, height]),
        };
        let filter = match filter {
            Filter::Bilinear => FilterName::Bilinear,
            Filter::Bicubic => FilterName::Bicubic,
        };
        Self { width, height, resize, filter }
    }
}
