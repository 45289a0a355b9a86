use std::fs;

use proptest::prelude::*;
use turbojpeg::{PixelFormat, Subsamp};

use super::*;
use crate::image::{
    Cancel, Limits, Preprocessing, Region, Regions, Scratch,
    corpus::{self, Coding, Random},
    decode, inspect, prepare, prepare_regions,
};

fn variant(file: &str) -> Vec<u8> {
    let path = format!("{}/tests/golden/variants/{file}", env!("CARGO_MANIFEST_DIR"));
    fs::read(&path).unwrap_or_else(|e| panic!("{path}: {e}"))
}

fn refusal(bytes: &[u8]) -> Option<ImageError> {
    let header = inspect(bytes, &Limits::default()).expect("the header is whole");
    prepare(bytes, &header, Preprocessing::Resize, &mut Scratch::default(), &Cancel::default()).err()
}

fn find(bytes: &[u8], marker: [u8; 2]) -> usize {
    bytes.windows(2).position(|pair| pair == marker).expect("the marker is there")
}

/// libjpeg reports only its first warning; here that is a wrong restart marker.
#[test]
fn a_premature_end_after_another_warning_is_found() {
    let mut bytes = variant("c17x33_420_rst_q30.jpg");
    let restart = find(&bytes, [0xff, 0xd0]);
    bytes[restart + 1] = 0xd5;
    assert_eq!(refusal(&bytes), None, "a warning alone is ignored, as the reference does");
    bytes.truncate(bytes.len() - 2);
    assert_eq!(refusal(&bytes), Some(undecodable("it is truncated")));
}

#[test]
fn thousands_of_scans_are_refused() {
    let mut bytes = variant("c17x33_420_prog_q92.jpg");
    bytes.truncate(bytes.len() - 2);
    let last_scan = bytes.windows(2).rposition(|pair| pair == [0xff, 0xda]).expect("it has scans");
    let scan = bytes[last_scan..].to_vec();
    let with_scans = |count: usize| [bytes.as_slice(), &scan.repeat(count), &[0xff, 0xd9]].concat();
    assert_eq!(refusal(&with_scans(0)), None);
    assert_eq!(refusal(&with_scans(5000)), Some(undecodable("it has too many scans")));
}

/// An end marker inside another segment's parameters is data.
#[test]
fn only_an_end_marker_after_a_scan_ends_an_image() {
    let whole = variant("c17x33_420_base_q92.jpg");
    let cut = &whole[..whole.len() - 2];
    assert_eq!(refusal(&whole), None);
    assert_eq!(refusal(cut), Some(undecodable("it is truncated")));
    assert_eq!(refusal(&[cut, &[0xff, 0xfe, 0, 4, 0xff, 0xd9]].concat()), Some(undecodable("it is truncated")));
}

#[test]
fn peak_memory_counts_coefficients_of_progressive_files_only() {
    let header = |file| inspect(&variant(file), &Limits::default()).expect("readable");
    let peak = |file| header(file).peak_bytes;
    let pixels = 17 * 33;
    assert_eq!(peak("c17x33_444_base_q92.jpg"), peak("c17x33_420_base_q92.jpg"));
    assert!(peak("c17x33_444_prog_q92.jpg") >= peak("c17x33_444_base_q92.jpg") + pixels * 6);
    assert!(peak("c17x33_420_prog_q92.jpg") < peak("c17x33_444_prog_q92.jpg"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// Rows between the regions are skipped; the regions are what a decode of all rows gives, and so is the error of a
    /// damaged file.
    #[test]
    fn regions_are_those_of_a_decode_of_all_rows(
        (width, height) in (256..420_usize, 256..1500_usize),
        subsamp in prop::sample::select(vec![
            Subsamp::None, Subsamp::Sub2x1, Subsamp::Sub2x2, Subsamp::Sub1x2, Subsamp::Sub4x1, Subsamp::Sub1x4, Subsamp::Gray,
        ]),
        (quality, progressive, arithmetic) in (20..100, any::<bool>(), prop::bool::weighted(0.2)),
        regions in prop::sample::select(vec![Regions::One, Regions::Five, Regions::Nine, Regions::Sixteen]),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..3),
        kept in prop_oneof![3 => Just(1.0), 1 => 0.3..1.0_f64],
    ) {
        let mut random = Random::seeded((width * height) as u64);
        let grain = std::iter::repeat_with(|| random.bits() as u8 & 63).take(width * height * 3);
        let pixels: Vec<u8> = grain.enumerate().map(|(at, grain)| (at / 700) as u8 / 2 + grain).collect();
        let coding = Coding { progressive, arithmetic };
        let made = corpus::jpeg(&pixels, (width, height), PixelFormat::RGB, subsamp, quality, coding);
        let mut bytes = made.expect("a JPEG");
        for (at, value) in damage {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        bytes.truncate((bytes.len() as f64 * kept) as usize);
        let Ok(header) = inspect(&bytes, &Limits { max_pixels: 2_000_000, ..Limits::default() }) else { return Ok(()) };
        let never = Cancel::default();
        let whole = decode(&bytes, &header, &never);
        let found = prepare_regions(&bytes, &header, Preprocessing::Crop, regions, &mut Scratch::default(), &never);
        if header.width.min(header.height) < 256 {
            return Ok(());
        }
        prop_assert_eq!(found.as_ref().err(), whole.as_ref().err());
        for Region { pixels, bounds: [x0, y0, x1, y1] } in found.unwrap_or_default() {
            let whole = whole.as_ref().expect("compared above");
            let rows = (y0..y1).map(|y| (y * whole.width) as usize);
            let part = rows.flat_map(|row| &whole.data[(row + x0 as usize) * 3..(row + x1 as usize) * 3]);
            prop_assert!(pixels.as_bytes().iter().eq(part), "{} {}", x0, y0);
        }
    }
}
