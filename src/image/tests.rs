use std::fs;
use std::path::PathBuf;
use std::sync::LazyLock;

use proptest::prelude::*;
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::*;

mod stopping;

fn golden() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

/// The entries of one list in golden.json, with the bytes of their files.
fn entries(list: &str) -> Vec<(Value, Vec<u8>)> {
    let text = fs::read_to_string(golden().join("golden.json")).expect("tests/golden is committed");
    let all: Value = serde_json::from_str(&text).expect("golden.json is JSON");
    let entries = all[list].as_array().expect("a list").clone();
    assert!(!entries.is_empty());
    entries
        .into_iter()
        .map(|entry| {
            let path = golden().join(list).join(entry["file"].as_str().expect("a name"));
            let bytes = fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
            (entry, bytes)
        })
        .collect()
}

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect()
}

/// The error code sent to a client.
fn code(error: ImageError) -> &'static str {
    crate::error::Error::from(error).code.as_str()
}

fn run(bytes: &[u8]) -> Result<(Header, Rgb, Pixels), ImageError> {
    let header = inspect(bytes, &Limits::default())?;
    let rgb = decode(bytes, &header, &Cancel::default())?;
    let pixels = prepare(bytes, &header, Preprocessing::Resize, &mut Scratch::default(), &Cancel::default())?;
    Ok((header, rgb, pixels))
}

/// Checks one entry of golden.json: the reference's pixels, or the code of the refusal.
fn check(entry: &Value, bytes: &[u8]) {
    let file = &entry["file"];
    let result = run(bytes);
    if let Some(expected) = entry["code"].as_str() {
        let error = result.expect_err("refused");
        assert_eq!(code(error), expected, "{file}: {error}");
        return;
    }
    let (header, rgb, pixels) = result.unwrap_or_else(|e| panic!("{file}: {e}"));
    assert_eq!(sha256(pixels.as_bytes()), entry["rgb256_sha256"], "{file}, resized");
    if let Some(expected) = entry["rgb_sha256"].as_str() {
        assert_eq!(sha256(&rgb.data), expected, "{file}, decoded");
        assert_eq!((header.width, header.height), (rgb.width, rgb.height), "{file}");
        assert_eq!(entry["width"], rgb.width, "{file}");
        assert_eq!(entry["height"], rgb.height, "{file}");
    }
    if let Some(format) = entry["format"].as_str() {
        assert_eq!(header.format.as_str(), format, "{file}");
    }
}

/// One decode gives each network the regions that it gets alone: crops, resizes, and both together, of rows that a JPEG's
/// decoder passes over for one of them.
#[test]
fn several_networks_get_from_one_decode_what_each_gets_alone() {
    let scratch = &mut Scratch::default();
    let shorter = Recipe { width: 224, height: 224, scale: Scale::Shorter(256), filter: Filter::Bicubic };
    let tiles = Recipe { width: 96, height: 64, scale: Scale::Native, filter: Filter::Bilinear };
    let networks = [
        (Preprocessing::Crop, Regions::Five),
        (Preprocessing::Recipe(shorter), Regions::One),
        (Preprocessing::Recipe(tiles), Regions::Nine),
        (Preprocessing::Resize, Regions::One),
    ];
    for name in ["orig_rocket.jpg", "coffee_rgb.png", "x_coffee_64.png"] {
        let bytes = std::fs::read(format!("tests/golden/images/{name}")).expect("an image");
        let header = inspect(&bytes, &Limits::default()).expect("readable");
        for networks in [&networks[..], &[networks[0], networks[2]], &networks[1..]] {
            let found = prepare_for_each(&bytes, &header, networks, scratch, &Cancel::default()).expect("readable");
            assert_eq!(found.len(), networks.len());
            for (&(how, regions), found) in networks.iter().zip(found) {
                let alone = prepare_regions(&bytes, &header, how, regions, scratch, &Cancel::default());
                assert!(found == alone.expect("readable"), "{name}, {how}");
                assert!(cost_for_each(&header, networks.iter().copied()) >= cost_of_regions(&header, how, regions));
            }
        }
    }
}

#[test]
fn golden_images_have_the_references_pixels() {
    for (entry, bytes) in entries("images") {
        assert_eq!(sha256(&bytes), entry["sha256"], "{}", entry["file"]);
        check(&entry, &bytes);
    }
}

