//! Several models in one service: which one judges an image, and that each answers as it does alone.

use std::{path::Path, sync::Arc};

use lfm_serve::{
    model::{Execution, Manifest, RunError},
    oip::grpc::proto::{ModelInferRequest, ModelInferResponse, ModelStatisticsRequest, ModelStatisticsResponse},
    scheduler::Pool,
};
use prost::Message;
use reqwest::blocking::{Client, Response, multipart};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{
    fake::Fake,
    grpc,
    harness::{PATIENCE, Server, TestApp, assert_problem, golden, pool, program, root, run},
    import::imported,
};

/// A PNG and a JPEG, each with sides of 256 pixels or more.
const LOSSLESS: &str = "images/coffee_rgb.png";
const LOSSY: &str = "images/orig_rocket.jpg";

/// The bundled model and an imported one, whose manifests these are.
struct Two {
    server: Server,
    lfm: Value,
    tiny: Value,
    folders: [String; 2],
    client: Client,
    folder: TempDir,
}

impl Two {
    /// JPEG goes to the imported one.
    fn start() -> Self {
        let (folder, tiny) = imported("tiny", &[]);
        let folders = [root().join("models").display().to_string(), tiny];
        let [one, other] = &folders;
        let log = folder.path().join("audit").display().to_string();
        let models = ["--model", one, "--model", other, "--route", "lossy=tiny"];
        let server = Server::start(&[&models, &["--sessions", "1", "--audit-log", &log][..]].concat());
        let [lfm, tiny] = [one, other].map(|folder| manifest(Path::new(folder)));
        Self { server, lfm, tiny, folders, client: Client::new(), folder }
    }

    fn get(&self, path: &str) -> Response {
        self.client.get(format!("{}{path}", self.server.url)).send().expect("an answer")
    }

    fn json(&self, path: &str) -> Value {
        self.get(path).json().expect("JSON")
    }

    fn post(&self, path: &str, image: &str) -> Response {
        self.client.post(format!("{}{path}", self.server.url)).body(golden(image)).send().expect("an answer")
    }

    /// What the model in a folder says of a picture when it is alone.
    fn alone(&self, model: usize, image: &str) -> Value {
        let path = root().join("tests/golden").join(image).display().to_string();
        let (status, out, error) = run(&["score", "--json", "--model", &self.folders[model], &path]);
        assert_eq!(status, Some(0), "{error}");
        serde_json::from_str(&out).expect("JSON")
    }
}

fn manifest(folder: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(folder.join("manifest.json")).expect("a manifest")).expect("JSON")
}

/// Both were decided alike, to the last bit.
fn assert_same(answer: &Value, alone: &Value) {
    for field in ["verdict", "score", "logit", "logit_raw", "threshold", "warnings", "judged", "evidence"] {
        assert_eq!(answer[field], alone[field], "{field}");
    }
}

#[test]
fn each_class_of_file_is_judged_by_its_model_as_by_that_model_alone() {
    let two = Two::start();
    for (image, model, manifest) in [
        (LOSSLESS, 0, &two.lfm),
        (LOSSY, 1, &two.tiny),
        // Of the class `small`, which no route names.
        ("images/x_coffee_64.png", 0, &two.lfm),
    ] {
        let answer: Value = two.post("/v1/score", image).json().expect("JSON");
        assert_eq!(answer["model"]["name"], manifest["name"], "{image}");
        assert_eq!(answer["model"]["digest"], manifest["digest"], "{image}");
        assert_same(&answer, &two.alone(model, image));
    }

    let part = |image: &str| multipart::Part::bytes(golden(image)).file_name(image.to_owned());
    let images = [LOSSY, LOSSLESS, LOSSY, LOSSLESS];
    let form = images.into_iter().fold(multipart::Form::new(), |form, image| form.part("image", part(image)));
    let batch = two.client.post(format!("{}/v1/score/batch", two.server.url)).multipart(form).send();
    let batch: Value = batch.expect("an answer").json().expect("JSON");
    let results = batch["results"].as_array().expect("results");
    let names: Vec<_> = results.iter().map(|one| &one["result"]["model"]["name"]).collect();
    assert_eq!(names, ["tiny", "lfm", "tiny", "lfm"]);

    // What one of them cannot do is refused for its classes alone.
    assert_eq!(two.post("/v1/explain", LOSSLESS).status(), 200);
    assert_eq!(two.post("/v1/explain", LOSSY).status(), 501);
    assert_eq!(two.post("/v1/score?max_false_alarms=0.1", LOSSLESS).status(), 200);
    assert_eq!(two.post("/v1/score?max_false_alarms=0.1", LOSSY).status(), 400);

    let Two { server, lfm, tiny, folder, .. } = two;
    server.terminate();
    let log = std::fs::read_to_string(folder.path().join("audit")).expect("a decision log");
    let digests = log.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON")["model_digest"].take());
    let digests: Vec<_> = digests.take(3).collect();
    assert_eq!(digests, [&lfm, &tiny, &lfm].map(|manifest| manifest["digest"].clone()));
}

