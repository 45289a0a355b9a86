//! `lfm-serve doctor` on this machine, and on faulty installations.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use bytesize::ByteSize;
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::{
    cli::model_copy,
    harness::{Server, program, run},
};

/// Runs `doctor --json`: exit code and report.
fn doctor(flags: &[&str]) -> (Option<i32>, Value) {
    let (code, out, log) = run(&[&["doctor", "--json"], flags].concat());
    (code, serde_json::from_str(&out).unwrap_or_else(|error| panic!("{error}: {out}{log}")))
}

fn check<'a>(report: &'a Value, name: &str) -> &'a Value {
    let checks = report["checks"].as_array().expect("checks");
    checks.iter().find(|check| check["name"] == name).unwrap_or_else(|| panic!("no {name} in {report}"))
}

/// Doctor exited with 1, reported only this check as failed, and its detail contains all of `parts`.
#[track_caller]
fn assert_fails((code, report): &(Option<i32>, Value), name: &str, parts: &[&str]) {
    let checks = report["checks"].as_array().expect("checks");
    let failed: Vec<_> = checks.iter().filter(|check| check["status"] == "fail").map(|check| &check["name"]).collect();
    assert_eq!((*code, failed), (Some(1), vec![&Value::from(name)]), "{report}");
    assert_eq!(report["ok"], false);
    let detail = check(report, name)["detail"].as_str().expect("a detail");
    for part in parts {
        assert!(detail.contains(part), "{part:?} is not in {detail:?}");
    }
}

fn overwrite(file: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = fs::read(file).expect("readable");
    change(&mut bytes);
    fs::write(file, bytes).expect("written");
}

fn change_manifest(folder: &Path, change: impl FnOnce(&mut Value)) {
    overwrite(&folder.join("manifest.json"), |bytes| {
        let mut manifest = serde_json::from_slice(bytes).expect("JSON");
        change(&mut manifest);
        *bytes = manifest.to_string().into_bytes();
    });
}

/// Updates the manifest's hash of one of the folder's graphs.
fn rehash(folder: &Path, graph: &str) {
    let hash = Sha256::digest(fs::read(folder.join(graph)).expect("the graph"));
    let hash: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
    change_manifest(folder, |manifest| manifest["files"][graph]["sha256"] = hash.into());
}

#[test]
fn nothing_is_wrong_here() {
    let (code, report) = doctor(&[]);
    assert_eq!((code, &report["ok"]), (Some(0), &Value::from(true)), "{report}");
    let names: Vec<_> = report["checks"].as_array().expect("checks").iter().map(|check| &check["name"]).collect();
    let expected =
        ["cpu", "limits", "memory", "golden", "heic", "op", "manifest", "library", "graphs", "providers", "placement"];
    assert_eq!(names, expected);
    let detail = |name| check(&report, name)["detail"].as_str().expect("a detail");
    assert!(detail("op").contains("portable"), "{}", detail("op"));
    assert!(detail("heic").contains("libde265"), "{}", detail("heic"));
    assert!(detail("library").contains("1.31.1") && detail("library").contains("libonnxruntime.so"));
    assert!(detail("providers").starts_with("cpu: usable; cuda: "), "{}", detail("providers"));
    assert!(detail("graphs").contains("6 images run on lfm.onnx and lfm.std.onnx"), "{}", detail("graphs"));
    assert!(
        detail("cpu").contains(&format!("convolutions {}, Top-K {}", vectors(true), vectors(false))),
        "{}",
        detail("cpu")
    );
    let bytes = &check(&report, "memory")["bytes"];
    let number = |name: &str| bytes[name].as_u64().unwrap_or_else(|| panic!("no {name} in {bytes}"));
    assert!(0 < number("at_start") && number("at_start") < number("most"), "{bytes}");
    assert!(number("limit") > number("at_start") && number("available") > 0, "{bytes}");
    let nodes = check(&report, "placement")["nodes"].as_array().expect("nodes");
    let pooling: Vec<_> = nodes.iter().filter(|node| node["operator"] == "lfm:TopKPooling").collect();
    assert!(matches!(pooling[..], [node] if node["provider"] == "CPUExecutionProvider"), "{nodes:?}");
    assert_eq!(nodes.iter().filter(|node| node["operator"] == "lfm:WinogradConv").count(), 3, "{nodes:?}");

    let (code, text, _) = run(&["doctor"]);
    assert_eq!(code, Some(0), "{text}");
    assert_eq!(text.lines().count(), expected.len() + 2, "a line per check, a head, a summary: {text}");
    assert!(text.ends_with("Nothing is wrong.\n"), "{text}");
}