#[test]
fn hostile_files_are_refused_or_scored_as_the_reference_does() {
    for (entry, bytes) in entries("hostile") {
        assert_eq!(sha256(&bytes), entry["sha256"], "{}", entry["file"]);
        check(&entry, &bytes);
    }
}

#[test]
fn every_variant_is_exact_or_refused() {
    for (entry, bytes) in entries("variants") {
        check(&entry, &bytes);
    }
}

/// A cut file is refused, or it still has all its pixels.
#[test]
fn truncated_files_never_lose_pixels_silently() {
    let mut refused = 0;
    for (entry, bytes) in entries("variants") {
        let Ok((_, whole, _)) = run(&bytes) else { continue };
        let step = (bytes.len() / 40).max(1);
        for length in (0..bytes.len()).step_by(step) {
            match run(&bytes[..length]) {
                Ok((_, rgb, _)) => assert!(rgb == whole, "{} cut to {length}", entry["file"]),
                Err(_) => refused += 1,
            }
        }
    }
    assert!(refused > 1000, "{refused}");
}

#[test]
fn limits_apply_to_the_header() {
    let (_, bytes) = entries("images").swap_remove(0);
    let header = inspect(&bytes, &Limits::default()).expect("a photo");
    let pixels = header.pixels();
    let exact =
        Limits { max_pixels: pixels, min_side: header.width.min(header.height), max_cost: header.cost, heif: false };
    assert_eq!(inspect(&bytes, &exact), Ok(header));
    let refusal = |limits| inspect(&bytes, &limits).map_err(code);
    assert_eq!(refusal(Limits { max_pixels: pixels - 1, ..exact }), Err("image_too_large"));
    assert_eq!(refusal(Limits { min_side: exact.min_side + 1, ..exact }), Err("image_too_small"));
    let costly = Limits { max_cost: header.cost - std::time::Duration::from_nanos(1), ..exact };
    assert_eq!(refusal(costly), Err("image_too_large"));
    let error = inspect(&bytes, &costly).expect_err("too costly").to_string();
    assert!(error.starts_with("decoding the image would take about "), "{error}");
}

