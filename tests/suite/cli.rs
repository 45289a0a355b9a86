//! The command line.

use std::{fs, path::Path};

use serde_json::Value;

use crate::harness::{Server, golden, program, root, run};

/// A copy of the bundled model folder, to be damaged.
pub fn model_copy() -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    for file in ["manifest.json", "lfm.onnx", "lfm.std.onnx", "lfm.cpu.onnx"] {
        fs::copy(root().join("models").join(file), folder.path().join(file)).expect("copied");
    }
    folder
}

/// The program ended with status 1 and one line that holds all of `parts`.
pub fn assert_one_line(ended: &(Option<i32>, String, String), parts: &[&str]) {
    let (code, _, log) = ended;
    assert_eq!(*code, Some(1), "{log}");
    assert_eq!(log.trim().lines().count(), 1, "{log}");
    assert!(log.starts_with("lfm-serve: ") && !log.contains("panicked"), "{log}");
    for part in parts {
        assert!(log.contains(part), "{part:?} is not in {log}");
    }
}

#[test]
fn help_is_complete() {
    let (code, help, _) = run(&["--help"]);
    assert_eq!(code, Some(0));
    for word in
        ["serve", "score", "evaluate", "calibrate", "healthcheck", "openapi", "curl -F image=@photo.jpg", "LFM_"]
    {
        assert!(help.contains(word), "{word} is missing");
    }
    let (_, serve, _) = run(&["serve", "--help"]);
    for flag in ["--listen", "--model", "--max-pixels", "64MP", "LFM_REQUEST_TIMEOUT", "10s", "--drain-delay"] {
        assert!(serve.contains(flag), "{flag} is missing");
    }
    let (_, version, _) = run(&["--version"]);
    assert!(version.contains(env!("CARGO_PKG_VERSION")) && version.contains("revision"), "{version}");
}

#[test]
fn a_missing_or_wrong_library_is_one_line() {
    let picture = "tests/golden/images/x_coffee_64.png";
    let missing = run(&["score", "--ort-library", "/nowhere/libonnxruntime.so", picture]);
    assert_one_line(&missing, &["ONNX Runtime 1.31.1 not found", "/nowhere/libonnxruntime.so", "make vendor"]);
    let text = run(&["score", "--ort-library", "Cargo.toml", picture]);
    assert_one_line(&text, &["cannot use the ONNX Runtime library Cargo.toml"]);
    let libc =
        ["/lib/x86_64-linux-gnu/libc.so.6", "/usr/lib64/libc.so.6"].into_iter().find(|path| Path::new(path).exists());
    let foreign =
        run(&["serve", "--listen", "127.0.0.1:0", "--log-level", "error", "--ort-library", libc.expect("a libc")]);
    assert_one_line(&foreign, &["it is not ONNX Runtime", "1.31.1"]);
}

#[test]
fn a_model_that_is_not_one_is_one_line() {
    let picture = "tests/golden/images/x_coffee_64.png";
    let score = |folder: &Path| run(&["score", "--model", &folder.to_string_lossy(), picture]);
    assert_one_line(&score(Path::new("/nowhere")), &["/nowhere/manifest.json", "No such file"]);

    let tampered = model_copy();
    let graph = tampered.path().join("lfm.cpu.onnx");
    let mut bytes = fs::read(&graph).expect("the graph");
    *bytes.last_mut().expect("bytes") ^= 1;
    fs::write(&graph, bytes).expect("written");
    assert_one_line(&score(tampered.path()), &["lfm.cpu.onnx does not match its manifest", "sha256"]);

    let manifest = |change: fn(&mut Value)| {
        let folder = model_copy();
        let path = folder.path().join("manifest.json");
        let mut manifest: Value = serde_json::from_slice(&fs::read(&path).expect("read")).expect("JSON");
        change(&mut manifest);
        fs::write(&path, manifest.to_string()).expect("written");
        folder
    };
    let newer = manifest(|manifest| manifest["format_version"] = 4.into());
    assert_one_line(&score(newer.path()), &["format_version is 4"]);
    let threshold = manifest(|manifest| manifest["threshold"] = 7.into());
    assert_one_line(&score(threshold.path()), &["threshold 7"]);
    let preprocessing = manifest(|manifest| manifest["preprocessing"] = "squash".into());
    assert_one_line(&score(preprocessing.path()), &["squash"]);
}