/// The widest instructions that the kernel says this CPU has, of those that there are kernels for.
fn vectors(wide: bool) -> &'static str {
    let info = fs::read_to_string("/proc/cpuinfo").expect("readable");
    let flags: Vec<_> = info.lines().find(|line| line.starts_with("flags")).unwrap_or("").split(' ').collect();
    let has = |names: &[&str]| names.iter().all(|name| flags.contains(name));
    match () {
        () if wide && has(&["avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"]) => "avx512",
        () if has(&["avx2", "fma"]) => "avx2",
        () => "portable",
    }
}

#[test]
fn a_library_of_another_version_fails() {
    let folder = tempfile::tempdir().expect("a folder");
    let library = folder.path().join("libonnxruntime.so");
    compile(
        r#"static const char *version(void) { return "1.30.0"; }
           static const struct { const void *(*api)(unsigned); const char *(*version)(void); } base = {0, version};
           const void *OrtGetApiBase(void) { return &base; }"#,
        &library,
    );
    let report = doctor(&["--ort-library", library.to_str().expect("UTF-8")]);
    assert_fails(&report, "library", &["it is version 1.30.0", "needs version 1.31.1", "libonnxruntime.so"]);
    for name in ["providers", "graphs", "placement"] {
        assert_eq!(check(&report.1, name)["status"], "skip");
    }
    let (_, text, _) = run(&["doctor", "--ort-library", library.to_str().expect("UTF-8")]);
    assert!(text.contains("\nFAIL  library ") && text.ends_with("Something is wrong: library.\n"), "{text}");
}

/// Compiles C source to a shared library.
fn compile(source: &str, to: &Path) {
    use std::io::Write;
    let mut compiler = Command::new("cc")
        .args(["-shared", "-fPIC", "-x", "c", "-", "-o"])
        .arg(to)
        .stdin(Stdio::piped())
        .spawn()
        .expect("a C compiler, which the build needs too");
    compiler.stdin.take().expect("a pipe").write_all(source.as_bytes()).expect("written");
    assert!(compiler.wait().expect("it ends").success());
}

#[test]
fn a_tampered_file_fails_even_if_it_is_not_served() {
    for name in ["lfm.onnx", "lfm.std.onnx", "lfm.cpu.onnx"] {
        let model = model_copy();
        overwrite(&model.path().join(name), |bytes| *bytes.last_mut().expect("bytes") ^= 1);
        let report = doctor(&["--model", model.path().to_str().expect("UTF-8")]);
        assert_fails(&report, "manifest", &[name, "does not match its manifest", "sha256"]);
        assert_eq!(check(&report.1, "graphs")["status"], "skip");
    }
    let report = doctor(&["--model", "/nowhere"]);
    assert_fails(&report, "manifest", &["/nowhere/manifest.json"]);
}

#[test]
fn graphs_that_disagree_fail_though_their_hashes_are_right() {
    for (graph, found) in [
        ("lfm.onnx", ["lfm.onnx and lfm.std.onnx differ by", "at most 1e-5"]),
        ("lfm.cpu.onnx", ["lfm.onnx and lfm.cpu.onnx differ by", "at most 5e-4"]),
    ] {
        let model = model_copy();
        // The middle of the file is in the weights of the largest convolution.
        overwrite(&model.path().join(graph), |bytes| {
            let middle = bytes.len() / 2;
            bytes[middle..middle + 4096].fill(0);
        });
        rehash(model.path(), graph);
        let report = doctor(&["--model", model.path().to_str().expect("UTF-8")]);
        assert_fails(&report, "graphs", &found);
        assert_eq!(check(&report.1, "manifest")["status"], "ok");
    }
}