#[test]
fn a_narrow_image_of_too_many_rows_is_refused() {
    let mut png = b"\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR".to_vec();
    png.extend(1_u32.to_be_bytes());
    png.extend(65_536_u32.to_be_bytes());
    png.extend([8, 2, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(inspect(&png, &Limits::default()).map_err(code), Err("image_too_large"));
}

/// The header of a golden image.
fn header_of(file: &str) -> Header {
    let bytes = fs::read(golden().join(file)).expect("a golden file");
    inspect(&bytes, &Limits::default()).expect("readable")
}

#[test]
fn headers_have_orientation_and_encoding() {
    assert_eq!(header_of("images/chelsea_exif6.jpg").exif_orientation, 6);
    assert_eq!(header_of("images/coffee_420_q75.jpg").exif_orientation, 1);
    assert_eq!(header_of("variants/exif_pre.png").exif_orientation, 6);
    assert_eq!(header_of("variants/meta17x33.webp").exif_orientation, 6);
    let quality = |quality| Encoding::Lossy { quality };
    assert_eq!(header_of("images/coffee_420_q75.jpg").encoding, quality(Some(75)));
    assert_eq!(header_of("images/hubble_odd_422_q50_prog.jpg").encoding, quality(Some(50)));
    assert_eq!(header_of("variants/pil_RGB_jpeg.tif").encoding, quality(Some(75)));
    assert_eq!(header_of("images/coffee_q80.webp").encoding, quality(None));
    assert_eq!(header_of("images/chelsea_lossless.webp").encoding, Encoding::Lossless);
    assert_eq!(header_of("images/coffee_rgb.png").encoding, Encoding::Lossless);
}

/// Views and pages count, a gain map and a preview do not.
#[test]
fn headers_count_pictures() {
    let frames = [
        ("frames3.gif", 3),
        ("5x7_m8_i0.gif", 1),
        ("pages3.tif", 3),
        ("apng.png", 2),
        ("exif_pre.png", 1),
        ("anim_im17x33_0.webp", 2),
        ("im17x33_q30_m4.webp", 1),
        ("phone_mpo.jpg", 2),
        ("phone_ultrahdr.jpg", 1),
        ("phone_motion.jpg", 1),
    ];
    for (file, count) in frames {
        assert_eq!(header_of(&format!("variants/{file}")).frames, count, "{file}");
    }
}

/// Expected boxes, calculated by hand, for a picture stored as 451 x 300 whose first row is shown at the right.
#[test]
fn boxes_are_converted_to_shown_and_stored() {
    let jpeg = Header { width: 451, height: 300, exif_orientation: 6, ..header_of("images/chelsea_exif6.jpg") };
    assert_eq!(jpeg.as_shown([10, 20, 110, 50]), [250, 10, 280, 110]);
    assert_eq!(jpeg.as_stored([10, 20, 110, 50]), [10, 20, 110, 50]);
    // The decoder rotates a TIFF: it is 300 x 451, and the first stored row is at the right.
    let tiff = Header { format: Format::Tiff, width: 300, height: 451, ..jpeg };
    assert_eq!(tiff.as_shown([250, 10, 280, 110]), [250, 10, 280, 110]);
    assert_eq!(tiff.as_stored([250, 10, 280, 110]), [10, 20, 110, 50]);
    for exif_orientation in 1..=8 {
        let (jpeg, swaps) = (Header { exif_orientation, ..jpeg }, exif_orientation >= 5);
        let (width, height) = if swaps { (300, 451) } else { (451, 300) };
        let tiff = Header { width, height, exif_orientation, ..tiff };
        assert_eq!(tiff.as_stored(jpeg.as_shown([3, 4, 50, 60])), [3, 4, 50, 60], "{exif_orientation}");
    }
}

/// Every pixel of a picture of several blocks of columns, the last not full, stands where its orientation shows it.
#[test]
fn a_turned_tiff_has_every_pixel_in_its_place() {
    const SIZE: (usize, usize) = (150, 70);
    let tag = |orientation: u8| [18, 1, 4, 0, 1, 0, 0, 0, orientation, 0, 0, 0];
    let made = corpus::photos(SIZE.0, SIZE.1).expect("files");
    let turned = &made.iter().find(|sample| sample.name == "tiff_turned").expect("a sample").bytes;
    let at = turned.windows(12).position(|entry| entry == tag(6)).expect("its orientation");
    let decoded = |orientation: u8| {
        let mut bytes = turned.clone();
        bytes[at..at + 12].copy_from_slice(&tag(orientation));
        run(&bytes).expect("a picture").1
    };
    let upright = decoded(1);
    for value in 5..=8 {
        let shown = decoded(value);
        assert_eq!((shown.height, shown.width), (upright.width, upright.height));
        for (index, pixel) in upright.data.chunks_exact(3).enumerate() {
            let (x, y) = ((index % SIZE.0) as u32, (index / SIZE.0) as u32);
            let place = [x, y, x + 1, y + 1];
            let [x, y, ..] = orientation::Orientation(value).seen(SIZE.0 as u32, SIZE.1 as u32, place);
            let at = (y * shown.width + x) as usize * 3;
            assert_eq!(&shown.data[at..at + 3], pixel, "orientation {value}, {place:?}");
        }
    }
}

/// For every golden picture with more than one region, all regions are parts of the fully decoded picture.
#[test]
fn regions_are_parts_of_the_whole_picture() {
    let mut seen = 0;
    for (entry, bytes) in entries("images") {
        let Ok((header, rgb, resized)) = run(&bytes) else { continue };
        for regions in [Regions::One, Regions::Five, Regions::Nine, Regions::Sixteen] {
            let (crop, scratch) = (Preprocessing::Crop, &mut Scratch::default());
            let found = prepare_regions(&bytes, &header, crop, regions, scratch, &Cancel::default()).expect("readable");
            let bounds: Vec<_> = found.iter().map(|region| region.bounds).collect();
            assert_eq!(bounds, places(crop, regions, header.width, header.height), "{}", entry["file"]);
            for Region { pixels, bounds: [x0, y0, x1, y1] } in found {
                seen += 1;
                if header.width.min(header.height) < SIDE {
                    assert!(pixels == resized, "{}", entry["file"]);
                    continue;
                }
                let rows = (y0..y1).map(|y| (y * rgb.width) as usize);
                let part = rows.flat_map(|row| &rgb.data[(row + x0 as usize) * 3..(row + x1 as usize) * 3]);
                assert!(pixels.as_bytes().iter().eq(part), "{}, {x0} {y0}", entry["file"]);
            }
        }
    }
    assert!(seen > 300, "{seen}");
}

#[test]
fn crop_takes_the_centre_at_an_even_offset() {
    // 517 x 389: (517 - 256) / 2 = 130, (389 - 256) / 2 = 66.
    let bytes = fs::read(golden().join("images/rocket_odd_420_q85.jpg")).expect("a golden file");
    let header = inspect(&bytes, &Limits::default()).expect("a photo");
    let rgb = decode(&bytes, &header, &Cancel::default()).expect("a photo");
    let tile =
        prepare(&bytes, &header, Preprocessing::Crop, &mut Scratch::default(), &Cancel::default()).expect("a photo");
    let rows = rgb.data.chunks_exact(517 * 3).skip(66).take(256);
    let expected: Vec<u8> = rows.flat_map(|row| row[130 * 3..(130 + 256) * 3].to_vec()).collect();
    assert!(tile.as_bytes() == expected);
}

#[test]
fn crop_of_a_small_image_is_a_resize() {
    let bytes = fs::read(golden().join("images/x_coffee_255x257.jpg")).expect("a golden file");
    let header = inspect(&bytes, &Limits::default()).expect("a photo");
    let mut scratch = Scratch::default();
    let crop = prepare(&bytes, &header, Preprocessing::Crop, &mut scratch, &Cancel::default());
    assert_eq!(crop, prepare(&bytes, &header, Preprocessing::Resize, &mut scratch, &Cancel::default()));
}

#[test]
fn no_signal_means_that_every_block_is_flat() {
    let pixels = |colour: fn(usize, usize) -> u8| {
        let data = (0..256).flat_map(|y| (0..256 * 3).map(move |i| colour(i / 3, y))).collect();
        Pixels::new(data).expect("256 x 256")
    };
    assert!(no_signal(&pixels(|_, _| 7)));
    assert!(no_signal(&pixels(|x, y| (x / 2 + y / 2 * 5) as u8)));
    assert!(!no_signal(&pixels(|x, _| x as u8)));
    assert!(!no_signal(&pixels(|_, y| y as u8)));
    assert!(!no_signal(&pixels(|x, y| u8::from((x, y) == (255, 255)))));
    for (file, expected) in [("x_flat.png", true), ("x_coffee_64.png", false), ("orig_china.jpg", false)] {
        let bytes = fs::read(golden().join("images").join(file)).expect("a golden file");
        let (_, _, pixels) = run(&bytes).expect("a golden file");
        assert_eq!(no_signal(&pixels), expected, "{file}");
    }
}

#[test]
fn messages_are_plain() {
    for list in ["images", "hostile", "variants"] {
        for (entry, bytes) in entries(list) {
            if let Err(error) = run(&bytes) {
                let text = error.to_string();
                assert!(text.len() < 160 && !text.contains("0x") && !text.contains('/'), "{}: {text}", entry["file"]);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// A damaged file is refused or gives an image of the header's size.
    #[test]
    fn damaged_files_do_no_harm(
        pick: prop::sample::Index,
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        keep in 0.3_f64..1.0,
    ) {
        static VARIANTS: LazyLock<Vec<(Value, Vec<u8>)>> = LazyLock::new(|| entries("variants"));
        let (_, mut bytes) = VARIANTS[pick.index(VARIANTS.len())].clone();
        for (at, value) in edits {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        if keep < 0.9 {
            bytes.truncate((bytes.len() as f64 * keep / 0.9) as usize);
        }
        let limits = Limits { max_pixels: 1_000_000, ..Limits::default() };
        if let Ok(header) = inspect(&bytes, &limits) {
            prop_assert!(header.pixels() <= limits.max_pixels);
            if let Ok(rgb) = decode(&bytes, &header, &Cancel::default()) {
                prop_assert_eq!((rgb.width, rgb.height), (header.width, header.height));
                prop_assert_eq!(rgb.data.len() as u64, header.pixels() * 3);
            }
        }
    }
}
