//! Golden vectors: small images with the 256x256 pixels of the reference (Pillow 11.3.0, torchvision's resize),
//! embedded in the program, so that an installed one can check itself.

use sha2::{Digest, Sha256};

use super::report::Finding;
use crate::{
    hex,
    image::{self, Cancel, ImageError, Limits, Pixels, Preprocessing, Scratch},
};

/// An image and the hash of its pixels. NOTICE names the authors.
struct Sample {
    name: &'static str,
    file: &'static [u8],
    rgb256_sha256: &'static str,
}

/// Progressive JPEG 4:2:2 and baseline 4:2:0, both of odd size; WebP; and a PNG that is enlarged. JPEG is where
/// decoders differ: the IDCT, the chroma upsampling.
const SAMPLES: [Sample; 4] = [
    Sample {
        name: "hubble_odd_422_q50_prog.jpg",
        file: include_bytes!("../../../tests/golden/images/hubble_odd_422_q50_prog.jpg"),
        rgb256_sha256: "50ef0d42a3fd5415a3bd070d2cd383b34313ccbacb1a8a6f5bf47b530883b6c4",
    },
    Sample {
        name: "rocket_odd_420_q85.jpg",
        file: include_bytes!("../../../tests/golden/images/rocket_odd_420_q85.jpg"),
        rgb256_sha256: "ea1dca1a484f9d370ee05cc6691d70e1574dd377a88bb55e290bed97a335f523",
    },
    Sample {
        name: "chelsea_portrait_q92.webp",
        file: include_bytes!("../../../tests/golden/images/chelsea_portrait_q92.webp"),
        rgb256_sha256: "e22125e207def05da8bf2afd2f09a7306e0d5d278be9f4af7752dbbd02b7a241",
    },
    Sample {
        name: "x_coffee_64.png",
        file: include_bytes!("../../../tests/golden/images/x_coffee_64.png"),
        rgb256_sha256: "68473f4a86d1107036ea324c149d6b86e132e36537d4612c87504e0b5d587ce0",
    },
];

/// The samples as they enter the network.
///
/// # Errors
/// The first that does not decode.
pub(super) fn pixels() -> Result<Vec<Pixels>, anyhow::Error> {
    SAMPLES.iter().map(|sample| prepare(sample.file).map_err(|error| of(sample, &error))).collect()
}

/// Decodes and resizes every sample and compares the bytes with the reference's.
pub(super) fn check() -> Result<Finding, anyhow::Error> {
    check_with(prepare)
}

fn check_with(prepare: impl Fn(&[u8]) -> Result<Pixels, ImageError>) -> Result<Finding, anyhow::Error> {
    for sample in &SAMPLES {
        let pixels = prepare(sample.file).map_err(|error| of(sample, &error))?;
        let found = hex(&Sha256::digest(pixels.as_bytes()));
        let (name, expected) = (sample.name, sample.rgb256_sha256);
        anyhow::ensure!(found == expected, "{name} has other pixels than the reference: {found}, not {expected}");
    }
    let names: Vec<_> = SAMPLES.iter().map(|sample| sample.name).collect();
    Ok(Finding::ok(format!("pixels as the reference's, byte for byte: {}", names.join(", "))))
}

fn prepare(file: &[u8]) -> Result<Pixels, ImageError> {
    let header = image::inspect(file, &Limits::default())?;
    image::prepare(file, &header, Preprocessing::Resize, &mut Scratch::default(), &Cancel::default())
}

fn of(sample: &Sample, error: &ImageError) -> anyhow::Error {
    anyhow::anyhow!("{}: {error}", sample.name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_grey_level_is_found() {
        let nudged = |file: &[u8]| {
            let mut bytes = prepare(file)?.as_bytes().to_vec();
            if let Some(last) = bytes.last_mut() {
                *last ^= 1;
            }
            Ok(Pixels::new(bytes).unwrap())
        };
        let error = check_with(nudged).unwrap_err().to_string();
        assert!(error.starts_with("hubble_odd_422_q50_prog.jpg has other pixels than the reference"), "{error}");
    }
}
