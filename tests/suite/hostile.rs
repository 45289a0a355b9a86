//! Hostile files: each is refused with its code, leaves no memory allocated, and the server continues.

use std::fs;

use reqwest::blocking::{Client, Response};
use serde_json::Value;

use crate::harness::{Server, golden, make_import};

/// Scored, or refused with this status and code.
type Expected = Result<(), (u16, &'static str)>;

/// The expected result of each hostile file.
const HOSTILE: &[(&str, Expected)] = &[
    ("animated.gif", Ok(())),
    ("bad_crc.png", Err((422, "undecodable_image"))),
    ("garbage_tail.jpg", Ok(())),
    ("gif_canvas_60000x60000.gif", Err((413, "image_too_large"))),
    ("jpeg_dims_0x0.jpg", Err((422, "undecodable_image"))),
    ("jpeg_dims_65500x65500.jpg", Err((413, "image_too_large"))),
    ("line_3000x1.png", Ok(())),
    ("one_pixel.jpg", Ok(())),
    ("one_pixel.png", Ok(())),
    ("png_1bit_bomb_25000x8000.png", Err((413, "image_too_large"))),
    ("png_bomb_50000x50000.png", Err((413, "image_too_large"))),
    ("png_named.jpg", Ok(())),
    ("png_real_bomb_20000x4000.png", Err((413, "image_too_large"))),
    ("polyglot_jpeg_zip.jpg", Ok(())),
    ("svg.svg", Err((415, "unsupported_format"))),
    ("text.jpg", Err((415, "unsupported_format"))),
    ("truncated.png", Err((422, "undecodable_image"))),
    ("truncated.webp", Err((422, "undecodable_image"))),
    ("truncated_60pct.jpg", Err((422, "undecodable_image"))),
    ("truncated_prog_40pct.jpg", Err((422, "undecodable_image"))),
    ("zero_byte.jpg", Err((400, "empty_body"))),
];

/// Limit of memory growth after all refused files, in bytes.
const MEMORY: u64 = 64 << 20;

#[test]
fn hostile_files_get_their_codes_and_leave_no_memory_behind() {
    let server = Server::start(&["--sessions", "1"]);
    let client = Client::new();
    let post = |bytes: Vec<u8>| client.post(format!("{}/v1/score", server.url)).body(bytes).send().expect("an answer");
    assert_eq!(post(golden("images/astro_420_q95.jpg")).status(), 200);
    let before = server.resident_bytes();
    for (name, expected) in HOSTILE {
        check(name, post(golden(&format!("hostile/{name}"))), *expected);
    }
    let made = [
        ("a progressive JPEG of thousands of scans", scans(2000), (422, "undecodable_image")),
        ("a TIFF whose strip claims gigabytes", tiff_bomb(), (422, "undecodable_image")),
        ("a TIFF that claims too many pixels", tiff(60000, 60000, 1 << 31), (413, "image_too_large")),
    ];
    for (name, bytes, expected) in made {
        check(name, post(bytes), Err(expected));
    }
    // A text chunk is irrelevant for the pixels and must not be decompressed.
    check("a PNG with a text chunk of 512 MiB", post(text_bomb()), Ok(()));
    let after = server.resident_bytes();
    assert!(after < before + MEMORY, "resident memory grew from {before} to {after} bytes");
    assert_eq!(post(golden("images/astro_420_q95.jpg")).status(), 200);
    assert!(server.terminate().0.success());
}

fn check(name: &str, response: Response, expected: Expected) {
    let status = response.status().as_u16();
    let body: Value = response.json().expect("JSON");
    match expected {
        Ok(()) => assert_eq!(status, 200, "{name}: {body}"),
        Err((expected, code)) => {
            assert_eq!((status, body["code"].as_str()), (expected, Some(code)), "{name}: {body}");
            let detail = body["detail"].as_str().expect("a detail");
            assert!(!detail.contains('/') && !detail.contains("0x"), "{name}: {detail}");
        }
    }
}

/// A progressive JPEG with repeated scans: each needs a pass over all coefficients.
fn scans(times: usize) -> Vec<u8> {
    let jpeg = golden("images/chelsea_420_q90_prog.jpg");
    // The last scan: from its SOS marker to the end of the image.
    let last = jpeg.windows(2).rposition(|bytes| bytes == [0xff, 0xda]).expect("a scan");
    let (end, scan) = (jpeg.len() - 2, &jpeg[last..jpeg.len() - 2]);
    let mut bomb = jpeg[..end].to_vec();
    (0..times).for_each(|_| bomb.extend_from_slice(scan));
    bomb.extend_from_slice(&[0xff, 0xd9]);
    bomb
}

/// An uncompressed RGB TIFF header with one strip of `strip_bytes`, and no data.
fn tiff(width: u32, height: u32, strip_bytes: u32) -> Vec<u8> {
    let entries: [(u16, u16, u32); 9] = [
        (256, 4, width),
        (257, 4, height),
        (258, 3, 8),
        (259, 3, 1),
        (262, 3, 2),
        (273, 4, 8),
        (277, 3, 3),
        (278, 4, height),
        (279, 4, strip_bytes),
    ];
    let mut file = b"II*\0\x08\0\0\0".to_vec();
    file.extend((entries.len() as u16).to_le_bytes());
    for (tag, kind, value) in entries {
        file.extend(tag.to_le_bytes());
        file.extend(kind.to_le_bytes());
        file.extend(1u32.to_le_bytes());
        file.extend(value.to_le_bytes());
    }
    file.extend([0; 4]);
    file
}

fn tiff_bomb() -> Vec<u8> {
    tiff(1000, 1000, u32::MAX)
}

/// A small PNG with a compressed text chunk before its pixels that expands to 512 MiB of zeros.
fn text_bomb() -> Vec<u8> {
    use std::io::Write;
    let mut packed = flate2::write::ZlibEncoder::new(b"Comment\0\0".to_vec(), flate2::Compression::best());
    let zeros = vec![0; 1 << 20];
    (0..512).for_each(|_| packed.write_all(&zeros).expect("memory"));
    let data = packed.finish().expect("memory");
    let mut crc = flate2::Crc::new();
    crc.update(b"zTXt");
    crc.update(&data);
    let picture = golden("images/x_coffee_64.png");
    // Signature and IHDR are the first 33 bytes of every PNG.
    let (head, rest) = picture.split_at(33);
    let length = (data.len() as u32).to_be_bytes();
    [head, &length, b"zTXt", &data, &crc.sum().to_be_bytes(), rest].concat()
}

/// A checkpoint is a pickle, which can contain code: `make import` runs none of it.
#[test]
fn a_malicious_checkpoint_is_refused_and_not_run() {
    let folder = tempfile::tempdir().expect("a folder");
    let (weights, model, trace) =
        (folder.path().join("evil.pth"), folder.path().join("model"), folder.path().join("ran"));
    let script = format!(
        "import os, pickle, sys, zipfile\n\
         class Evil:\n    def __reduce__(self): return (os.system, ('touch {}',))\n\
         with zipfile.ZipFile(sys.argv[1], 'w') as file: file.writestr('archive/data.pkl', pickle.dumps({{'fc1.weight': Evil()}}))\n",
        trace.display()
    );
    let made =
        std::process::Command::new("python3").args(["-c", &script]).arg(&weights).status().expect("python3 runs");
    assert!(made.success() && weights.is_file());
    let import = make_import(&weights, &model);
    let log = String::from_utf8_lossy(&import.stderr);
    assert!(!import.status.success());
    assert!(!trace.exists() && !model.exists(), "{log}");
    assert!(log.contains("evil.pth") && !log.contains("Traceback"), "{log}");
    assert!(fs::read_dir(folder.path()).expect("the folder").count() == 1, "something was left behind");
}
