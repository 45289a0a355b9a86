//! Any file: what it says of itself is read without a panic, and what is given of it is bounded.

#![no_main]

use std::sync::OnceLock;

use lfm_serve::{
    declared::{Detail, Reader, needs},
    image::{Cancel, sniff},
};
use libfuzzer_sys::fuzz_target;

static READER: OnceLock<Reader> = OnceLock::new();

fuzz_target!(|bytes: &[u8]| {
    let Some(format) = sniff(bytes) else { return };
    let reader = READER.get_or_init(|| Reader::new(Detail::Full, None).expect("a reader"));
    needs(bytes, format);
    let declared = reader.read(bytes, format, [64, 64], &Cancel::default());
    assert!(declared.claims.len() <= 16);
    for claim in declared.claims {
        for text in [claim.tool, claim.signer, claim.detail].into_iter().flatten() {
            assert!(text.chars().count() <= 200);
        }
    }
});
