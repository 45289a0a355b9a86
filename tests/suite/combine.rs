//! Several models judge together: `calibrate` fits the weights, `serve --combine` answers with the sum.

use std::{fs, fs::File, io::BufWriter, path::Path};

use reqwest::blocking::Client;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::harness::{Server, golden, root, run};

/// Pictures of each label.
const EACH: u32 = 140;

/// A PNG of one colour.
fn write(path: &Path, side: u32, colour: [u8; 3]) {
    fs::create_dir_all(path.parent().expect("a parent")).expect("a folder");
    let mut encoder = png::Encoder::new(BufWriter::new(File::create(path).expect("a file")), side, side);
    encoder.set_color(png::ColorType::Rgb);
    let pixels = colour.repeat((side * side) as usize);
    encoder.write_header().and_then(|mut writer| writer.write_image_data(&pixels)).expect("a PNG");
}

/// Each picture as a file of the class `lossless` and as one of the class `small`. Generated ones have less red and more
/// green, with overlap in both.
fn pictures(folder: &Path) {
    for index in 0..EACH {
        let [red, green] = [37, 53].map(|step| (index * step % 101) as u8);
        for (label, colour) in
            [("0_real", [100 + red, 60 + green, 90]), ("1_fake", [50 + green, 110 + red.wrapping_mul(7) % 101, 90])]
        {
            for (ending, side) in [("png", 256), ("small.png", 64)] {
                write(&folder.join(format!("set/{label}/{label}{index}.{ending}")), side, colour);
            }
        }
    }
}

/// Two networks of tests/data/foreign/tiny.onnx, one of which looks at red and one at green, on inputs made in other ways.
struct Made {
    folder: TempDir,
    pictures: String,
    models: [String; 2],
}

fn imported(folder: &Path, name: &str, flags: [&str; 4]) -> String {
    let graph = root().join("tests/data/foreign/tiny.onnx").display().to_string();
    let out = folder.join(name).display().to_string();
    let [resize, filter, mean, std] = flags;
    let flags = ["--resize", resize, "--filter", filter, "--mean", mean, "--std", std, "--output-kind", "two-logits"];
    let named = ["import-onnx", &graph, "--out", &out, "--name", name];
    let (status, said, log) = run(&[&named[..], &flags[..]].concat());
    assert_eq!(status, Some(0), "{said}{log}");
    out
}

impl Made {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let shown = folder.path().join("pictures");
        pictures(&shown);
        let red = imported(folder.path(), "red", ["both=8x12", "bicubic", "0.5,0.5,0.5", "0.3,4,4"]);
        let green = imported(folder.path(), "green", ["shorter=16", "bilinear", "0.5,0.5,0.5", "4,0.3,4"]);
        Self { pictures: shown.display().to_string(), folder, models: [red, green] }
    }

    fn below(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    fn flags(&self) -> [&str; 4] {
        ["--model", &self.models[0], "--model", &self.models[1]]
    }

    /// Fits a combination, and gives what was printed and the file.
    fn calibrate(&self, out: &str) -> Value {
        let (status, printed, log) = run(&[&["calibrate", &self.pictures, "--out", out], &self.flags()[..]].concat());
        assert_eq!(status, Some(0), "{log}{printed}");
        serde_json::from_str(&printed).expect("JSON")
    }

    /// The logits of one model alone.
    fn alone(&self, model: usize, files: &[String]) -> Vec<f64> {
        let files: Vec<_> = files.iter().map(String::as_str).collect();
        let (status, lines, log) = run(&[&["score", "--json", "--model", &self.models[model]], &files[..]].concat());
        assert_eq!(status, Some(0), "{log}");
        lines.lines().map(|line| number(&read(line.as_bytes())["logit_raw"])).collect()
    }
}

fn read(text: &[u8]) -> Value {
    serde_json::from_slice(text).expect("JSON")
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("{value} is no number"))
}

fn manifest(model: &str) -> Value {
    read(&fs::read(Path::new(model).join("manifest.json")).expect("a manifest"))
}

