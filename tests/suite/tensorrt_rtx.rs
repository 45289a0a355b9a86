//! `--provider tensorrt-rtx` without a GPU: with plugins that misbehave in front of an emulated driver, and with NVIDIA's if
//! `make vendor-rtx` has fetched it. Nothing of it has run on a GPU.

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
};

use serde_json::Value;
use tempfile::TempDir;

use crate::{
    cli::assert_one_line,
    harness::{program, root, run},
    providers::compile,
};

const PICTURE: &str = "tests/golden/images/x_coffee_64.png";
const PLUGIN: &str = "libonnxruntime_providers_nv_tensorrt_rtx.so";
/// What the plugin needs that comes with it.
const BUNDLED: [&str; 3] = ["libcudart.so.13", "libtensorrt_rtx.so.1", "libtensorrt_onnxparser_rtx.so.1"];

/// Runs the program with the driver of this folder: exit code, standard output, standard error.
fn run_with(driver: &Path, arguments: &[&str]) -> (Option<i32>, String, String) {
    let output = program().args(arguments).env("LD_LIBRARY_PATH", driver).output().expect("it runs");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
    (output.status.code(), text(output.stdout), text(output.stderr))
}

/// A folder with a driver that has one GPU, and with no more than that of what `calls` are.
fn driver(calls: &[&str]) -> TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    let stubs = folder.path().join("stubs.c");
    let fails = |call: &&str| format!("int {call}(void) {{ return 1; }}\n");
    fs::write(&stubs, calls.iter().map(fails).collect::<String>()).expect("written");
    let emulation = root().join("src/cuda/emulation.c");
    let [stubs, emulation] = [&stubs, &emulation].map(|path| path.to_str().expect("UTF-8"));
    compile(folder.path(), "libcuda.so.1", &[emulation, stubs]);
    compile(folder.path(), "libnvidia-ml.so.1", &[stubs]);
    folder
}

/// A folder with a plugin of this code, and the path of the plugin.
fn plugin(code: &str) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().expect("a folder");
    let source = folder.path().join("plugin.c");
    fs::write(&source, code).expect("written");
    compile(folder.path(), PLUGIN, &[source.to_str().expect("UTF-8")]);
    for name in BUNDLED {
        compile(folder.path(), name, &["-x", "c", "/dev/null"]);
    }
    let plugin = folder.path().join(PLUGIN);
    (folder, plugin)
}

fn has_a_gpu(test: &str) -> bool {
    let gpu = Path::new("/proc/driver/nvidia").exists();
    if gpu {
        skipped(test, "this machine has a GPU");
    }
    gpu
}

fn skipped(test: &str, why: &str) {
    // Not `eprintln!`: of a test that passes its output is swallowed.
    let _ = writeln!(std::io::stderr(), "SKIPPED {test} of TensorRT RTX: {why}");
}

#[test]
fn without_its_plugin_it_is_refused() {
    let flags = ["--provider", "tensorrt-rtx", "--tensorrt-rtx-library", "/nowhere/plugin.so"];
    let reasons = [
        "--provider tensorrt-rtx cannot run: its plugin was not found: looked at /nowhere/plugin.so",
        "make vendor-rtx",
        "LFM_TENSORRT_RTX_LIBRARY",
    ];
    assert_one_line(&run(&[&["score", PICTURE], &flags[..]].concat()), &reasons);
    let serve = ["serve", "--listen", "127.0.0.1:0", "--log-level", "error"];
    assert_one_line(&run(&[&serve[..], &flags[..]].concat()), &reasons);
    let (code, report, _) = run(&[&["doctor"], &flags[..]].concat());
    assert_eq!(code, Some(1), "{report}");
    assert!(report.contains(reasons[0]), "{report}");
}

#[test]
fn half_precision_is_refused() {
    let ended = run(&["score", "--provider", "tensorrt-rtx", "--precision", "fp16", PICTURE]);
    assert_one_line(&ended, &["--provider tensorrt-rtx cannot run: --precision fp16 runs on tensorrt only"]);
}

#[test]
fn without_a_driver_it_is_refused() {
    if has_a_gpu("a missing driver") {
        return;
    }
    // The plugin is not loaded: any file will do.
    let ended = run(&["score", "--provider", "tensorrt-rtx", "--tensorrt-rtx-library", "Cargo.toml", PICTURE]);
    let reasons = ["cannot load libcuda.so.1, libnvidia-ml.so.1 (NVIDIA's driver, 580 or newer)"];
    assert_one_line(&ended, &reasons);
}

