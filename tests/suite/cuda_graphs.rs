//! `--cuda-graphs` without a GPU: what it excludes, and its trial where it is refused or crashes. Nothing of it has run on a GPU;
//! the runs at fixed addresses are tested on the CPU (src/model/graphs_trial.rs).

use std::{fs, path::PathBuf};

use lfm_serve::{config::ModelConfig, model::try_cuda_graphs};
use serde_json::Value;

use crate::{
    cli::assert_one_line,
    harness::{config, program, root, run},
    providers::{CPU_BUILD, builds, compile},
};

const ON: [&str; 2] = ["--cuda-graphs", "on"];
const SERVE: [&str; 5] = ["serve", "--listen", "127.0.0.1:0", "--log-level", "error"];

#[test]
fn it_runs_on_cuda_only() {
    for provider in ["cpu", "tensorrt", "tensorrt-rtx"] {
        let ended = run(&[&SERVE[..], &ON, &["--provider", provider]].concat());
        let reason = format!("--provider {provider} cannot run: --cuda-graphs on runs on cuda only");
        assert_one_line(&ended, &[&reason]);
    }
    for (library, cuda, _) in builds("CUDA graphs") {
        let flags = ["--ort-library", library];
        let ended = run(&[&SERVE[..], &ON, &flags].concat());
        assert_one_line(&ended, &["no provider can run: tensorrt: --cuda-graphs on runs on cuda only; cuda: "]);
        assert_one_line(&ended, &["cpu: --cuda-graphs on runs on cuda only"]);
        assert_one_line(&ended, cuda);
        // CUDA itself is checked first: without it there is nothing to try.
        let ended = run(&[&SERVE[..], &ON, &flags, &["--provider", "cuda"]].concat());
        assert_one_line(&ended, &["--provider cuda cannot run: "]);
        assert_one_line(&ended, cuda);
    }
}

#[test]
fn it_takes_one_session_and_one_model() {
    let several = ["--model", "models", "--model", "models"];
    for (flags, reason) in [
        (&["--sessions", "2"][..], "--cuda-graphs on takes one session: give --sessions 1 or auto"),
        (&several, "--cuda-graphs on takes one session, and so one model"),
    ] {
        let (code, _, said) = run(&[&SERVE[..], &ON, flags].concat());
        assert_eq!((code, said.trim()), (Some(2), &*format!("lfm-serve: {reason}")));
        let (code, report, _) = run(&[&["doctor", "--json"], &ON[..], flags].concat());
        let report: Value = serde_json::from_str(&report).expect("JSON");
        let checks = report["checks"].as_array().expect("checks");
        let check = checks.iter().find(|check| check["name"] == "providers").expect("the check");
        assert_eq!((code, &check["status"], &check["detail"]), (Some(1), &"fail".into(), &reason.into()));
    }
    let bench = ["bench", "--only", "session", "--sessions", "2"];
    assert_one_line(&run(&[&bench[..], &ON].concat()), &["--cuda-graphs on takes one session"]);
}

#[test]
fn files_are_not_run_with_it() {
    let output = program().args(["score", "tests/golden/images/x_coffee_64.png"]).env("LFM_CUDA_GRAPHS", "on").output();
    let output = output.expect("it runs");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
    let ended = (output.status.code(), text(output.stdout), text(output.stderr));
    assert_one_line(&ended, &["--cuda-graphs on is for `serve` and `bench`"]);
}

/// The trial as `serve` starts it, in a process of its own, of this library of ONNX Runtime.
fn trial(library: PathBuf) -> Result<(), String> {
    let mut model = config(&[]).models().remove(0);
    model.runtime.ort_library = Some(library);
    try_cuda_graphs(&ModelConfig { model: Some(root().join("models")), ..model })
}

#[test]
fn a_trial_that_is_refused_says_why() {
    for (library, ..) in builds("the trial of CUDA graphs") {
        let reason = trial(root().join(library)).expect_err("there is no GPU");
        assert!(reason.starts_with("ONNX Runtime cannot load the model's lfm.onnx: "), "{reason}");
        assert!(reason.to_lowercase().contains("cuda") && !reason.contains('\n'), "{reason}");
    }
    let reason = trial("/nowhere/libonnxruntime.so".into()).expect_err("it is not there");
    assert!(reason.starts_with("ONNX Runtime 1.31.1 not found: looked at /nowhere"), "{reason}");
}

#[test]
fn a_trial_that_ends_its_process_is_a_refusal() {
    let start = "__attribute__((constructor)) static void start(void)";
    for (code, reason) in [
        (format!("#include <stdlib.h>\n{start} {{ abort(); }}\n"), "signal: 6"),
        (format!("#include <stdlib.h>\n{start} {{ _Exit(0); }}\n"), "exit status: 0"),
        ("int unused;\n".to_owned(), "it is not ONNX Runtime"),
    ] {
        let folder = tempfile::tempdir().expect("a folder");
        let source = folder.path().join("library.c");
        fs::write(&source, code).expect("written");
        compile(folder.path(), "libonnxruntime.so", &[source.to_str().expect("UTF-8")]);
        let refused = trial(folder.path().join("libonnxruntime.so")).expect_err("it is none");
        assert!(refused.contains(reason), "{reason} is not in {refused}");
    }
}

/// What the trial prints for whoever runs it by hand.
#[test]
fn the_trial_answers_on_standard_output() {
    let (code, said, _) = run(&["try-cuda-graphs", "--ort-library", CPU_BUILD]);
    assert!(code == Some(0) && said.starts_with("refused: ONNX Runtime cannot load"), "{code:?} {said}");
    assert_eq!(said.lines().count(), 1, "{said}");
}