#[test]
fn every_model_is_named_and_can_be_asked_by_its_name() {
    let two = Two::start();
    let ready = two.json("/readyz");
    assert_eq!(ready["model"]["digest"], two.lfm["digest"]);
    let about = two.json("/v1/model");
    assert_eq!((&about["name"], &about["explains"]), (&json!("lfm"), &json!(true)));
    for answer in [&ready, &about] {
        let [lfm, tiny] = &answer["models"].as_array().expect("models")[..] else { panic!("{answer}") };
        assert_eq!((&lfm["digest"], &tiny["digest"]), (&two.lfm["digest"], &two.tiny["digest"]));
        assert_eq!(lfm["classes"], json!(["lossless", "small"]));
        assert_eq!(tiny["classes"].as_array().expect("classes").len(), 6);
    }

    // By name a model judges any file.
    let file = base64(&golden(LOSSLESS));
    let request = json!({
        "inputs": [{"name": "image", "datatype": "BYTES", "shape": [1], "data": [file]}],
        "outputs": [{"name": "logit_raw"}],
    });
    for (model, name) in ["lfm", "tiny"].into_iter().enumerate() {
        let url = format!("{}/v2/models/{name}/infer", two.server.url);
        let answer: Value = two.client.post(url).json(&request).send().expect("an answer").json().expect("JSON");
        assert_eq!(answer["model_name"], name, "{answer}");
        let found = answer["outputs"][0]["data"][0].as_f64().expect("a logit");
        let alone = two.alone(model, LOSSLESS)["logit_raw"].as_f64().expect("a logit");
        // Of one region: `infer` takes the number that `score` does.
        assert_eq!(found as f32, alone as f32, "{name}");
        assert_eq!(two.get(&format!("/v2/models/{name}/ready")).status(), 200);
    }
    let inputs = |name: &str| two.json(&format!("/v2/models/{name}"))["inputs"][1]["shape"].clone();
    assert_eq!((inputs("lfm"), inputs("tiny")), (json!([-1, 256, 256, 3]), json!([-1, 8, 12, 3])));
    assert_eq!(two.get("/v2/models/other").status(), 404);
    let stats = two.json("/v2/models/stats");
    let count = |one: &Value| (one["name"].clone(), one["inference_count"].clone());
    let counts: Vec<_> = stats["model_stats"].as_array().expect("statistics").iter().map(count).collect();
    assert_eq!(counts, [(json!("lfm"), json!(1)), (json!("tiny"), json!(1))]);

    let metrics = two.get("/metrics").text().expect("text");
    for manifest in [&two.lfm, &two.tiny] {
        let (name, digest) =
            (manifest["name"].as_str().expect("a name"), manifest["digest"].as_str().expect("a digest"));
        let info = |line: &&str| line.starts_with("lfm_model_info{") && line.contains(digest);
        assert_eq!(metrics.lines().filter(info).count(), 1, "{metrics}");
        let judged = format!("lfm_model_images_total{{model=\"{name}\"}} 1");
        assert!(metrics.lines().any(|line| line == judged), "{metrics}");
        let judging = |line: &&str| line.starts_with("lfm_judge_info{") && line.contains(&format!("model=\"{name}\""));
        assert_eq!(metrics.lines().filter(judging).count(), 1, "{metrics}");
        // Drift is told for each model.
        let scores = format!("lfm_score_count{{model=\"{name}\"}} 1");
        assert!(metrics.lines().any(|line| line == scores), "{metrics}");
    }
    // The imported one brought no scores of validation images.
    let references = |line: &&str| line.starts_with("lfm_score_reference_count{");
    let named = |line: &&str| line.contains("model=\"lfm\"");
    assert_eq!(metrics.lines().filter(references).filter(named).count(), 2, "{metrics}");
    assert_eq!(metrics.lines().filter(references).count(), 2, "{metrics}");
}

fn base64(bytes: &[u8]) -> String {
    use base64::{Engine, prelude::BASE64_STANDARD};
    BASE64_STANDARD.encode(bytes)
}

#[test]
fn models_and_routes_that_do_not_fit_are_refused_at_the_start() {
    let (_folder, tiny) = imported("tiny", &[]);
    let lfm = root().join("models").display().to_string();
    let refused = |models: [&str; 2], route: &[&str]| {
        let models = ["serve", "--log-level", "warn", "--model", models[0], "--model", models[1]];
        let (status, _, error) = run(&[&models, route].concat());
        (status, error)
    };
    for (models, route, reason) in [
        ([&*lfm, &*tiny], &[][..], "no class of file goes to the model tiny"),
        ([&lfm, &tiny], &["--route", "lossy=vit"], "--route lossy=vit: no model is called so; there are lfm, tiny"),
        ([&lfm, &tiny], &["--route", "jpeg=tiny,jpeg=lfm"], "--route names jpeg twice"),
        ([&lfm, &lfm], &["--route", "lossy=lfm"], "two models are called lfm"),
        ([&lfm, "/nowhere"], &["--route", "lossy=tiny"], "/nowhere/manifest.json"),
    ] {
        let (status, error) = refused(models, route);
        assert_eq!(status, Some(1), "{error}");
        assert!(error.contains(reason) && error.lines().count() == 1, "{error}");
    }
    let (status, error) = refused([&lfm, &tiny], &["--route", "png=tiny"]);
    assert_eq!(status, Some(2), "{error}");
    assert!(error.contains("is no class of file: there are lossless, jpeg_95"), "{error}");
}

