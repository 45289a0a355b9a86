//! Signed files made here, and the standard's and the galleries' where they are at hand.

use std::{io::Cursor, path::Path};

use base64::{Engine, prelude::BASE64_STANDARD};
use c2pa::{Builder, BuilderIntent, Context, DigitalSourceType, EphemeralSigner, Signer};
use serde_json::json;

use super::{
    super::{Declared, Detail, Kind, Needs, Reader, Source, Validation, needs, source_type},
    Cancel, Duration, cpu_time,
};
use crate::image::{Format, Limits, Metadata, inspect, metadata, sniff};

fn picture(name: &str) -> Vec<u8> {
    std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/images").join(name)).expect("a picture")
}

/// The picture with a manifest that says how it was made.
fn signed(picture: &[u8], made: DigitalSourceType, signer: &dyn Signer) -> Vec<u8> {
    let format = format!("image/{}", sniff(picture).expect("a format"));
    let mut builder = Builder::from_context(Context::new());
    builder.set_intent(BuilderIntent::Create(made));
    let mut info = c2pa::ClaimGeneratorInfo::new("Test generator");
    info.set_version("1.0");
    builder.set_claim_generator_info(info);
    let mut signed = Cursor::new(Vec::new());
    builder.sign(signer, &format, &mut Cursor::new(picture), &mut signed).expect("a signed file");
    signed.into_inner()
}

fn root_of(signer: &dyn Signer) -> String {
    let root = signer.certs().expect("certificates").pop().expect("a root");
    format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", BASE64_STANDARD.encode(root))
}

fn read(bytes: &[u8], trust: Option<&str>) -> Declared {
    let reader = Reader::new(Detail::Brief, trust).expect("a reader");
    reader.read(bytes, sniff(bytes).expect("a format"), [64, 64], &Cancel::default())
}

#[test]
fn a_signature_is_valid_under_its_trust_list_and_untrusted_without() {
    let signer = EphemeralSigner::new("signer.test").expect("a signer");
    let stranger = EphemeralSigner::new("stranger.test").expect("a signer");
    let (ours, others) = (root_of(&signer), root_of(&stranger));
    for name in [
        "coffee_420_q75.jpg",
        "coffee_rgb.png",
        "coffee_q80.webp",
        "chelsea_trns.gif",
        "../variants/avif_420_full.avif",
        "../variants/rgb08_13x9_le_c1_one.tif",
    ] {
        let unsigned = picture(name);
        let file = signed(&unsigned, DigitalSourceType::TrainedAlgorithmicMedia, &signer);
        // The manifest is no page of the file.
        let [before, after] = [&unsigned, &file].map(|bytes| {
            let limits = Limits { min_side: 0, ..Limits::default() };
            inspect(bytes, &limits).expect("a picture").frames
        });
        assert_eq!(before, after, "{name}");
        for (trust, validation) in [
            (Some(ours.as_str()), Validation::Valid),
            (Some(others.as_str()), Validation::Untrusted),
            (Some([others.as_str(), &ours].concat().as_str()), Validation::Valid),
            (None, Validation::Untrusted),
        ] {
            let declared = read(&file, trust);
            let [claim] = &declared.claims[..] else { panic!("{name}: {declared:?}") };
            assert_eq!((claim.source, claim.kind), (Source::C2pa, Kind::Generated), "{name}");
            assert_eq!(claim.validation, validation, "{name}: {claim:?}");
            assert_eq!(claim.tool.as_deref(), Some("Test generator"));
            assert_eq!(declared.generated, Some(true));
        }
    }
}

#[test]
fn a_file_that_was_changed_since_is_invalid_and_counts_for_nothing() {
    let signer = EphemeralSigner::new("signer.test").expect("a signer");
    let root = root_of(&signer);
    let mut file = signed(&picture("coffee_420_q75.jpg"), DigitalSourceType::TrainedAlgorithmicMedia, &signer);
    // In the coded picture.
    let at = file.len() - 100;
    file[at] ^= 1;
    let declared = read(&file, Some(&root));
    assert_eq!(declared.generated, None);
    let [claim] = &declared.claims[..] else { panic!("{declared:?}") };
    assert_eq!((claim.kind, claim.validation), (Kind::Generated, Validation::Invalid));
    assert!(claim.detail.as_deref().is_some_and(|detail| detail.contains("Hash.mismatch")), "{claim:?}");
}

#[test]
fn a_trusted_capture_says_that_it_is_not_generated() {
    let signer = EphemeralSigner::new("camera.test").expect("a signer");
    let file = signed(&picture("coffee_420_q75.jpg"), DigitalSourceType::DigitalCapture, &signer);
    assert_eq!(read(&file, Some(&root_of(&signer))).generated, Some(false));
    assert_eq!(read(&file, None).generated, None);
}

#[test]
fn a_trust_list_without_certificates_is_refused() {
    for text in ["", "not a list", "-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n"] {
        assert!(Reader::new(Detail::Brief, Some(text)).is_err(), "{text}");
    }
}

