//! `score --from`: the rows of `score` in part files, and runs that go on where one was killed.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::Stdio,
};

use parquet::{
    file::reader::{FileReader, SerializedFileReader},
    record::{Field, ListAccessor},
};
use serde_json::Value;

use crate::harness::{golden, picture, program, run};

struct Place {
    folder: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        let place = Self { folder: tempfile::tempdir().expect("a folder") };
        fs::create_dir(place.path("in")).expect("a folder");
        place
    }

    /// With so many pictures, all different files.
    fn with(pictures: usize) -> Self {
        let place = Self::new();
        for number in 0..pictures {
            // What follows a PNG's end is ignored.
            place.put(&format!("{number:03}.png"), &[picture(), number.to_le_bytes().to_vec()].concat());
        }
        place
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).to_string_lossy().into_owned()
    }

    fn put(&self, name: &str, bytes: &[u8]) {
        fs::write(self.folder.path().join("in").join(name), bytes).expect("written");
    }

    /// Scores the folder `in` into `out`, in part files of few rows.
    fn score(&self, out: &str, more: &[&str]) -> (Option<i32>, Value, String) {
        self.score_from("in", out, more)
    }

    fn score_from(&self, from: &str, out: &str, more: &[&str]) -> (Option<i32>, Value, String) {
        let (from, out) = (self.path(from), self.path(out));
        let arguments = ["score", "--from", &from, "--out", &out, "--part-rows", "7"];
        let (code, said, log) = run(&[&arguments, more].concat());
        (code, serde_json::from_str(&said).unwrap_or_default(), log)
    }

    fn files(&self, out: &str, word: &str) -> Vec<PathBuf> {
        let files = fs::read_dir(self.folder.path().join(out)).expect("the result");
        let mut files: Vec<_> = files.map(|file| file.expect("an entry").path()).collect();
        files.retain(|file| file.file_name().is_some_and(|name| name.to_string_lossy().starts_with(word)));
        files.sort();
        files
    }

    /// The lines of a result in JSON, in the order of its files.
    fn lines(&self, out: &str, word: &str) -> Vec<Value> {
        let files = self.files(out, word).into_iter().map(|file| fs::read_to_string(file).expect("text"));
        let lines = files.flat_map(|text| text.lines().map(str::to_owned).collect::<Vec<_>>());
        lines.map(|line| serde_json::from_str(&line).expect("JSON")).collect()
    }

    /// How often each path of a result is there.
    fn paths(&self, out: &str) -> BTreeMap<String, usize> {
        let mut paths = BTreeMap::new();
        for line in self.lines(out, "part") {
            *paths.entry(line["path"].as_str().expect("a path").to_owned()).or_default() += 1;
        }
        paths
    }

    /// That every picture has one row.
    fn assert_complete(&self, out: &str, pictures: usize) {
        let paths = self.paths(out);
        assert_eq!(paths.len(), pictures);
        assert!(paths.values().all(|&times| times == 1), "{paths:?}");
    }
}

fn text(field: &Field) -> Option<&str> {
    match field {
        Field::Str(text) => Some(text),
        Field::Null => None,
        other => panic!("{other:?} is no text"),
    }
}

fn columns(file: &Path) -> Vec<BTreeMap<String, Field>> {
    let reader = SerializedFileReader::new(File::open(file).expect("a file")).expect("Parquet");
    let rows = reader.get_row_iter(None).expect("rows");
    rows.map(|row| row.expect("a row").into_columns().into_iter().collect()).collect()
}