#[test]
fn a_port_that_is_taken_is_one_line() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("an address").to_string();
    assert_one_line(&run(&["serve", "--log-level", "error", "--listen", &address]), &["cannot listen on", &address]);
}

#[test]
fn bad_settings_are_refused_at_start() {
    for flags in
        [["--max-pixels", "many"], ["--sessions", "0"], ["--request-timeout", "10"], ["--log-level", "info=x=y"]]
    {
        let (code, _, log) = run(&["serve", flags[0], flags[1]]);
        assert!(matches!(code, Some(1 | 2)) && log.contains(flags[0].trim_start_matches('-')), "{log}");
    }
}

#[test]
fn score_prints_a_json_line_per_file_and_its_exit_status_reports_failures() {
    let (code, out, log) = run(&["score", "tests/golden/images/x_coffee_64.png", "tests/golden/images/x_flat.png"]);
    assert_eq!((code, &*log), (Some(0), ""));
    let lines: Vec<Value> = out.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(lines.len(), 2);
    assert_eq!(lines[0]["path"], "tests/golden/images/x_coffee_64.png");
    assert_eq!(lines[1]["warnings"], serde_json::json!(["no_signal", "small_source"]));
    // There is nothing to judge in a flat picture.
    assert!(lines[0]["logit"].is_number() && lines[0]["score"].is_number(), "{}", lines[0]);
    assert!(lines[1]["logit"].is_null() && lines[1]["score"].is_null(), "{}", lines[1]);
    for line in &lines {
        assert!(line["logit_raw"].is_number() && line["verdict"].is_string(), "{line}");
        assert_eq!(line["image"]["rgb256_sha256"].as_str().map(str::len), Some(64));
    }

    let (code, out, _) =
        run(&["score", "tests/golden/hostile/text.jpg", "/nowhere.png", "tests/golden/images/x_flat.png"]);
    assert_eq!(code, Some(2));
    let codes: Vec<Value> =
        out.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON")["error"]["code"].clone()).collect();
    assert_eq!(codes, [Value::from("unsupported_format"), Value::from("unreadable"), Value::Null]);
}

#[test]
fn score_takes_folders_and_the_table_is_for_terminals() {
    let (code, out, _) = run(&["score", "--json", "tests/golden/images"]);
    let images = fs::read_dir(root().join("tests/golden/images")).expect("the folder").count();
    assert_eq!(out.lines().count(), images);
    assert_eq!(code, Some(2), "16-bit grey is refused");
    let empty = tempfile::tempdir().expect("a folder");
    assert_one_line(&run(&["score", &empty.path().to_string_lossy()]), &["no images"]);
}

#[test]
fn evaluate_counts_per_source_and_their_mean() {
    let set = tempfile::tempdir().expect("a folder");
    let put = |place: &str, golden_file: &str| {
        let path = set.path().join(place);
        fs::create_dir_all(path.parent().expect("a parent")).expect("a folder");
        fs::write(path, golden(golden_file)).expect("written");
    };
    put("set/one/0_real/a.png", "images/coffee_rgb.png");
    put("set/one/1_fake/deeper/b.png", "images/x_coffee_64.png");
    put("two/0_real/c.jpg", "images/orig_rocket.jpg");
    put("two/0_real/broken.jpg", "hostile/truncated_60pct.jpg");
    put("two/0_real/notes.txt", "hostile/text.jpg");
    let (code, out, log) = run(&["evaluate", &set.path().to_string_lossy()]);
    assert_eq!(code, Some(2), "{log}");
    assert!(log.contains("broken.jpg") && log.contains("undecodable_image"), "{log}");
    let report: Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!(report["failed"], 1);
    assert_eq!(report["sources"]["set/one"]["n"], 2);
    assert!(report["sources"]["set/one"]["average_precision"].is_number());
    assert_eq!(report["sources"]["two"]["n"], 1);
    assert!(
        report["sources"]["two"]["average_precision"].is_null() && report["sources"]["two"]["fake_accuracy"].is_null()
    );
    assert_eq!(report["mean"]["average_precision"], report["sources"]["set/one"]["average_precision"]);
    assert_eq!((&report["all"]["n"], &report["all"]["n_fake"]), (&3.into(), &1.into()));
    assert_eq!((&report["classes"]["small"]["n"], &report["classes"]["lossless"]["n"]), (&1.into(), &1.into()));
    assert_one_line(&run(&["evaluate", "tests"]), &["0_real"]);
}