/// The value of a series without labels.
fn series(metrics: &str, name: &str) -> String {
    let value = |line: &str| line.strip_prefix(name)?.strip_prefix(' ').map(str::to_owned);
    metrics.lines().find_map(value).unwrap_or_else(|| panic!("no {name} in {metrics}"))
}

#[test]
fn the_sum_of_both_logits_is_fitted_served_and_named() {
    let made = Made::new();
    let out = made.below("both.json");
    let printed = made.calibrate(&out);
    assert_eq!(printed["combined"], json!(["red", "green"]));
    for class in ["lossless", "small"] {
        let found = &printed["classes"][class];
        assert_eq!(found["undecided"], Value::Null, "{found}");
        let combined = &found["combined"];
        for figure in ["average_precision", "balanced_accuracy"] {
            let together = number(&combined["together"][figure]);
            for alone in combined["alone"].as_array().expect("models") {
                assert!(together > number(&alone[figure]), "{figure}: {combined}");
            }
        }
        let rows = &printed["report"]["classes"][class];
        assert!(rows["coverage"].as_f64() > Some(0.5) && rows["accuracy"].as_f64() > Some(0.85), "{rows}");
    }
    let file = read(&fs::read(&out).expect("the combination"));
    let manifests = [0, 1].map(|model| manifest(&made.models[model]));
    for (named, manifest) in file["models"].as_array().expect("models").iter().zip(&manifests) {
        assert_eq!((&named["name"], &named["digest"]), (&manifest["name"], &manifest["digest"]));
    }

    let (status, said, log) = run(&[&["evaluate", &made.pictures, "--combine", &out], &made.flags()[..]].concat());
    assert_eq!(status, Some(0), "{log}");
    let compared = &read(said.as_bytes())["models"];
    let names: Vec<_> = compared.as_array().expect("models").iter().map(|one| &one["model"]["name"]).collect();
    assert_eq!(names, ["red+green", "red", "green"]);
    let precision = |at: usize| number(&compared[at]["all"]["average_precision"]);
    assert!(precision(0) > precision(1).max(precision(2)), "{compared}");

    let server = Server::start(&[&made.flags()[..], &["--combine", &out, "--sessions", "1"]].concat());
    let client = Client::new();
    let get = |path: &str| client.get(format!("{}{path}", server.url)).send().expect("an answer");
    let post = |path: &str, image: Vec<u8>| {
        client.post(format!("{}{path}", server.url)).body(image).send().expect("an answer")
    };
    let names = ["0_real/0_real0", "0_real/0_real77", "1_fake/1_fake3", "1_fake/1_fake120"];
    let files = |ending: &str| names.map(|name| format!("{}/set/{name}.{ending}", made.pictures)).to_vec();
    let files: Vec<_> = [files("png"), files("small.png")].concat();
    let alone = [0, 1].map(|model| made.alone(model, &files));
    for (at, file_name) in files.iter().enumerate() {
        let answer: Value = post("/v1/score", fs::read(file_name).expect("a picture")).json().expect("JSON");
        let class = answer["evidence"]["class"].as_str().expect("a class").to_owned();
        assert_eq!(class, if at < names.len() { "lossless" } else { "small" });
        let weights = &file["rules"]["weights"][&class];
        let table = &file["rules"]["evidence"]["classes"][&class]["regions"]["1"];
        let sum: f64 = (0..2).map(|model| number(&weights[model]) * alone[model][at]).sum();
        assert!((number(&answer["logit"]) - (sum + number(&table["b"]))).abs() < 1e-4, "{answer}");
        assert!((number(&answer["logit_raw"]) - sum).abs() < 1e-4, "{answer}");
        let score = 1.0 / (1.0 + (-number(&answer["logit"])).exp());
        // The logit is written as a float of 32 bits.
        assert!((number(&answer["score"]) - score).abs() < 1e-6, "{answer}");
        assert_eq!(answer["model"]["name"], "red+green");
        for model in [0, 1] {
            let part = &answer["models"][model];
            assert_eq!((&part["digest"], &part["weight"]), (&manifests[model]["digest"], &weights[model]));
            assert_eq!(number(&part["logit_raw"]), alone[model][at], "{answer}");
        }
    }
    // The pictures that are hard for neither.
    let told = |name: &str| -> Value {
        post("/v1/score", fs::read(format!("{}/set/{name}.png", made.pictures)).expect("a picture"))
            .json()
            .expect("JSON")
    };
    assert_eq!(told("1_fake/1_fake0")["verdict"], "fake");
    assert_eq!(told("0_real/0_real30")["verdict"], "real");
    // A class without pictures.
    let jpeg: Value = post("/v1/score", golden("images/orig_rocket.jpg")).json().expect("JSON");
    assert_eq!((&jpeg["verdict"], &jpeg["logit"]), (&json!("uncertain"), &json!(0.0)), "{jpeg}");
    assert_eq!(post("/v1/explain", golden("images/coffee_rgb.png")).status(), 501);
    assert_eq!(post("/v1/score?max_false_alarms=0.2", golden("images/coffee_rgb.png")).status(), 200);

    let images = files.len() + 4;
    let metrics = get("/metrics").text().expect("text");
    // One decode for both.
    assert_eq!(series(&metrics, "lfm_stage_duration_seconds_count{stage=\"decode\"}"), images.to_string());
    for manifest in &manifests {
        let name = manifest["name"].as_str().expect("a name");
        assert_eq!(series(&metrics, &format!("lfm_model_images_total{{model=\"{name}\"}}")), images.to_string());
        let digest = manifest["digest"].as_str().expect("a digest");
        let info = |line: &&str| line.starts_with("lfm_model_info{") && line.contains(digest);
        assert_eq!(metrics.lines().filter(info).count(), 1, "{metrics}");
    }
    let starting = |name: &str| metrics.lines().filter(|line| line.starts_with(name)).count();
    assert_eq!((starting("lfm_combination_info{"), starting("lfm_judge_info{")), (1, 1));
    assert!(starting("lfm_score_reference_count") > 0, "drift is held against the combination's own pictures");

    for path in ["/readyz", "/v1/model"] {
        let about: Value = get(path).json().expect("JSON");
        let digests: Vec<_> = about["models"].as_array().expect("models").iter().map(|one| &one["digest"]).collect();
        assert_eq!(digests, [&manifests[0]["digest"], &manifests[1]["digest"]], "{about}");
    }
    let about: Value = get("/v1/model").json().expect("JSON");
    assert_eq!((&about["name"], &about["explains"]), (&json!("red+green"), &json!(false)));
    assert_eq!(about["weights"], file["rules"]["weights"]);
    let asked = client.get(format!("{}/v2/models/green", server.url)).send().expect("an answer");
    assert_eq!(asked.status(), 200, "each model is still asked by its name");
}

