use std::fs;

use super::*;
use crate::image::{Cancel, Limits, Preprocessing, Scratch, inspect, prepare};

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
