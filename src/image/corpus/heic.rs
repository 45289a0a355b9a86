//! HEIC: files made once by pillow-heif, since there is no encoder here. `orig_rocket.jpg` of the golden images as a picture of 0.4
//! megapixels, and flat colour.

use super::Sample;

/// Whatever the sizes of the other formats are; the one of flat colour has 2 megapixels.
pub(super) fn all() -> Vec<Sample> {
    let files: [(&str, &[u8]); 5] = [
        ("heic_grid", include_bytes!("heic/photo_420.heic")),
        ("heic_444", include_bytes!("heic/photo_444.heic")),
        ("heic_alpha", include_bytes!("heic/photo_alpha.heic")),
        ("heic_10bit", include_bytes!("heic/photo_10bit.heic")),
        ("heic_flat", include_bytes!("heic/flat.heic")),
    ];
    files.map(|(name, bytes)| Sample { name: name.to_owned(), bytes: bytes.to_vec() }).into()
}
