//! `score FOLDER` and `evaluate DIR` check every file's content, not its name, and omit nothing silently.

use std::{fs, path::Path};

use serde_json::Value;

use crate::harness::{golden, run};

const HEIC: &[u8] = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic\0\0\0\0";

fn put(folder: &Path, name: &str, bytes: &[u8]) {
    let path = folder.join(name);
    fs::create_dir_all(path.parent().expect("a parent")).expect("a folder");
    fs::write(path, bytes).expect("written");
}

/// Names below the folder with the code of their error, `None` for a score.
fn outcomes(out: &str, folder: &Path) -> Vec<(String, Option<String>)> {
    let line = |line: &str| {
        let line: Value = serde_json::from_str(line).expect("JSON");
        let path = Path::new(line["path"].as_str().expect("a path"));
        let name = path.strip_prefix(folder).expect("below the folder").to_string_lossy().into_owned();
        (name, line["error"]["code"].as_str().map(str::to_owned))
    };
    out.lines().map(line).collect()
}

#[test]
fn every_file_of_a_folder_is_judged_by_its_content() {
    let folder = tempfile::tempdir().expect("a folder");
    let (root, jpeg) = (folder.path(), golden("images/orig_rocket.jpg"));
    for name in ["IMG.JPG.tmp", "no_ending", "photo.HEIC", "deeper/photo.dat"] {
        put(root, name, &jpeg);
    }
    for name in [".hidden.jpg", "Thumbs.db", "__MACOSX/a.jpg", ".git/b.jpg", "desktop.ini"] {
        put(root, name, &jpeg);
    }
    put(root, "notes.txt", b"some text");
    put(root, "manual.pdf", b"%PDF-1.7 ...");
    put(root, "empty", b"");
    std::os::unix::fs::symlink(root, root.join("deeper/loop")).expect("a link");
    let path = root.to_string_lossy();

    let (code, out, log) = run(&["score", &path]);
    let scored: Vec<_> = outcomes(&out, root).into_iter().filter(|(_, error)| error.is_none()).collect();
    let names: Vec<_> = scored.iter().map(|(name, _)| &**name).collect();
    assert_eq!(names, ["IMG.JPG.tmp", "deeper/photo.dat", "no_ending", "photo.HEIC"]);
    assert_eq!((code, out.lines().count()), (Some(0), 4), "{log}");
    assert!(log.starts_with("lfm-serve: 3 files are no pictures: "), "{log}");
    for name in ["notes.txt", "manual.pdf", "empty"] {
        assert!(log.contains(name), "{log}");
    }

    let (code, out, _) = run(&["score", "--all-errors", &path]);
    let failed: Vec<_> = outcomes(&out, root).into_iter().filter(|(_, error)| error.is_some()).collect();
    let code_of = |name: &str| failed.iter().find(|(file, _)| file == name).and_then(|(_, error)| error.as_deref());
    assert_eq!((code, failed.len()), (Some(0), 3));
    assert_eq!(code_of("notes.txt"), Some("unsupported_format"));
    assert_eq!(code_of("manual.pdf"), Some("unsupported_format"));
    assert_eq!(code_of("empty"), Some("empty_body"));
}

#[test]
fn a_file_named_as_a_picture_that_cannot_be_scored_is_an_error() {
    let jpeg = golden("images/orig_rocket.jpg");
    for (name, bytes, error) in [
        ("login.jpg", &b"<!doctype html><title>Log in</title>"[..], "unsupported_format"),
        ("IMG_0001.tmp", HEIC, "unsupported_format"),
        ("cut", &jpeg[..jpeg.len() / 2], "undecodable_image"),
        ("empty.png", b"", "empty_body"),
    ] {
        let folder = tempfile::tempdir().expect("a folder");
        put(folder.path(), name, bytes);
        let (code, out, log) = run(&["score", &folder.path().to_string_lossy()]);
        assert_eq!(outcomes(&out, folder.path()), [(name.to_owned(), Some(error.to_owned()))], "{log}");
        assert_eq!((code, &*log), (Some(2), ""), "{name}");
    }
}

#[test]
fn a_folder_without_pictures_reports_its_contents() {
    let folder = tempfile::tempdir().expect("a folder");
    for index in 0..7 {
        put(folder.path(), &format!("{index}.txt"), b"text");
    }
    let (code, out, log) = run(&["score", &folder.path().to_string_lossy()]);
    assert_eq!((code, &*out), (Some(1), ""));
    assert!(log.contains("no images") && log.contains("7 files are no pictures") && log.contains("2 more"), "{log}");
}

#[test]
fn evaluate_names_files_that_are_not_pictures() {
    let folder = tempfile::tempdir().expect("a folder");
    put(folder.path(), "one/0_real/a", &golden("images/coffee_rgb.png"));
    put(folder.path(), "one/1_fake/b.tmp", &golden("images/x_coffee_64.png"));
    put(folder.path(), "one/1_fake/list.csv", b"a,b");
    let (code, out, log) = run(&["evaluate", &folder.path().to_string_lossy()]);
    assert_eq!(code, Some(0), "{log}");
    let report: Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!(report["sources"]["one"]["n"], 2);
    assert!(log.contains("1 file is no picture: ") && log.contains("list.csv"), "{log}");
}