#[test]
fn doctor_checks_every_model_and_counts_all() {
    let (_folder, tiny) = imported("tiny", &[]);
    let lfm = root().join("models").display().to_string();
    let doctor = |flags: &[&str]| {
        let (status, out, _) = run(&[&["doctor", "--json", "--sessions", "1"], flags].concat());
        let report: Value = serde_json::from_str(&out).expect("JSON");
        let at_start = |name: &str| {
            let checks = report["checks"].as_array().expect("checks");
            let check = checks.iter().find(|check| check["name"] == name).expect("the check");
            check["bytes"]["at_start"].as_u64().expect("bytes")
        };
        (status, at_start("memory"), out.clone())
    };
    let both = ["--model", &lfm, "--model", &tiny, "--route", "jpeg=lfm,lossy=tiny"];
    let (status, bytes, out) = doctor(&both);
    assert_eq!(status, Some(0), "{out}");
    // Lossy WebP is what is left of `lossy` where `jpeg` goes elsewhere.
    assert!(out.contains("tiny judges webp_lossy\""), "{out}");
    assert!(out.contains(&format!("\"model\": \"{tiny}\"")), "{out}");
    assert!(bytes > doctor(&["--model", &lfm]).1);
    let no_route = program().args(["doctor"]).env("LFM_MODEL", format!("{lfm},{tiny}")).output().expect("it runs");
    assert_eq!(no_route.status.code(), Some(1));
    let out = String::from_utf8(no_route.stdout).expect("UTF-8");
    assert!(out.contains("FAIL  routes     no class of file goes to the model tiny"), "{out}");
}

/// The manifest of the tests under another name.
fn other(folder: &Path) -> Arc<Manifest> {
    let mut other = manifest(&root().join("tests/data/model"));
    other["name"] = json!("other");
    std::fs::write(folder.join("manifest.json"), other.to_string()).expect("written");
    Arc::new(Manifest::read(folder).expect("a manifest"))
}

/// An app of the model of the tests, `lfm`, and of `other`.
async fn app(pools: [Pool<Fake>; 2]) -> TestApp {
    let folder = tempfile::tempdir().expect("a folder");
    let first = Arc::new(Manifest::read(&root().join("tests/data/model")).expect("the manifest of the tests"));
    let models = [first, other(folder.path())].map(|manifest| (manifest, Execution::CPU));
    let app = TestApp::of(&models, &["--route", "lossy=other"]).await;
    app.app.start(pools.into());
    app
}

#[tokio::test]
async fn grpc_asks_a_model_by_its_name() {
    let app = app([pool(vec![Fake::instant()]), pool(vec![Fake::instant()])]).await;
    let request = ModelInferRequest { model_name: "other".into(), ..grpc::request(1) };
    let answer: ModelInferResponse = grpc::message(grpc::send(grpc::infer(&app, &request)).await).await;
    assert_eq!(answer.model_name, "other");
    let statistics = async |name: &str| {
        let request = ModelStatisticsRequest { name: name.into(), ..Default::default() }.encode_to_vec();
        let call = grpc::call(&app, "inference.GRPCInferenceService/ModelStatistics", grpc::framed(&request));
        let answer: ModelStatisticsResponse = grpc::message(grpc::send(call).await).await;
        answer.model_stats.into_iter().map(|one| (one.name, one.inference_count)).collect::<Vec<_>>()
    };
    assert_eq!(statistics("").await, [("lfm".to_owned(), 0), ("other".to_owned(), 1)]);
    assert_eq!(statistics("other").await, [("other".to_owned(), 1)]);
}

#[tokio::test]
async fn a_model_without_sessions_turns_readiness_off_and_leaves_the_other_at_work() {
    let mut broken = pool(vec![Fake::new(1, async |_| Err(RunError("it is broken".into())))]);
    broken.rebuild = Arc::new(|| Err("it stays broken".into()));
    let app = app([pool(vec![Fake::instant()]), broken]).await;
    let ready = async |path: &str| app.get(path).await.status() == 200;
    let until = async |path: &str, wanted: bool| {
        while ready(path).await != wanted {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, until("/readyz", true)).await.expect("both have a session");
    assert_problem(app.score(golden(LOSSY)).await, 500, "inference_failed").await;
    tokio::time::timeout(PATIENCE, until("/readyz", false)).await.expect("one has none");
    assert!(ready("/v2/models/lfm/ready").await && !ready("/v2/models/other/ready").await);
    assert_eq!(app.score(golden(LOSSLESS)).await.status(), 200);
}