#[test]
fn the_order_of_the_models_is_the_files() {
    let made = Made::new();
    let out = made.below("both.json");
    made.calibrate(&out);
    let [red, green] = &made.models;
    let server = Server::start(&["--model", green, "--model", red, "--combine", &out, "--sessions", "1"]);
    let picture = format!("{}/set/1_fake/1_fake5.png", made.pictures);
    let answer =
        Client::new().post(format!("{}/v1/score", server.url)).body(fs::read(&picture).expect("a picture")).send();
    let answer: Value = answer.expect("an answer").json().expect("JSON");
    let files = [picture];
    for (part, model) in answer["models"].as_array().expect("models").iter().zip([0, 1]) {
        assert_eq!(part["name"], ["red", "green"][model]);
        assert_eq!(number(&part["logit_raw"]), made.alone(model, &files)[0]);
    }
}

#[test]
fn what_does_not_fit_is_refused_at_the_start() {
    let made = Made::new();
    let out = made.below("both.json");
    made.calibrate(&out);
    let [red, green] = &made.models;
    let folder = made.folder.path();
    let changed = |name: &str, change: &dyn Fn(&mut Value)| {
        let mut file = read(&fs::read(&out).expect("the combination"));
        change(&mut file);
        let path = made.below(name);
        fs::write(&path, file.to_string()).expect("written");
        path
    };
    let others = folder.join("others");
    fs::create_dir(&others).expect("a folder");
    let other_weights = imported(&others, "green", ["shorter=16", "bilinear", "0.5,0.5,0.5", "4,0.2,4"]);
    let third = imported(folder, "third", ["both=8x12", "bicubic", "0.5,0.5,0.5", "2,2,2"]);
    let resized = folder.join("resized");
    fs::create_dir(&resized).expect("a folder");
    let resized = imported(&resized, "green", ["shorter=20", "bilinear", "0.5,0.5,0.5", "4,0.3,4"]);
    let unknown = changed("unknown.json", &|file| {
        let weights = file["rules"]["weights"]["lossless"].clone();
        file["rules"]["weights"]["png"] = weights;
    });
    let short = changed("short.json", &|file| file["rules"]["weights"]["small"] = json!([1.0]));
    let newer = changed("newer.json", &|file| file["format_version"] = json!(2));
    let one = changed("one.json", &|file| _ = file["models"].as_array_mut().expect("models").pop());
    let wrong = Path::new(red).join("manifest.json").display().to_string();
    let nowhere = made.below("nowhere.json");
    let cases: [(&[&str], &str, &str); 10] = [
        (&[red, &other_weights], &out, "it was made with green of digest sha256:"),
        (&[red, &resized], &out, "it was made with green on pictures"),
        (&[red], &out, "no --model is called green"),
        (&[red, green, &third], &out, "the model third has no part in it"),
        (&[red, green], &unknown, "unknown variant `png`"),
        (&[red, green], &short, "weights.small has 1 numbers for 2 models"),
        (&[red, green], &newer, "format_version is 2, this program reads 1"),
        (&[red, green], &one, "models lists 1, not 2 to 8"),
        (&[red, green], &wrong, "manifest.json is no combination of models"),
        (&[red, green], &nowhere, "nowhere.json"),
    ];
    for (models, file, reason) in cases {
        let models: Vec<_> = models.iter().flat_map(|model| ["--model", model]).collect();
        let (status, _, error) = run(&[&["serve", "--log-level", "warn", "--combine", file], &models[..]].concat());
        assert_eq!(status, Some(1), "{error}");
        assert!(error.contains(reason) && error.lines().count() == 1, "{reason}: {error}");
    }
    let (status, _, error) =
        run(&[&["serve", "--combine", &out, "--route", "lossy=green"], &made.flags()[..]].concat());
    assert_eq!(status, Some(2), "{error}");
    assert!(error.contains("--route and --combine exclude each other"), "{error}");

    let doctor = run(&[&["doctor", "--sessions", "1", "--combine", &out], &made.flags()[..]].concat());
    assert_eq!(doctor.0, Some(0), "{doctor:?}");
    assert!(doctor.1.contains("red and green judge every class together"), "{doctor:?}");
}

#[test]
fn a_combination_is_not_written_from_too_few_pictures_or_twice_the_same_name() {
    let made = Made::new();
    let few = made.folder.path().join("few");
    write(&few.join("0_real/a.png"), 256, [200, 20, 90]);
    write(&few.join("1_fake/b.png"), 256, [20, 200, 90]);
    let out = made.below("both.json");
    let (status, printed, log) =
        run(&[&["calibrate", &few.display().to_string(), "--out", &out], &made.flags()[..]].concat());
    assert_eq!(status, Some(1), "{log}");
    assert!(log.contains("no class of file gets verdicts"), "{log}");
    assert_eq!(read(printed.as_bytes())["classes"]["lossless"]["undecided"]["reason"], "too_few");
    let [red, _] = &made.models;
    let (status, _, log) = run(&["calibrate", &made.pictures, "--out", &out, "--model", red, "--model", red]);
    assert_eq!(status, Some(1), "{log}");
    assert!(log.contains("two models are called red"), "{log}");
    assert!(!Path::new(&out).exists());
}