#[test]
fn a_store_that_is_cut_anywhere_is_read_without_harm() {
    let signer = EphemeralSigner::new("signer.test").expect("a signer");
    let file = signed(&picture("x_coffee_64.png"), DigitalSourceType::TrainedAlgorithmicMedia, &signer);
    let store = metadata(&file, Format::Png).into_iter().find_map(|block| match block {
        Metadata::C2pa(store) => Some(store.into_owned()),
        _ => None,
    });
    let store = store.expect("a store");
    for length in (0..store.len()).step_by(97) {
        let png = [b"\x89PNG\r\n\x1a\n".as_slice(), &(length as u32).to_be_bytes(), b"caBX", &store[..length], &[0; 4]];
        let declared = read(&png.concat(), None);
        assert_eq!(declared.generated, None, "{length}");
        assert!(declared.claims.iter().all(|claim| claim.validation == Validation::Invalid), "{length}: {declared:?}");
    }
}

/// A manifest over the pictures that it is made of, with so many assertions of so many bytes.
fn edited(parts: &[Vec<u8>], assertions: usize, size: usize, signer: &dyn Signer) -> Vec<u8> {
    let picture = picture("x_coffee_64.png");
    let mut builder = Builder::from_context(Context::new());
    builder.set_intent(BuilderIntent::Edit);
    for (number, part) in parts.iter().enumerate() {
        let relationship = if number == 0 { "parentOf" } else { "componentOf" };
        let ingredient = json!({ "title": format!("{number}"), "relationship": relationship }).to_string();
        builder.add_ingredient_from_stream(ingredient, "image/png", &mut Cursor::new(part)).expect("an ingredient");
    }
    for number in 0..assertions {
        let assertion = json!({ "text": "x".repeat(size) });
        builder.add_assertion(format!("test.assertion{number}"), &assertion).expect("an assertion");
    }
    let mut signed = Cursor::new(Vec::new());
    builder.sign(signer, "image/png", &mut Cursor::new(picture), &mut signed).expect("a signed file");
    signed.into_inner()
}

/// Stores just within the limits, each against one of large assertions, round by round.
#[test]
fn a_stores_cost_is_estimated_within_a_factor_of_three() {
    let signer = EphemeralSigner::new("signer.test").expect("a signer");
    let made_of = |count: usize, parts: usize| {
        let mut files = vec![edited(&[], 0, 0, &signer)];
        for _ in 0..count {
            let from = files.len().saturating_sub(parts);
            let next = edited(&files[from..], 0, 0, &signer);
            files.push(next);
        }
        files.pop().expect("a file")
    };
    let reference = edited(&[], 7, 1 << 20, &signer);
    let cases = [
        ("one", edited(&[], 0, 0, &signer)),
        ("assertions", edited(&[], 330, 10, &signer)),
        ("a chain", made_of(50, 1)),
        ("each of all before", made_of(18, 18)),
    ];
    let estimate = |file: &[u8]| {
        let Needs { cost, .. } = needs(file, Format::Png);
        assert!(cost > Duration::ZERO && cost < Duration::from_millis(200), "{cost:?}");
        cost.as_secs_f64()
    };
    let seconds = |file: &[u8]| {
        let start = cpu_time();
        let declared = read(file, None);
        assert_eq!(declared.claims.first().map(|claim| claim.validation), Some(Validation::Untrusted));
        (cpu_time() - start).as_secs_f64()
    };
    for (name, file) in &cases {
        let mut ratios: Vec<_> = (0..7).map(|_| seconds(file) / seconds(&reference)).collect();
        ratios.sort_by(f64::total_cmp);
        let ratio = ratios[3] / (estimate(file) / estimate(&reference));
        assert!((1.0 / 3.0..=3.0).contains(&ratio), "{name}: {ratio:.2} times its estimate");
    }
}

/// What `c2pa-python` says of a file, in our words.
fn expected(state: &str, codes: &str) -> Option<Validation> {
    match state {
        "none" => None,
        _ if codes.contains("ismatch") => Some(Validation::Invalid),
        _ if codes.contains("expired") => Some(Validation::Expired),
        _ => Some(Validation::Untrusted),
    }
}

#[test]
fn files_of_galleries_are_what_the_standards_own_tool_says() {
    let Some(folder) = super::super::tests::shared("provenance") else { return };
    let table = std::fs::read_to_string(folder.join("EXPECTED.tsv")).expect("the table");
    for line in table.lines().skip(1) {
        let columns: Vec<_> = line.split('\t').collect();
        let [name, state, _, term, codes, ..] = columns[..] else { panic!("{line}") };
        let bytes = std::fs::read(folder.join(name)).expect("a file");
        let declared = read(&bytes, None);
        let manifest = declared.claims.iter().find(|claim| claim.source == Source::C2pa);
        assert_eq!(manifest.map(|claim| claim.validation), expected(state, codes), "{name}: {declared:?}");
        if let (Some(claim), Some((_, kind))) = (manifest, source_type::find(term)) {
            assert_eq!(claim.kind, kind, "{name}: {declared:?}");
        }
        let generated = match name {
            name if name.starts_with("not_") || name.starts_with("standard_") => None,
            _ => Some(true),
        };
        assert_eq!(declared.generated, generated, "{name}: {declared:?}");
        if name == "openai_c2pa.png" {
            assert!(declared.claims.iter().any(|claim| claim.kind == Kind::Generated), "{declared:?}");
        }
        // Nothing of the prompts.
        let words = serde_json::to_string(&declared).expect("JSON");
        assert!(!words.contains("dog") && !words.contains("masterpiece"), "{words}");
    }
}
