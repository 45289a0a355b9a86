//! AVIF: files made once by an encoder, since there is none here. `orig_rocket.jpg` of the golden images as a picture of 0.4
//! megapixels, and flat colour.

use super::Sample;

/// Whatever the sizes of the other formats are; the one of flat colour has 2 megapixels.
pub(super) fn all() -> Vec<Sample> {
    let files: [(&str, &[u8]); 5] = [
        ("avif_420", include_bytes!("avif/photo_420.avif")),
        ("avif_444", include_bytes!("avif/photo_444.avif")),
        ("avif_alpha", include_bytes!("avif/photo_alpha.avif")),
        ("avif_10bit", include_bytes!("avif/photo_10bit.avif")),
        ("avif_flat", include_bytes!("avif/flat.avif")),
    ];
    files.map(|(name, bytes)| sample(name, bytes)).into()
}

/// Of flat colour, 62 megapixels.
pub(super) fn bomb() -> Sample {
    sample("avif_bomb", include_bytes!("avif/bomb.avif"))
}

fn sample(name: &str, bytes: &[u8]) -> Sample {
    Sample { name: name.to_owned(), bytes: bytes.to_vec() }
}
