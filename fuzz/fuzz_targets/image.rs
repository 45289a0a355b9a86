//! Any bytes: an image or an error, never a panic, and the same answer twice.

#![no_main]

use std::time::Duration;

use lfm_serve::image::{Cancel, Limits, Preprocessing, Scratch, inspect, prepare};
use libfuzzer_sys::fuzz_target;

/// Small enough that a run takes milliseconds.
const LIMITS: Limits = Limits { max_pixels: 300_000, min_side: 0, max_cost: Duration::MAX, heif: true };

fuzz_target!(|bytes: &[u8]| {
    let Ok(header) = inspect(bytes, &LIMITS) else { return };
    assert!(header.pixels() <= LIMITS.max_pixels);
    let mut scratch = Scratch::default();
    let resized = prepare(bytes, &header, Preprocessing::Resize, &mut scratch, &Cancel::default());
    let cropped = prepare(bytes, &header, Preprocessing::Crop, &mut scratch, &Cancel::default());
    assert_eq!(resized.is_ok(), cropped.is_ok());
    // A used scratch must not show in the pixels.
    assert_eq!(resized, prepare(bytes, &header, Preprocessing::Resize, &mut scratch, &Cancel::default()));
});