#[test]
fn an_archives_rows_are_those_of_score() {
    let place = Place::new();
    place.put("rocket.jpg", &golden("images/orig_rocket.jpg"));
    place.put("coffee.png", &picture());
    place.put("cut.jpg", &golden("images/orig_rocket.jpg")[..4000]);
    place.put("notes.txt", b"no picture");
    place.put(".hidden.png", &picture());
    let (_, said, _) = run(&["score", "--all-errors", &place.path("in")]);
    let mut said: Vec<Value> = said.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    said.sort_by_key(|line| line["path"].to_string());

    let (code, figures, log) = place.score("out.jsonl", &[]);
    assert_eq!(code, Some(2), "{log}");
    assert_eq!((&figures["images"], &figures["scored"]), (&4.into(), &2.into()));
    assert_eq!((&figures["failed"], &figures["no_pictures"]), (&1.into(), &1.into()), "{figures}");
    assert_eq!(figures["errors"]["undecodable_image"], 1);
    let lines = place.lines("out.jsonl", "part");
    let stripped = lines.iter().map(|line| {
        let mut line = line.clone();
        let fields = line.as_object_mut().expect("an object");
        assert!(fields.remove("etag").is_some_and(|etag| etag.is_null()));
        for digest in ["model", "rules"] {
            assert!(fields.remove(digest).is_some_and(|digest| digest.to_string().contains("sha256:")));
        }
        line
    });
    assert_eq!(stripped.collect::<Vec<_>>(), said);

    assert_eq!(place.score("out.parquet", &["--allow-errors"]).0, Some(0));
    let [file] = &place.files("out.parquet", "part")[..] else { panic!("one part") };
    let rows = columns(file);
    assert_eq!(rows.len(), 4);
    for (row, line) in rows.iter().zip(&lines) {
        for (column, at) in [
            ("path", "/path"),
            ("error_code", "/error/code"),
            ("error_detail", "/error/detail"),
            ("verdict", "/verdict"),
            ("class", "/evidence/class"),
            ("sha256", "/image/sha256"),
            ("rgb256_sha256", "/image/rgb256_sha256"),
            ("model", "/model"),
        ] {
            assert_eq!(text(&row[column]), line.pointer(at).and_then(Value::as_str), "{column}");
        }
        let json = |column: &str| text(&row[column]).map(|text| serde_json::from_str::<Value>(text).expect("JSON"));
        assert_eq!(json("declared").as_ref(), line.get("declared").filter(|value| !value.is_null()));
        let boxes = |regions: Option<&Value>| {
            let regions = regions.and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
            regions.iter().map(|region| region["box"].clone()).collect::<Vec<_>>()
        };
        assert_eq!(boxes(json("regions").as_ref()), boxes(line.pointer("/judged/regions")));
        let number = |field: &Field| match *field {
            Field::Float(number) => Some(f64::from(number)),
            Field::Double(number) => Some(number),
            Field::UInt(number) => Some(f64::from(number)),
            Field::Long(number) => Some(number as f64),
            _ => None,
        };
        for (column, at) in [
            ("score", "/score"),
            ("logit_raw", "/logit_raw"),
            ("width", "/image/width"),
            ("bytes", "/image/bytes"),
            ("n_fake", "/evidence/n_fake"),
        ] {
            let (found, expected) = (number(&row[column]), line.pointer(at).and_then(Value::as_f64));
            assert!(
                found.zip(expected).map_or(found == expected, |(a, b)| (a - b).abs() <= 1e-6 * b.abs()),
                "{column}: {found:?} is not {expected:?}"
            );
        }
        let Field::ListInternal(warnings) = &row["warnings"] else { panic!("a list") };
        let warnings: Vec<_> =
            (0..warnings.len()).map(|at| warnings.get_string(at).expect("a text").as_str()).collect();
        let expected = line["warnings"].as_array().map_or(&[][..], Vec::as_slice);
        assert_eq!(warnings, expected.iter().filter_map(Value::as_str).collect::<Vec<_>>());
    }
}

#[test]
fn running_it_again_adds_what_is_new_and_nothing_twice() {
    let place = Place::with(20);
    for out in ["out.jsonl", "out.parquet"] {
        assert_eq!(place.score(out, &[]).0, Some(0));
        assert_eq!(place.files(out, "part").len(), 3);
        let (code, figures, _) = place.score(out, &[]);
        assert_eq!((code, &figures["images"]), (Some(0), &20.into()));
        assert_eq!(place.files(out, "part").len(), 3);
        place.put("new.png", &picture());
        assert_eq!(place.score(out, &[]).1["images"], 21);
        let last = place.files(out, "part").pop().expect("a part");
        assert!(last.to_string_lossy().contains("part-00000-of-00001-000003"), "{last:?}");
        fs::remove_file(place.folder.path().join("in/new.png")).expect("removed");
    }
    place.assert_complete("out.jsonl", 21);
    let rows: usize = place.files("out.parquet", "part").iter().map(|file| columns(file).len()).sum();
    assert_eq!(rows, 21);

    let (code, _, log) = place.score("out.jsonl", &["--threshold", "0.3"]);
    assert!(code == Some(1) && log.contains("rows of another rules"), "{log}");
    let (code, _, log) = place.score("out", &[]);
    assert!(code == Some(1) && log.contains("ends in .parquet or .jsonl"), "{log}");
    let (code, _, log) = place.score("in/out.jsonl", &[]);
    assert!(code == Some(1) && log.contains("--out is below --from"), "{log}");
    for wrong in ["0s", "2days", "x"] {
        assert_eq!(place.score("out.jsonl", &["--part-time", wrong]).0, Some(2), "{wrong}");
    }
}

#[test]
fn a_run_that_is_killed_goes_on_where_it_was() {
    const PICTURES: usize = 150;
    let place = Place::with(PICTURES);
    let (from, out) = (place.path("in"), place.path("out.jsonl"));
    for killed in 1..=5 {
        let mut run = program()
            .args(["score", "--from", &from, "--out", &out, "--part-rows", "7"])
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("it starts");
        // One part file is written, and the next begun.
        let line = BufReader::new(run.stderr.take().expect("a pipe")).lines().next();
        assert!(line.is_some_and(|line| line.is_ok_and(|line| line.contains("part-"))));
        run.kill().expect("killed");
        run.wait().expect("it ends");
        let rows = place.paths("out.jsonl").len();
        assert!((7 * killed..PICTURES).contains(&rows), "{rows} rows after {killed} runs");
    }
    let (code, figures, log) = place.score("out.jsonl", &[]);
    assert_eq!((code, &figures["images"]), (Some(0), &PICTURES.into()), "{log}");
    place.assert_complete("out.jsonl", PICTURES);
}

