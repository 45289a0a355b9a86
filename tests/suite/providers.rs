//! `--provider` without a GPU: always with the CPU build of ONNX Runtime, and with the one for CUDA and TensorRT if
//! `make vendor-gpu` has fetched it.

use std::{
    io::{Read, Write},
    path::Path,
    process::Command,
    sync::Arc,
};

use lfm_serve::{
    app,
    config::{Auto, ModelConfig, Precision},
    image::{Limits, inspect, prepare},
    model::{CudaGraphs, Execution, GRAPH, GraphProbe, OnnxModel, Provider, STANDARD_GRAPH, SessionOptions},
    scheduler::Pool,
};
use serde_json::Value;
use tracing::{Level, subscriber::with_default};

use crate::{
    cli::{assert_one_line, model_copy},
    harness::{Server, TestApp, config, golden, picture, program, published_model, root, run, shared},
};

pub const CPU_BUILD: &str = "vendor/onnxruntime/libonnxruntime.so";
const GPU_BUILD: &str = "vendor/onnxruntime-gpu/libonnxruntime.so";

/// A build's message about a provider that cannot run here: the reason, and what to install.
pub type Reasons = &'static [&'static str];

const NOT_BUILT_IN: Reasons = &["this ONNX Runtime is built without it", "make vendor-gpu"];
const NO_CUDA: Reasons =
    &["cannot load libcuda.so.1 (NVIDIA's driver", "libcublasLt.so.13", "apt-get install cuda-libraries-13-0"];
const NO_TENSORRT: Reasons = &["cannot load libcuda.so.1", "libnvinfer.so.10", "apt-get install libnvinfer10"];

/// The available builds, with their messages about cuda and tensorrt.
pub fn builds(test: &str) -> Vec<(&'static str, Reasons, Reasons)> {
    let mut builds = vec![(CPU_BUILD, NOT_BUILT_IN, NOT_BUILT_IN)];
    let skip = |why: &str| {
        // Not `eprintln!`: of a test that passes its output is swallowed.
        let _ = writeln!(std::io::stderr(), "SKIPPED {test} with the GPU build of ONNX Runtime: {why}");
    };
    if std::path::Path::new("/proc/driver/nvidia").exists() {
        skip("this machine has a GPU");
    } else if root().join(GPU_BUILD).is_file() {
        builds.push((GPU_BUILD, NO_CUDA, NO_TENSORRT));
    } else {
        skip("run make vendor-gpu to fetch it");
    }
    builds
}

#[test]
fn a_named_provider_that_cannot_run_is_one_line() {
    for (library, cuda, tensorrt) in builds("a named provider") {
        for (provider, reasons) in [("cuda", cuda), ("tensorrt", tensorrt)] {
            let flags = ["--listen", "127.0.0.1:0", "--provider", provider, "--ort-library", library];
            let ended = run(&[&["serve", "--log-level", "error"], &flags[..]].concat());
            assert_one_line(&ended, &[&format!("--provider {provider} cannot run")]);
            assert_one_line(&ended, reasons);
            let picture = "tests/golden/images/x_coffee_64.png";
            assert_one_line(&run(&["score", "--provider", provider, "--ort-library", library, picture]), reasons);
        }
    }
}

#[test]
fn half_precision_is_refused_where_tensorrt_cannot_run() {
    let picture = "tests/golden/images/x_coffee_64.png";
    let ended = run(&["score", "--precision", "fp16", "--ort-library", CPU_BUILD, picture]);
    assert_one_line(&ended, &["no provider can run", "cpu: --precision fp16 runs on tensorrt only"]);
}

