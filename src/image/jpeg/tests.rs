use std::{fs, sync::atomic::Ordering};

use jpeg_encoder::{ColorType, Encoder, SamplingFactor};
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

/// Pixels with grain, which takes many bytes.
fn grained(width: usize, height: usize) -> Vec<u8> {
    let mut random = Random::seeded((width * height) as u64);
    let grain = std::iter::repeat_with(|| random.bits() as u8 & 63).take(width * height * 3);
    grain.enumerate().map(|(at, grain)| (at / 700) as u8 / 2 + grain).collect()
}

/// The regions of a file are what a decode of all rows gives, and so is its error.
fn assert_regions_are_of_the_whole(bytes: &[u8], regions: Regions) -> Result<(), TestCaseError> {
    let Ok(header) = inspect(bytes, &Limits { max_pixels: 2_000_000, ..Limits::default() }) else { return Ok(()) };
    let never = Cancel::default();
    let whole = decode(bytes, &header, &never);
    let found = prepare_regions(bytes, &header, Preprocessing::Crop, regions, &mut Scratch::default(), &never);
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
    Ok(())
}

#[test]
fn a_decode_enters_at_the_last_restart_marker_that_is_early_enough() {
    let mut bytes = Vec::new();
    let mut encoder = Encoder::new(&mut bytes, 90);
    encoder.set_sampling_factor(SamplingFactor::F_2_2);
    encoder.set_restart_interval(256 / 16);
    encoder.encode(&grained(256, 3000), 256, 3000, ColorType::Rgb).expect("a JPEG");
    let frame = preamble(Segments::new(&bytes)).expect("whole").frame;
    fn found<'a>(bytes: &'a [u8], frame: &Frame) -> Option<Restarts<'a>> {
        Restarts::find(bytes, frame, &Cancel::default()).expect("not cancelled")
    }
    let restarts = found(&bytes, &frame).expect("one a row of MCUs");
    // Of 16 rows each; a decoder counts from 0, so the 8th, 16th, ...; one row of MCUs above what is needed.
    let entered = |row, needed| restarts.part(row, needed).map(|part| part.row);
    assert_eq!([143, 144, 1372, 2999].map(|needed| entered(0, needed)), [None, Some(128), Some(1280), Some(2944)]);
    assert_eq!(entered(1279, 1372), Some(1280));
    assert_eq!(entered(1280, 1372), None, "it is there already");

    assert!(found(&bytes[..bytes.len() - 2], &frame).is_none(), "no end");
    let mut other = bytes.clone();
    let third = find(&bytes, [0xff, 0xd2]);
    other[third + 1] = 0xd3;
    assert!(found(&other, &frame).is_none(), "out of order");
    other[third] = 0;
    assert!(found(&other, &frame).is_none(), "one is missing");

    let conditioned = [&bytes[..2], &[0xff, 0xcc, 0, 4, 0, 0x10], &bytes[2..]].concat();
    let [with, without] = [&conditioned, &bytes].map(|bytes| {
        let header = inspect(bytes, &Limits::default()).expect("readable");
        prepare(bytes, &header, Preprocessing::Crop, &mut Scratch::default(), &Cancel::default()).expect("readable")
    });
    assert!(with == without, "what arithmetic coding would need is no frame header");

    let stuffed = [&bytes[..bytes.len() - 2], &[0xff, 0].repeat(1 << 20), &[0xff, 0xd9]].concat();
    let cancel = Cancel::default();
    assert!(Restarts::find(&stuffed, &frame, &cancel).expect("not cancelled").is_some());
    assert!(cancel.probe.looks.load(Ordering::SeqCst) > 32, "every 64 KiB");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// The same where decoding enters at restart markers.
    #[test]
    fn regions_after_restart_markers_are_those_of_a_decode_of_all_rows(
        width in 256..420_usize,
        // Any, or such that the centre begins where a decode can be entered.
        height in prop_oneof![256..1500_usize, (1..5_usize).prop_map(|n| 256 * (n + 1))],
        (sampling, across) in prop::sample::select(vec![
            (SamplingFactor::F_1_1, 1), (SamplingFactor::F_2_1, 2), (SamplingFactor::F_2_2, 2),
            (SamplingFactor::F_1_2, 1), (SamplingFactor::F_4_1, 4), (SamplingFactor::F_1_4, 1),
        ]),
        quality in 20..100_u8,
        (color, samples) in prop::sample::select(vec![(ColorType::Rgb, 3), (ColorType::Luma, 1), (ColorType::Cmyk, 4)]),
        // Of MCUs: any number, or of whole rows.
        interval in prop_oneof![(1..200_u16).prop_map(Err), (1..4_u16).prop_map(Ok), Just(Ok(1))],
        regions in prop::sample::select(vec![Regions::One, Regions::Five, Regions::Nine, Regions::Sixteen]),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        kept in prop_oneof![5 => Just(1.0), 1 => 0.3..1.0_f64],
    ) {
        let mut bytes = Vec::new();
        let mut encoder = Encoder::new(&mut bytes, quality);
        encoder.set_sampling_factor(sampling);
        let across = if color == ColorType::Luma { 1 } else { across };
        encoder.set_restart_interval(interval.map_or_else(|any| any, |rows| rows * (width as u16).div_ceil(8 * across)));
        let pixels: Vec<u8> = grained(width, height).into_iter().cycle().take(width * height * samples).collect();
        encoder.encode(&pixels, width as u16, height as u16, color).expect("a JPEG");
        for (at, value) in damage {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        bytes.truncate((bytes.len() as f64 * kept) as usize);
        assert_regions_are_of_the_whole(&bytes, regions)?;
    }

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
        let coding = Coding { progressive, arithmetic };
        let made = corpus::jpeg(&grained(width, height), (width, height), PixelFormat::RGB, subsamp, quality, coding);
        let mut bytes = made.expect("a JPEG");
        for (at, value) in damage {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        bytes.truncate((bytes.len() as f64 * kept) as usize);
        assert_regions_are_of_the_whole(&bytes, regions)?;
    }
}