#[test]
fn one_that_is_asked_to_stop_writes_what_it_has() {
    let place = Place::with(150);
    let (from, out) = (place.path("in"), place.path("out.jsonl"));
    let mut run = program();
    run.args(["score", "--from", &from, "--out", &out, "--part-rows", "20"]);
    let mut run = run.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("it starts");
    let mut log = BufReader::new(run.stderr.take().expect("a pipe")).lines();
    assert!(log.next().is_some_and(|line| line.is_ok_and(|line| line.contains("part-"))));
    let id = run.id().to_string();
    assert!(std::process::Command::new("kill").arg(&id).status().expect("kill runs").success());
    assert_eq!(run.wait().expect("it ends").code(), Some(1));
    let log: Vec<_> = log.map_while(Result::ok).collect();
    assert!(log.last().is_some_and(|line| line.contains("stopped by SIGTERM; run it again")), "{log:?}");
    assert_eq!(place.score("out.jsonl", &[]).1["images"], 150);
    place.assert_complete("out.jsonl", 150);
}

#[test]
fn two_runs_of_one_shard_add_nothing_twice() {
    let place = Place::with(60);
    let (from, out) = (place.path("in"), place.path("out.jsonl"));
    let start = || {
        let mut run = program();
        run.args(["score", "--from", &from, "--out", &out, "--part-rows", "7"]);
        run.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("it starts")
    };
    for run in [start(), start()] {
        let ended = run.wait_with_output().expect("it ends");
        let log = String::from_utf8_lossy(&ended.stderr);
        assert!(ended.status.success() || log.contains("another run writes the same shard"), "{log}");
    }
    assert_eq!(place.score("out.jsonl", &[]).0, Some(0));
    place.assert_complete("out.jsonl", 60);
}

#[test]
fn shards_have_all_pictures_between_them() {
    let place = Place::with(30);
    for shard in ["0/3", "2/3"] {
        let (code, _, log) = place.score("out.jsonl", &["--shard", shard]);
        assert_eq!(code, Some(0), "{log}");
    }
    let (from, out) = (place.path("in"), place.path("out.jsonl"));
    let mut job = program();
    let job = job.args(["score", "--from", &from, "--out", &out]).env("JOB_COMPLETION_INDEX", "1");
    let refused = job.output().expect("it runs");
    assert!(String::from_utf8_lossy(&refused.stderr).contains("--shards must be the job's completions"));
    assert!(job.env("LFM_SHARDS", "3").output().expect("it runs").status.success());
    place.assert_complete("out.jsonl", 30);
    let shards: Vec<_> =
        (0..3).map(|shard| place.files("out.jsonl", &format!("part-0000{shard}-of-00003")).len()).collect();
    assert!(shards.iter().all(|&parts| parts > 0), "{shards:?}");

    let (code, _, log) = place.score("out.jsonl", &["--shard", "0/2"]);
    assert!(code == Some(1) && log.contains("files of 3 shards"), "{log}");
    for wrong in ["3/3", "x", "1"] {
        assert_eq!(place.score("out.jsonl", &["--shard", wrong]).0, Some(2), "{wrong}");
    }
}

#[test]
fn what_cannot_be_read_is_tried_again_by_the_next_run() {
    let place = Place::with(3);
    let line = |name: &str| place.path(&format!("in/{name}"));
    let list = [line("000.png"), line("missing.png"), line("000.png"), String::new(), "http://x/y.png".into()];
    fs::write(place.path("list"), list.join("\r\n")).expect("written");
    let (code, figures, log) = place.score_from("list", "out.jsonl", &["--allow-errors"]);
    assert_eq!((code, &figures["images"]), (Some(2), &1.into()), "{log}");
    assert!(log.contains("2 images could not be read: run it again"), "{log}");
    let failed = place.lines("out.jsonl", "failed");
    let codes: Vec<_> = failed.iter().map(|line| line["error"]["code"].as_str().expect("a code")).collect();
    assert_eq!(codes, ["unreadable", "unreadable"]);

    place.put("missing.png", &picture());
    fs::write(place.path("list"), list[..4].join("\n")).expect("written");
    let (code, figures, log) = place.score_from("list", "out.jsonl", &[]);
    assert_eq!((code, &figures["scored"]), (Some(0), &2.into()), "{log}");
    assert!(place.files("out.jsonl", "failed").is_empty());
    place.assert_complete("out.jsonl", 2);
}
