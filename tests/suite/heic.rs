//! HEIC: the reference's pixels, and what is answered where it is not read. What needs libde265 or pillow-heif is skipped where
//! they are not.

use std::time::Duration;

use lfm_serve::image::{ImageError, Limits, heif_library, inspect};
use reqwest::blocking::Client;
use serde_json::Value;

use crate::{
    avif,
    harness::{Server, golden, root, run},
};

const HEIF: Limits = Limits { max_pixels: 64_000_000, min_side: 0, max_cost: Duration::MAX, heif: true };

/// A picture as a phone stores it: a grid, turned by the container and, once more, by EXIF. And its pixels.
fn phone() -> (Vec<u8>, Vec<u8>) {
    (golden("heic/phone.heic"), golden("heic/phone.png"))
}

/// Whether the library is there that decodes.
fn library(test: &str) -> bool {
    let found = heif_library(None);
    if let Err(missing) = &found {
        eprintln!("SKIPPED {test}: {missing}");
    }
    found.is_ok()
}

#[test]
fn generated_files_have_the_references_pixels() {
    const NAME: &str = "generated_files_have_the_references_pixels";
    let python = root().join(".venv-heif/bin/python");
    if !library(NAME) {
        return;
    }
    if !python.is_file() {
        eprintln!("SKIPPED {NAME}: no .venv-heif, which `make test` installs");
        return;
    }
    let exact = avif::generated_files_are_exact(&python, "heic.py", &HEIF, "turned", |header, more| {
        assert_eq!([header.width, header.height].map(|side| side.to_string()), *more);
    });
    assert!(exact >= 280, "{exact} are exact");
}

#[test]
fn a_phones_picture_is_judged_by_the_references_pixels() {
    if !library("a_phones_picture_is_judged_by_the_references_pixels") {
        return;
    }
    let (heic, png) = phone();
    let server = Server::start(&["--sessions", "1", "--heif", "on"]);
    let client = Client::new();
    let ask = |bytes: &[u8]| -> Value {
        let answer = client.post(format!("{}/v1/score", server.url)).body(bytes.to_vec()).send().expect("an answer");
        assert_eq!(answer.status(), 200);
        answer.json().expect("JSON")
    };
    let [heic, png] = [ask(&heic), ask(&png)];
    assert_eq!(heic["logit_raw"], png["logit_raw"]);
    let image = &heic["image"];
    assert_eq!(
        [&image["format"], &image["frames"], &image["exif_orientation"]],
        [&Value::from("heic"), &2.into(), &1.into()]
    );
    assert_eq!([&image["width"], &image["height"]], [&png["image"]["width"], &png["image"]["height"]]);
    assert_eq!(heic["declared"]["generated"], true, "{heic}");
    assert!(server.terminate().0.success());
}

#[test]
fn the_command_line_judges_the_same_pixels() {
    if !library("the_command_line_judges_the_same_pixels") {
        return;
    }
    let folder = root().join("tests/golden/heic");
    let (code, out, log) = run(&["score", "--heif", "on", &folder.to_string_lossy()]);
    assert_eq!(code, Some(0), "{log}");
    let hashes: Vec<_> = out
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).expect("JSON")["image"]["rgb256_sha256"].clone())
        .collect();
    assert!(hashes.len() == 2 && hashes[0].is_string() && hashes[0] == hashes[1], "{out}");
}

#[test]
fn without_the_switch_it_is_refused_by_name() {
    let server = Server::start(&["--sessions", "1"]);
    let answer = Client::new().post(format!("{}/v1/score", server.url)).body(phone().0).send().expect("an answer");
    assert_eq!(answer.status(), 415);
    let body: Value = answer.json().expect("JSON");
    assert_eq!(body["code"], "unsupported_format");
    let detail = body["detail"].as_str().expect("a sentence");
    assert!(detail.contains("HEIC") && detail.contains("Convert it to JPEG, or start with --heif on"), "{detail}");
    assert!(server.terminate().0.success());
}

#[test]
fn without_the_library_the_switch_ends_the_program() {
    if heif_library(None).is_ok() {
        eprintln!("SKIPPED without_the_library_the_switch_ends_the_program: libde265 is here");
        return;
    }
    let (code, _, log) = run(&["serve", "--heif", "on"]);
    assert!(code == Some(2) && log.contains("libde265-0"), "{code:?}: {log}");
}

#[test]
fn damaged_files_are_answered_and_the_server_lives() {
    if library("damaged_files_are_answered_and_the_server_lives") {
        avif::damaged_files_are_answered(&["--sessions", "1", "--heif", "on"], &[phone().0]);
    }
}

#[test]
fn what_would_not_be_exact_is_refused() {
    let heic = phone().0;
    let changed = |from: &[u8], to: &[u8]| {
        let at = heic.windows(from.len()).position(|bytes| bytes == from).expect("it is there");
        let mut changed = heic.clone();
        changed[at..at + to.len()].copy_from_slice(to);
        changed
    };
    let cases: [(Vec<u8>, &str); 4] = [
        (changed(b"ftypheic", b"ftyphevc"), "animation"),
        (changed(b"colrnclx\0\x01\0\x0d\0\x06", b"colrnclx\0\x01\0\x0d\0\x0e"), "matrix"),
        (changed(b"grid", b"iden"), "another code"),
        (changed(b"hvc1", b"av01"), "another code"),
    ];
    for (bytes, word) in cases {
        match inspect(&bytes, &HEIF) {
            Err(ImageError::UnsupportedFormat { reason, .. }) => assert!(reason.contains(word), "{word}: {reason}"),
            other => panic!("{word}: {other:?}"),
        }
    }
}
