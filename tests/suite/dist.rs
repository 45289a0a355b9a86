//! The archive of `make dist`, unpacked and run in isolation.

use std::{
    fs,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use reqwest::blocking::Client;
use serde_json::Value;

use crate::harness::{picture, root};

/// Packs this build; returns the archive's path.
fn pack(to: &Path) -> PathBuf {
    let output = Command::new("deploy/dist.sh")
        .arg(env!("CARGO_BIN_EXE_lfm-serve"))
        .arg(to)
        .current_dir(root())
        .output()
        .expect("deploy/dist.sh runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    PathBuf::from(String::from_utf8(output.stdout).expect("UTF-8").trim())
}

/// Runs a shell line in a folder; panics with its output if it fails.
fn shell(line: &str, folder: &Path) -> String {
    let output = Command::new("sh").args(["-c", line]).current_dir(folder).output().expect("sh runs");
    let text = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).expect("UTF-8")).concat();
    assert!(output.status.success(), "{line}: {text}");
    text
}

/// The unpacked program in an empty folder with an empty environment.
fn program(unpacked: &Path, folder: &Path) -> Command {
    let mut command = Command::new(unpacked.join("bin/lfm-serve"));
    command.env_clear().current_dir(folder).stdout(Stdio::piped());
    command
}

struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn the_archive_serves_by_itself() {
    let [packed, unpacked, empty] = [(); 3].map(|()| tempfile::tempdir().expect("a folder"));
    let archive = pack(packed.path());
    shell(&format!("tar -xzf {}", archive.display()), unpacked.path());
    let name = format!("lfm-serve-{}-x86_64-linux", env!("CARGO_PKG_VERSION"));
    assert_eq!(archive.file_name().expect("a name").to_str(), Some(format!("{name}.tar.gz").as_str()));
    let unpacked = unpacked.path().join(name);

    // Every file except the list itself is listed with the correct hash.
    let checked = shell("sha256sum --check --strict SHA256SUMS", &unpacked);
    let files = shell("find . -type f ! -name SHA256SUMS", &unpacked);
    assert_eq!(checked.lines().count(), files.lines().count(), "{checked}");
    for file in ["LICENSES/lfm-serve/LICENSE", "LICENSES/onnxruntime/LICENSE", "LICENSES/rust-crates.txt"] {
        assert!(files.contains(file), "{file} is not in {files}");
    }
    assert_sbom(&unpacked);

    let report = program(&unpacked, empty.path()).args(["doctor", "--json"]).output().expect("it runs");
    let report: Value = serde_json::from_slice(&report.stdout).expect("JSON");
    assert_eq!(report["ok"], true, "{report}");

    // The compiled-in paths of the checkout would work as well: a changed version identifies this model.
    let manifest = unpacked.join("share/lfm-serve/model/manifest.json");
    let text = fs::read_to_string(&manifest).expect("the manifest");
    let marked = text.replace("\"version\": \"3\"", "\"version\": \"of the archive\"");
    assert_ne!(text, marked);
    fs::write(&manifest, marked).expect("written");
    let child = program(&unpacked, empty.path()).args(["serve", "--listen", "127.0.0.1:0"]).spawn().expect("it starts");
    let mut server = Running(child);
    let mut line = String::new();
    BufReader::new(server.0.stdout.take().expect("a pipe")).read_line(&mut line).expect("a line");
    let url = line.trim().strip_prefix("listening on ").unwrap_or_else(|| panic!("the first line is {line:?}"));
    let answer = Client::new().post(format!("{url}/v1/score")).body(picture()).send().expect("an answer");
    let answer: Value = answer.json().expect("JSON");
    assert!(answer["score"].is_number(), "{answer}");
    assert_eq!(answer["model"]["version"], "of the archive");

    let mapped = fs::read_to_string(format!("/proc/{}/maps", server.0.id())).expect("the maps");
    let library = unpacked.join("lib/libonnxruntime.so").canonicalize().expect("it is there");
    assert!(mapped.contains(library.to_str().expect("UTF-8")), "{mapped}");
    let checkout = root().canonicalize().expect("it is there");
    assert!(!mapped.contains(&format!("{}/", checkout.display())), "{mapped}");
    assert_eq!(fs::read_dir(empty.path()).expect("readable").count(), 0, "it left files behind");
}

/// The bill of materials names the crates, and every component that it refers to.
fn assert_sbom(unpacked: &Path) {
    let text = fs::read(unpacked.join("sbom.cdx.json")).expect("an SBOM");
    let sbom: Value = serde_json::from_slice(&text).expect("JSON");
    assert_eq!((&sbom["bomFormat"], &sbom["specVersion"]), (&"CycloneDX".into(), &"1.6".into()));
    let components = sbom["components"].as_array().expect("components");
    let names: Vec<_> = components.iter().filter_map(|component| component["name"].as_str()).collect();
    for name in ["ort", "axum", "onnxruntime", "libjpeg-turbo", "lfm"] {
        assert!(names.contains(&name), "{name} is missing");
    }
    assert!(!names.contains(&"proptest"), "a dependency of tests only");
    let refs: Vec<_> = components.iter().chain([&sbom["metadata"]["component"]]).map(|part| &part["bom-ref"]).collect();
    for used in sbom["dependencies"].as_array().expect("dependencies") {
        for part in used["dependsOn"].as_array().expect("parts") {
            assert!(refs.contains(&part), "{part} is used and not listed");
        }
    }
}

#[test]
fn the_same_commit_packs_to_the_same_bytes() {
    let [first, second] = [(); 2].map(|()| tempfile::tempdir().expect("a folder"));
    let archives = [first.path(), second.path()].map(|folder| fs::read(pack(folder)).expect("readable"));
    assert!(archives[0] == archives[1], "two archives of one build differ");
}