#[test]
fn auto_serves_on_the_cpu_and_says_why() {
    for (library, cuda, tensorrt) in builds("auto") {
        let mut server = Server::start(&[
            "--sessions",
            "1",
            "--max-batch-size",
            "1",
            "--log-level",
            "info",
            "--log-format",
            "json",
            "--ort-library",
            library,
        ]);
        let mut log = server.log();
        let client = reqwest::blocking::Client::new();
        let scored = client.post(format!("{}/v1/score", server.url)).body(picture()).send().expect("an answer");
        assert_eq!(scored.status(), 200);
        let metrics = client.get(format!("{}/metrics", server.url)).send().and_then(|answer| answer.text());
        let metrics = metrics.expect("metrics");
        assert!(metrics.contains(r#"lfm_model_info{digest="#) && metrics.contains(r#"execution_provider="cpu""#));
        assert!(metrics.contains(r#"lfm_execution_provider_available{provider="tensorrt-rtx"}"#), "{metrics}");
        assert!(server.terminate().0.success());

        let mut text = String::new();
        log.read_to_string(&mut text).expect("a log");
        let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
        let fields = |message: &str, provider: &str| {
            let found = lines.iter().find(|line| {
                line["message"].as_str().is_some_and(|it| it.contains(message)) && line["provider"] == provider
            });
            found.unwrap_or_else(|| panic!("{message:?} of {provider} is not in {text}"))
        };
        for (provider, reasons) in [("cuda", cuda), ("tensorrt", tensorrt)] {
            let reason = fields("cannot run", provider)["reason"].as_str().expect("a reason");
            reasons.iter().for_each(|part| assert!(reason.contains(part), "{part:?} is not in {reason:?}"));
        }
        let placement = fields("ready", "cpu")["placement"].as_str().expect("a placement").to_owned();
        assert!(placement.starts_with("CPUExecutionProvider: "), "{placement}");
        assert!(placement.contains("1 lfm:TopKPooling") && !placement.contains(';'), "{placement}");
    }
}

#[test]
fn doctor_shows_every_provider_and_fails_for_a_named_one() {
    for (library, cuda, tensorrt) in builds("doctor") {
        let doctor = |provider: &str| {
            let (code, out, _) = run(&["doctor", "--json", "--ort-library", library, "--provider", provider]);
            let report: Value = serde_json::from_str(&out).expect("JSON");
            let checks = report["checks"].as_array().expect("checks").clone();
            let status = |name: &str| {
                let check = checks.iter().find(|check| check["name"] == name).expect("a check");
                (check["status"].as_str().expect("a status").to_owned(), check["detail"].to_string())
            };
            (code, status("providers"), status("placement"))
        };
        let (code, (status, detail), (_, placement)) = doctor("auto");
        assert_eq!((code, &*status), (Some(0), "ok"), "{detail}");
        assert!(detail.contains("cpu: usable") && detail.contains("serve runs on cpu, fp32"), "{detail}");
        assert!(placement.contains("CPUExecutionProvider: "), "{placement}");
        for part in cuda.iter().chain(tensorrt) {
            assert!(detail.contains(part), "{part:?} is not in {detail}");
        }
        let (code, (status, detail), (placement, _)) = doctor("cuda");
        assert_eq!((code, &*status, &*placement), (Some(1), "fail", "skip"), "{detail}");
        assert!(detail.contains("--provider cuda cannot run"), "{detail}");
    }
}

/// TensorRT as on a GPU that passes the trial but cannot run the model: here it was never tried, and ONNX Runtime
/// refuses the session.
const TENSORRT: Execution = Execution {
    provider: Provider::TensorRt,
    precision: Precision::Fp32,
    graphs: CudaGraphs::Off,
    passed_over: Vec::new(),
};

type Loaded = Result<(SessionOptions, Vec<OnnxModel>), String>;

/// Loads the model as `serve` does after choosing TensorRT; also returns the log.
async fn load_on_tensorrt(test: &TestApp) -> (Loaded, Vec<Value>) {
    let app = test.app.clone();
    let written = tempfile::NamedTempFile::new().expect("a file");
    let writer = Arc::new(written.reopen().expect("the file"));
    let log = tracing_subscriber::fmt().json().with_max_level(Level::WARN).with_writer(writer).finish();
    let load = move || {
        app.state.metrics.runs_on(0, TENSORRT.provider.name(), TENSORRT.precision.name());
        app.load(0, SessionOptions::on(TENSORRT, &app.state.config.models()[0], Auto::Fixed(1))?)
    };
    let loaded = tokio::task::spawn_blocking(|| with_default(log, load)).await.expect("no panic");
    let lines = std::fs::read_to_string(written.path()).expect("a log");
    let lines = lines.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON")["fields"].take());
    (loaded.map_err(|error| format!("{error:#}")), lines.collect())
}

#[tokio::test]
async fn auto_steps_down_from_a_provider_that_cannot_run_the_model() {
    let whole = model_copy();
    let lacking = model_copy();
    let path = lacking.path().join("manifest.json");
    let mut manifest: Value = serde_json::from_slice(&std::fs::read(&path).expect("read")).expect("JSON");
    manifest["files"].as_object_mut().expect("files").remove(STANDARD_GRAPH).expect("it was there");
    std::fs::write(&path, manifest.to_string()).expect("written");

    for (model, reason) in [
        (&whole, "ONNX Runtime cannot load the model's lfm.std.onnx: "),
        (&lacking, "files does not list lfm.std.onnx"),
    ] {
        let test = TestApp::starting(&["--sessions", "1", "--model", &model.path().to_string_lossy()]).await;
        let (loaded, log) = load_on_tensorrt(&test).await;
        let (options, sessions) = loaded.expect("the CPU runs it");
        let fields = &log.first().expect("a line");
        let why = fields["reason"].as_str().expect("a reason");
        assert!(log.len() == 1 && why.contains(reason) && !why.contains('\n'), "{log:?}");
        assert_eq!((&fields["provider"], &fields["next_best"]), (&"tensorrt".into(), &"cpu".into()));

        let shown =
            options.execution().availability(&test.app.state.config.models()[0]).expect("ONNX Runtime is there");
        let shown = shown.iter().map(|one| (one.provider, one.refusal.as_deref())).collect::<Vec<_>>();
        assert!(matches!(
            shown[..],
            [(Provider::Cpu, None), (Provider::Cuda, Some(_)), (Provider::TensorRt, Some(told)), (Provider::TensorRtRtx, Some(_))]
                if told == why
        ));
        test.app.start(vec![Pool { sessions, rebuild: app::rebuild(options) }]);
        assert_eq!(test.score(picture()).await.status(), 200);
        assert_eq!(test.metric(r#"lfm_execution_provider_available{provider="cpu"}"#).await, 1.0);
        assert_eq!(test.metric(r#"lfm_execution_provider_available{provider="tensorrt"}"#).await, 0.0);
        let metrics = test.get("/metrics").await.text().await.expect("text");
        let info: Vec<_> = metrics.lines().filter(|line| line.starts_with("lfm_model_info{")).collect();
        assert!(matches!(info[..], [line] if line.contains(r#"execution_provider="cpu""#)), "{info:?}");
        test.stopped().await;
    }
}

#[tokio::test]
async fn a_named_provider_that_cannot_run_the_model_is_an_error() {
    let test = TestApp::starting(&["--sessions", "1", "--provider", "tensorrt"]).await;
    let (loaded, log) = load_on_tensorrt(&test).await;
    let error = loaded.map(drop).expect_err("it was named");
    assert!(error.starts_with("ONNX Runtime cannot load the model's lfm.std.onnx: "), "{error}");
    assert!(!error.contains('\n') && log.is_empty(), "{error} {log:?}");
}

/// Compiles a shared library of this name in a folder, from files and options of the C compiler.
pub fn compile(folder: &Path, name: &str, arguments: &[&str]) {
    let mut compiler = Command::new("cc");
    compiler.args(["-shared", "-fPIC", "-o"]).arg(folder.join(name)).args(arguments);
    assert!(compiler.status().expect("a C compiler, which the build needs too").success());
}

/// With the GPU build and fake libraries: a machine whose driver finds no GPU, or one that is too old.
#[test]
fn a_missing_or_old_gpu_is_one_line() {
    if builds("a GPU that is not there").len() < 2 {
        return;
    }
    let emulation = root().join("src/cuda/emulation.c");
    for (define, reason) in [
        ("-DDEVICES=0", "--provider cuda cannot run: the NVIDIA driver sees no GPU"),
        ("-DCAPABILITY_MAJOR=6", "has compute capability 6.0; 7.5 or newer is needed"),
    ] {
        let folder = tempfile::tempdir().expect("a folder");
        let compile = |name: &str, arguments: &[&str]| compile(folder.path(), name, arguments);
        compile("libcuda.so.1", &[define, emulation.to_str().expect("UTF-8")]);
        for name in ["libcudart.so.13", "libcublasLt.so.13", "libcublas.so.13", "libcurand.so.10"] {
            compile(name, &["-x", "c", "/dev/null"]);
        }
        let output = program()
            .args(["score", "--provider", "cuda", "--ort-library", GPU_BUILD, "tests/golden/images/x_coffee_64.png"])
            .env("LD_LIBRARY_PATH", folder.path())
            .output()
            .expect("it runs");
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
        assert_one_line(&(output.status.code(), text(output.stdout), text(output.stderr)), &[reason]);
    }
}

/// TensorRT's graph equals the one with our operator: both give the same on the CPU, for every golden image.
#[test]
fn both_graphs_give_the_same_logits() {
    let mut models = config(&[]).models();
    if let Some(shared) = shared("both graphs of the published model") {
        models.push(ModelConfig { model: Some(published_model(&shared).into()), runtime: config(&[]).runtime });
    }
    let names = std::fs::read_dir(root().join("tests/golden/images")).expect("the golden images");
    let images: Vec<_> = names
        .filter_map(|entry| {
            let bytes = golden(&format!("images/{}", entry.ok()?.file_name().to_str()?));
            let header = inspect(&bytes, &Limits::default()).ok()?;
            prepare(&bytes, &header, Default::default(), &mut Default::default(), &Default::default()).ok()
        })
        .collect();
    // All except the refused one, 16-bit grey.
    assert_eq!(images.len(), 37);
    for model in &models {
        let [mut ours, mut standard] =
            [GRAPH, STANDARD_GRAPH].map(|graph| GraphProbe::start(model, graph).expect("a session"));
        for pixels in &images {
            let (ours, standard) = (ours.run(pixels).expect("a run"), standard.run(pixels).expect("a run"));
            assert!((ours.logit - standard.logit).abs() <= 1e-5, "{} and {}", ours.logit, standard.logit);
            assert_eq!(ours.topk_indices, standard.topk_indices);
        }
    }
}