#[test]
fn evaluate_sweeps_jpeg_qualities_compares_models_and_draws() {
    let set = tempfile::tempdir().expect("a folder");
    let folder = set.path().join("one");
    for (class, file) in [("0_real", "images/coffee_rgb.png"), ("1_fake", "images/chelsea_exif6.jpg")] {
        fs::create_dir_all(folder.join(class)).expect("a folder");
        fs::write(folder.join(class).join("Thumbs.db"), []).expect("no image by its name");
        fs::write(folder.join(class).join(file.replace('/', "_")), golden(file)).expect("written");
    }
    let (other, drawn) = (model_copy(), set.path().join("plot.svg"));
    let (set_path, other, plot) =
        (set.path().to_string_lossy(), other.path().to_string_lossy(), drawn.to_string_lossy());

    let (code, out, log) = run(&["evaluate", &set_path, "--jpeg-quality", "90,30"]);
    assert_eq!((code, &*log), (Some(0), ""));
    let alone: Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!(alone["sources"]["one"]["n"], 2);
    assert_eq!(alone["jpeg"]["90"]["sources"]["one"]["n"], 2);
    assert!(alone["jpeg"]["30"]["mean"]["average_precision"].is_number());

    let models = ["--model", "models", "--model", &other];
    let (code, out, log) =
        run(&[&["evaluate", &*set_path, "--jpeg-quality", "90,30", "--plot", &plot], &models[..]].concat());
    assert_eq!((code, &*log), (Some(0), ""));
    let both: Value = serde_json::from_str(&out).expect("JSON");
    for (model, folder) in both["models"].as_array().expect("a list").iter().zip(["models", &other]) {
        assert_eq!(model["model"]["folder"], folder);
        for part in ["judged_by", "sources", "classes", "all", "mean", "jpeg", "failed"] {
            assert_eq!(model[part], alone[part], "equal models have equal figures");
        }
    }
    let svg = fs::read_to_string(&drawn).expect("a plot");
    assert!(svg.starts_with("<svg") && svg.trim_end().ends_with("</svg>"));
    for word in ["real", "generated", "JPEG 30", "as stored", "JPEG quality", "uncertain", "jpeg_90_95"] {
        assert!(svg.contains(word), "{word} is not drawn");
    }

    for flag in ["--plot", "--scores"] {
        assert_one_line(&run(&["evaluate", &set_path, flag, "/nowhere/file"]), &["/nowhere/file"]);
    }
    let (code, _, log) = run(&["evaluate", &set_path, "--jpeg-quality", "0"]);
    assert!(code == Some(2) && log.contains("1..=100"), "{log}");
}