#[test]
fn a_folder_from_before_there_was_a_graph_for_cpus_is_served_without_it() {
    let model = model_copy();
    fs::remove_file(model.path().join("lfm.cpu.onnx")).expect("removed");
    change_manifest(model.path(), |manifest| {
        manifest["files"].as_object_mut().expect("files").remove("lfm.cpu.onnx").expect("it was listed");
    });
    let (code, report) = doctor(&["--model", model.path().to_str().expect("UTF-8")]);
    assert_eq!(code, Some(0), "{report}");
    let placement = check(&report, "placement")["detail"].as_str().expect("a detail");
    assert!(placement.contains("4 Conv") || placement.contains("5 Conv"), "{placement}");
    assert!(!placement.contains("Winograd"), "{placement}");
}

#[test]
fn a_graph_of_other_weights_than_the_manifest_says_fails() {
    let model = model_copy();
    overwrite(&model.path().join("lfm.onnx"), |bytes| {
        let at = bytes.windows(7).position(|window| window == b"sha256:").expect("the digest in the metadata");
        bytes[at + 7..at + 71].fill(b'0');
    });
    rehash(model.path(), "lfm.onnx");
    let report = doctor(&["--model", model.path().to_str().expect("UTF-8")]);
    assert_fails(&report, "graphs", &["lfm.onnx is of other weights", "sha256:000"]);
}

#[test]
fn a_graph_that_does_not_load_fails() {
    let model = model_copy();
    overwrite(&model.path().join("lfm.onnx"), |bytes| *bytes = b"no graph".to_vec());
    rehash(model.path(), "lfm.onnx");
    let report = doctor(&["--model", model.path().to_str().expect("UTF-8")]);
    assert_fails(&report, "graphs", &["ONNX Runtime cannot load the model's lfm.onnx"]);
    assert_eq!(check(&report.1, "placement")["status"], "skip");
}

#[test]
fn too_small_a_memory_limit_fails_before_anything_large_is_loaded() {
    let output = Command::new("sh")
        .args(["-c", "ulimit -v 153600 && exec \"$0\" doctor --json --sessions 2", env!("CARGO_BIN_EXE_lfm-serve")])
        .current_dir(crate::harness::root())
        .output()
        .expect("sh runs");
    let report: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| {
        panic!("{error}: {:?} {}", output.status, String::from_utf8_lossy(&output.stderr));
    });
    let parts = ["serve needs", "for 2 sessions", "the limit is 150.0 MiB (the address space limit, ulimit -v)"];
    assert_fails(&(output.status.code(), report), "memory", &parts);
}

#[test]
fn settings_that_exceed_the_machine_fail() {
    // A million sessions need more than any machine has.
    let report = doctor(&["--sessions", "1000000"]);
    assert_fails(&report, "memory", &["for 1000000 sessions", "the limit is"]);
    assert_eq!(check(&report.1, "limits")["status"], "warn");
    // As a container would set it.
    let output = program().args(["doctor"]).env("LFM_SESSIONS", "1000000").output().expect("it runs");
    assert_eq!(output.status.code(), Some(1));
}

/// The figures of the memory check match a real server.
#[test]
fn serve_needs_as_much_memory_as_doctor_reports() {
    for batch in ["1", "8"] {
        let settings = ["--sessions", "2", "--max-batch-size", batch];
        let (_, report) = doctor(&settings);
        let said = check(&report, "memory")["bytes"]["at_start"].as_u64().expect("a number");
        let resident = Server::start(&settings).resident_bytes();
        let range = said / 2..=said;
        assert!(range.contains(&resident), "batch {batch}: {} resident, {} said", ByteSize(resident), ByteSize(said));
    }
}

/// `--model` and the defaults find a folder in the same way.
#[test]
fn a_candidate_is_checked_in_its_own_folder() {
    let model = model_copy();
    let (code, report) = doctor(&["--model", model.path().to_str().expect("UTF-8")]);
    assert_eq!(code, Some(0), "{report}");
    let detail = check(&report, "manifest")["detail"].as_str().expect("a detail");
    let place: PathBuf = model.path().into();
    assert!(detail.contains(place.to_str().expect("UTF-8")), "{detail}");
}
