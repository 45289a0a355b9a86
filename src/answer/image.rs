//! What the image is.

use serde::Serialize;

use crate::image::ImageFacts;

/// What the image is.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
pub struct ImageInfo {
    /// Format, from the content: `jpeg`, `png`, `webp`, `gif`, `bmp`, `tiff`.
    format: &'static str,
    /// Width in pixels, as stored.
    width: u32,
    /// Height in pixels, as stored.
    height: u32,
    /// Size of the file.
    bytes: usize,
    /// Hash of the file, hexadecimal.
    sha256: String,
    /// Pictures in the file: frames of an animation, pages, views. The first is judged.
    #[cfg_attr(feature = "server", schema(minimum = 1))]
    frames: u32,
    /// EXIF orientation, 1 to 8; the network judges the stored pixels as they are.
    #[cfg_attr(feature = "server", schema(minimum = 1, maximum = 8))]
    exif_orientation: u8,
    /// Hash of the first region's 256x256 RGB bytes, which entered the network (command line only).
    #[serde(skip_serializing_if = "Option::is_none")]
    rgb256_sha256: Option<String>,
}

impl From<&ImageFacts> for ImageInfo {
    fn from(image: &ImageFacts) -> Self {
        Self {
            format: image.header.format.as_str(),
            width: image.header.width,
            height: image.header.height,
            bytes: image.bytes,
            sha256: crate::hex(&image.sha256),
            frames: image.header.frames,
            exif_orientation: image.header.exif_orientation,
            rgb256_sha256: image.rgb256_sha256.map(|hash| crate::hex(&hash)),
        }
    }
}