#[test]
fn a_plugin_that_cannot_be_used_is_one_line() {
    if has_a_gpu("plugins that misbehave") {
        return;
    }
    let driver = driver(&["nvmlInit_v2"]);
    let empty = "#include <stddef.h>\nvoid *CreateEpFactories(const char *name, const void *api, const void *logger, \
                 void **factories, size_t most, size_t *count) { return *count = 0, NULL; }\n\
                 void *ReleaseEpFactory(void *factory) { return NULL; }\n";
    let aborts = "#include <stdlib.h>\n__attribute__((constructor)) static void start(void) { abort(); }\n";
    let ends = "#include <stdlib.h>\n__attribute__((constructor)) static void start(void) { _Exit(0); }\n";
    for (code, reason) in [
        ("int unused;\n", "cannot load its plugin: "),
        (aborts, "the trial ended the process that ran it: signal: 6"),
        (ends, "the trial ended the process that ran it: exit status: 0"),
        (
            empty,
            "its plugin supports none of this machine's GPUs: it needs one of compute capability 8.6, 8.9, 12.0 or newer",
        ),
    ] {
        let (_folder, plugin) = plugin(code);
        let library = plugin.to_str().expect("UTF-8");
        let flags = ["--provider", "tensorrt-rtx", "--tensorrt-rtx-library", library];
        let ended = run_with(driver.path(), &[&["score", PICTURE], &flags[..]].concat());
        assert_one_line(&ended, &[&format!("--provider tensorrt-rtx cannot run: {reason}")]);

        // Nor does it harm what runs on the CPU.
        let doctor = ["doctor", "--json", "--sessions", "1", "--tensorrt-rtx-library", library];
        let (code, report, log) = run_with(driver.path(), &doctor);
        let report: Value = serde_json::from_str(&report).expect("JSON");
        let checks = report["checks"].as_array().expect("checks");
        let check = checks.iter().find(|check| check["name"] == "providers").expect("the check");
        let detail = check["detail"].as_str().expect("a detail");
        assert_eq!((code, &check["status"]), (Some(0), &"ok".into()), "{detail} {log}");
        assert!(detail.contains(&format!("tensorrt-rtx: not usable, {reason}")), "{detail}");
        assert!(detail.contains("serve runs on cpu"), "{detail}");
    }

    let (folder, plugin) = plugin(empty);
    fs::write(folder.path().join(BUNDLED[1]), "no library").expect("written");
    let library = plugin.to_str().expect("UTF-8");
    let flags = ["score", "--provider", "tensorrt-rtx", "--tensorrt-rtx-library", library, PICTURE];
    assert_one_line(&run_with(driver.path(), &flags), &["cannot load libtensorrt_rtx.so.1, which its plugin needs: "]);
}

/// NVIDIA's plugin and its libraries, loaded and registered for real: with a driver that fails every call of CUDA's runtime
/// it finds no GPU.
#[test]
fn the_real_plugin_is_loaded_and_refused() {
    let test = "the real plugin";
    let plugin = root().join("vendor/tensorrt-rtx").join(PLUGIN);
    if !plugin.is_file() {
        return skipped(test, "run make vendor-rtx to fetch it");
    }
    if has_a_gpu(test) {
        return;
    }
    let score = ["score", "--provider", "tensorrt-rtx", PICTURE];
    assert_one_line(&run(&score), &["cannot load libcuda.so.1, libnvidia-ml.so.1"]);

    // What it is linked against of the driver, beside what the emulation has.
    let driver = driver(&CALLS);
    let reason = "--provider tensorrt-rtx cannot run: its plugin supports none of this machine's GPUs";
    assert_one_line(&run_with(driver.path(), &score), &[reason]);
}

const CALLS: [&str; 15] = [
    "cuCtxCreate_v4",
    "cuCtxDestroy_v2",
    "cuCtxGetCurrent",
    "cuCtxSetCurrent",
    "cuDestroyExternalMemory",
    "cuDestroyExternalSemaphore",
    "cuExternalMemoryGetMappedBuffer",
    "cuImportExternalMemory",
    "cuImportExternalSemaphore",
    "cuSignalExternalSemaphoresAsync",
    "cuWaitExternalSemaphoresAsync",
    "nvmlErrorString",
    "nvmlInit_v2",
    "nvmlShutdown",
    "nvmlSystemGetDriverVersion",
];
