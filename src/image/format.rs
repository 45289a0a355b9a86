//! Which format a file has, and what its header says.

use super::{Format, Header, ImageError, Limits, bmp, gif, jpeg, png, sniff::foreign, tiff, webp};

/// Longest side in pixels, whatever the limits say: the most that JPEG can have. A narrow image of
/// millions of rows passes any limit on pixels, but the reference's resize widens each of its rows.
const MAX_SIDE: u32 = 65_535;

/// Finds the format from the content, reads the header and applies the limits. Takes microseconds and
/// allocates no pixels.
///
/// # Errors
/// Any [`ImageError`].
pub fn inspect(bytes: &[u8], limits: &Limits) -> Result<Header, ImageError> {
    if bytes.is_empty() {
        return Err(ImageError::Empty);
    }
    let unread = || foreign(bytes).map_or(ImageError::UnknownFormat, ImageError::Foreign);
    let format = sniff(bytes).ok_or_else(unread)?;
    let header = match format {
        Format::Jpeg => jpeg::inspect(bytes),
        Format::Png => png::inspect(bytes),
        Format::WebP => webp::inspect(bytes),
        Format::Gif => gif::inspect(bytes),
        Format::Bmp => bmp::inspect(bytes),
        Format::Tiff => tiff::inspect(bytes),
    }?;
    let (width, height) = (header.width, header.height);
    if width == 0 || height == 0 {
        return Err(header.undecodable("the header says that it has no pixels"));
    }
    if header.pixels() > limits.max_pixels {
        let max_pixels = limits.max_pixels;
        return Err(ImageError::TooLarge { width, height, max_pixels });
    }
    if width.max(height) > MAX_SIDE {
        let max_side = MAX_SIDE;
        return Err(ImageError::TooLong { width, height, max_side });
    }
    if width.min(height) < limits.min_side {
        let min_side = limits.min_side;
        return Err(ImageError::TooSmall { width, height, min_side });
    }
    if header.cost > limits.max_cost {
        return Err(ImageError::TooCostly { cost: header.cost, max_cost: limits.max_cost });
    }
    Ok(header)
}

/// The format that the first bytes announce, never a name or a declared type.
pub fn sniff(bytes: &[u8]) -> Option<Format> {
    let magics: [(&[u8], Format); 9] = [
        (b"\xff\xd8\xff", Format::Jpeg),
        (b"\x89PNG\r\n\x1a\n", Format::Png),
        (b"GIF87a", Format::Gif),
        (b"GIF89a", Format::Gif),
        (b"BM", Format::Bmp),
        (b"II*\0", Format::Tiff),
        (b"MM\0*", Format::Tiff),
        (b"II+\0", Format::Tiff),
        (b"MM\0+", Format::Tiff),
    ];
    if bytes.starts_with(b"RIFF") && bytes.get(8..12) == Some(b"WEBP") {
        return Some(Format::WebP);
    }
    magics.iter().find(|(magic, _)| bytes.starts_with(magic)).map(|&(_, format)| format)
}