/// Verdicts are `score`'s under the same settings, image by image, and the figures are counted from them.
#[test]
fn evaluate_judges_as_score_does() {
    let set = tempfile::tempdir().expect("a folder");
    let files = ["images/coffee_rgb.png", "images/chelsea_exif6.jpg", "images/orig_rocket.jpg"];
    for (label, file) in ["0_real", "1_fake"].into_iter().flat_map(|label| files.map(|file| (label, file))) {
        let folder = set.path().join("one").join(label);
        fs::create_dir_all(&folder).expect("a folder");
        fs::write(folder.join(file.replace('/', "_")), golden(file)).expect("written");
    }
    let lines =
        |text: &str| -> Vec<Value> { text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect() };
    let (folder, scores) = (set.path().to_string_lossy(), set.path().join("scores.jsonl"));
    let scores_path = scores.to_string_lossy();
    for settings in [&["--threshold", "0.2"][..], &["--operating-point", "0.5"], &["--regions", "9"], &[]] {
        let (code, out, log) = run(&[&["evaluate", &*folder, "--scores", &scores_path], settings].concat());
        assert_eq!(code, Some(0), "{log}");
        let report: Value = serde_json::from_str(&out).expect("JSON");
        let (_, said, _) = run(&[&["score", &*folder], settings].concat());
        let said = lines(&said);
        let written = lines(&fs::read_to_string(&scores).expect("the scores"));
        let judged: Vec<_> = said.iter().filter(|line| line["error"].is_null()).collect();
        assert_eq!((judged.len(), written.len()), (6, 6), "{settings:?}");
        for (line, mut written) in judged.iter().zip(written) {
            let fields = written.as_object_mut().expect("an object");
            let label = fields.remove("label").expect("a label");
            let expected =
                if line["path"].as_str().is_some_and(|path| path.contains("0_real")) { "real" } else { "fake" };
            assert_eq!(
                (fields.remove("source"), fields.remove("jpeg_quality")),
                (Some("one".into()), Some(Value::Null))
            );
            assert_eq!((label, &written), (expected.into(), *line));
        }
        let share = |of: &dyn Fn(&Value) -> f64| judged.iter().map(|line| of(line)).sum::<f64>() / 6.0;
        let coverage = share(&|line| f64::from(line["verdict"] != "uncertain"));
        let regions = share(&|line| line["judged"]["regions"].as_array().expect("regions").len() as f64);
        let all = &report["all"];
        assert!((all["coverage"].as_f64().expect("a share") - coverage).abs() < 1e-12, "{settings:?}: {all}");
        assert!((all["regions"].as_f64().expect("a mean") - regions).abs() < 1e-12, "{settings:?}: {all}");
        let threshold = settings.first() == Some(&"--threshold");
        assert_eq!(report["judged_by"]["threshold"].as_f64(), threshold.then_some(0.2));
        assert_eq!(report["judged_by"]["operating_point"].is_null(), threshold);
        // Each picture stands under both labels.
        assert_eq!(all["average_precision"], 0.5);
        assert!(all["accuracy"].is_null() || all["accuracy"] == 0.5, "{all}");
    }
    let (code, _, log) = run(&["evaluate", &folder, "--threshold", "7"]);
    assert!(code == Some(2) && log.contains("between 0 and 1"), "{log}");
}

#[test]
fn openapi_prints_the_servers_document() {
    let (code, out, _) = run(&["openapi"]);
    assert_eq!(code, Some(0));
    assert_eq!(out.trim(), lfm_serve::api::openapi::document().trim());
    let committed = std::fs::read_to_string(crate::harness::root().join("docs/openapi.json")).expect("the copy");
    assert!(out == committed, "docs/openapi.json is behind: make openapi");
}

#[test]
fn a_server_is_healthy_until_it_is_stopped() {
    let server = Server::start(&["--sessions", "2"]);
    let url = format!("{}/readyz", server.url);
    assert_eq!(run(&["healthcheck", "--url", &url]).0, Some(0));
    let (ended, log) = server.terminate();
    assert!(ended.success());
    assert_eq!(log, "", "at level warn a clean start and stop log nothing");
    let (code, _, log) = run(&["healthcheck", "--url", &url]);
    assert_eq!(code, Some(1));
    assert!(log.contains("is not healthy"), "{log}");
}

#[test]
fn settings_come_from_the_environment_too() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("an address").to_string();
    let output =
        program().args(["serve", "--log-level", "error"]).env("LFM_LISTEN", &address).output().expect("it runs");
    assert!(String::from_utf8_lossy(&output.stderr).contains(&address));
}

#[test]
fn ctrl_c_at_a_terminal_does_not_wait_for_a_load_balancer() {
    let server = Server::start(&["--sessions", "1", "--drain-delay", "1h", "--drain-timeout", "2h"]);
    let (ended, _) = server.end("INT");
    assert!(ended.success());
}

#[test]
fn onnx_runtime_sends_no_telemetry() {
    let home = tempfile::tempdir().expect("a folder");
    let mut score = program();
    // Without the settings that would disable it here: the checkout's own, and those of CI.
    let score = score.env_clear().env("HOME", home.path()).args(["score", "tests/golden/images/x_coffee_64.png"]);
    assert!(score.output().expect("it runs").status.success());
    // ONNX Runtime stores an id and a queue of events there before it sends any.
    let left: Vec<_> = fs::read_dir(home.path()).expect("the folder").collect();
    assert!(left.is_empty(), "{left:?}");
}
