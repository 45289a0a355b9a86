//! `lfm-serve bench`: its report is complete and consistent; speed is not tested.

use serde_json::Value;

use crate::harness::{root, run};

/// The report of a successful run.
fn bench(arguments: &[&str]) -> Value {
    let (code, report, log) = run(&[&["bench", "--json"], arguments].concat());
    assert_eq!(code, Some(0), "{log}");
    serde_json::from_str(&report).unwrap_or_else(|error| panic!("{error}: {report}"))
}

/// A median between its quartiles, all above 0.
fn assert_spread(spread: &Value) {
    let [q1, median, q3] = ["q1", "median", "q3"].map(|name| spread[name].as_f64().unwrap_or(f64::NAN));
    assert!(0.0 < q1 && q1 <= median && median <= q3 && q3.is_finite(), "{spread}");
}

/// A fake Python. Committed, not written here: a file that another test's fork still has open for writing cannot be
/// executed.
const ABSENT: &str = "tests/data/pillow/absent.sh";
const OTHER: &str = "tests/data/pillow/other.sh";
const DYING: &str = "tests/data/pillow/dying.sh";

#[test]
fn the_operator_is_measured_on_every_input_and_batch_size() {
    let report = bench(&["--only", "op", "--rounds", "1"]);
    assert!(report.get("images").is_none() && report.get("sessions").is_none(), "{report}");
    let rows = report["op"].as_array().expect("rows");
    let of: Vec<_> = rows.iter().map(|row| (row["input"].as_str(), row["batch_size"].as_u64())).collect();
    let inputs = ["random", "ascending", "descending", "all_equal", "few_distinct"];
    let expected: Vec<_> =
        inputs.iter().flat_map(|&input| [1, 8, 32].map(|batch_size| (Some(input), Some(batch_size)))).collect();
    assert_eq!(of, expected);
    for row in rows {
        for name in ["topk", "operator", "portable", "read"] {
            assert_spread(&row["us"][name]);
        }
        for name in ["operator", "portable"] {
            assert_spread(&row["topk_over"][name]);
            assert_spread(&row["over_read"][name]);
        }
        // With a single round the ratios are those of the times.
        let us = |name: &str| row["us"][name]["median"].as_f64().expect("a time");
        let ratio = row["topk_over"]["operator"]["median"].as_f64().expect("a ratio");
        assert!((ratio - us("topk") / us("operator")).abs() < 1e-9 * ratio, "{row}");
    }
}

#[test]
fn sessions_are_measured_by_layout_and_batch_size() {
    let report = bench(&[
        "--only",
        "session",
        "--rounds",
        "1",
        "--batch-sizes",
        "1,2,1000000000",
        "--sessions",
        "3",
        "--intra-threads",
        "1",
    ]);
    let rows = report["sessions"]["rows"].as_array().expect("rows");
    let of: Vec<_> =
        rows.iter().map(|row| ["sessions", "intra_threads", "batch_size"].map(|key| row[key].as_u64())).collect();
    for batch_size in [1, 2] {
        assert!(of.contains(&[Some(3), Some(1), Some(batch_size)]), "{of:?}");
    }
    assert_eq!(report["sessions"]["left_out"], serde_json::json!([1_000_000_000]));
    let best = rows.iter().filter(|row| row["of_best"]["median"] == 1.0).count();
    assert_eq!(best, 1, "{rows:?}");
    rows.iter().for_each(|row| assert_spread(&row["images_per_second"]));
}

#[test]
fn both_graphs_are_measured_in_every_layout_and_ours_by_layer() {
    let report = bench(&["--only", "graph", "--layers", "--rounds", "1"]);
    let rows = report["graphs"].as_array().expect("rows");
    assert_eq!((&rows[0]["sessions"], &rows[0]["intra_threads"]), (&1.into(), &1.into()));
    for row in rows {
        ["standard", "ours"].iter().for_each(|name| assert_spread(&row[name]));
        // With a single round the ratio is that of the rates.
        let of = |name: &str| row[name]["median"].as_f64().expect("a rate");
        assert!((of("ours_over_standard") - of("ours") / of("standard")).abs() < 1e-9, "{row}");
    }

    let layers = report["layers"]["layers"].as_array().expect("layers");
    let flop = |layer: &Value| layer["flop"].as_u64().expect("a number");
    let of: Vec<_> = layers.iter().filter(|layer| flop(layer) > 0).map(|layer| (&layer["name"], flop(layer))).collect();
    // Of the first layer: outputs, the four sums of a window, their terms; of the next ones: tiles, products of a tile,
    // channels, maps; then pixels, channels, maps.
    let expected = [
        ("conv1", 2 * 127 * 127 * 64 * 4 * 9),
        ("conv2", 2 * 21 * 21 * 49 * 64 * 128),
        ("conv3", 2 * 11 * 11 * 49 * 128 * 256),
        ("conv4", 2 * 5 * 5 * 49 * 256 * 512),
        ("conv1x1", 2 * 900 * 512 * 64),
    ];
    let all = ("all", expected.map(|(_, flop)| flop).iter().sum());
    let expected: Vec<_> = expected.into_iter().chain([all]).collect();
    assert_eq!(of.iter().map(|&(name, flop)| (name.as_str().expect("a name"), flop)).collect::<Vec<_>>(), expected);
    for layer in layers.iter().filter(|layer| flop(layer) > 0) {
        for (kernel, peak) in report["layers"]["peak"].as_object().expect("kernels") {
            assert_spread(peak);
            assert_spread(&layer["ms"][kernel]);
        }
    }
}

#[test]
fn without_pillow_it_says_why() {
    let sizes = ["--only", "decode,prepare", "--rounds", "2", "--sizes", "64x48,300x200"];
    let report = bench(&[&sizes[..], &["--python", "/nowhere/python"]].concat());
    let reason = report["images"]["pillow"]["absent"].as_str().expect("a reason");
    assert!(reason.contains("/nowhere/python") && reason.contains("No such file"), "{reason}");
    let rows = report["images"]["rows"].as_array().expect("rows");
    let of: Vec<_> =
        rows.iter().map(|row| (row["task"].as_str(), row["width"].as_u64(), row["height"].as_u64())).collect();
    let expected = [("decode", 64, 48), ("prepare", 64, 48), ("decode", 300, 200), ("prepare", 300, 200)];
    assert_eq!(of, expected.map(|(task, width, height)| (Some(task), Some(width), Some(height))));
    for row in rows {
        assert_spread(&row["ms"]);
        assert!(row.get("pillow_over").is_none(), "{row}");
    }
    let report = bench(&[&sizes[..], &["--python", ABSENT]].concat());
    assert!(
        report["images"]["pillow"]["absent"].as_str().is_some_and(|reason| reason.ends_with("No module named PIL"))
    );
}

#[test]
fn pillow_is_interleaved_and_must_give_the_same_pixels() {
    let sizes = ["--only", "prepare", "--rounds", "1", "--sizes", "300x200"];
    let report = bench(&[&sizes[..], &["--python", OTHER]].concat());
    assert_eq!(report["images"]["pillow"]["version"], "9.9.9");
    let row = &report["images"]["rows"][0];
    assert_eq!((&row["pillow_ms"]["median"], &row["same_pixels"]), (&500.0.into(), &false.into()));
    let (ours, ratio) = (row["ms"]["median"].as_f64(), row["pillow_over"]["median"].as_f64());
    assert!((ours.expect("a time") * ratio.expect("a ratio") - 500.0).abs() < 1e-6, "{row}");

    let (code, _, log) = run(&[&["bench"], &sizes[..], &["--python", DYING]].concat());
    assert_eq!((code, log.trim()), (Some(1), "lfm-serve: Pillow's process has ended"));
}

#[test]
fn pillow_itself_makes_the_same_pixels() {
    let python = root().join(".venv-pillow/bin/python");
    if !python.is_file() {
        eprintln!("SKIPPED pillow_itself_makes_the_same_pixels: no .venv-pillow, which `make bench` installs");
        return;
    }
    let report = bench(&["--only", "decode,prepare,regions", "--rounds", "1", "--sizes", "64x48,256x256,1000x700"]);
    assert_eq!(report["images"]["pillow"]["version"], "11.3.0");
    for row in report["images"]["rows"].as_array().expect("rows") {
        assert_eq!(row["same_pixels"], true, "{row}");
        ["ms", "pillow_ms", "pillow_over"].iter().for_each(|name| assert_spread(&row[name]));
    }
}

#[test]
fn help_is_complete_and_wrong_settings_are_refused() {
    let (code, help, _) = run(&["bench", "--help"]);
    assert_eq!(code, Some(0));
    for word in ["quartiles", "--only op", "prepare", "LFM_ROUNDS", ".venv-pillow", "4000x3000"] {
        assert!(help.contains(word), "{word} is missing");
    }
    for wrong in
        [["--rounds", "0"], ["--only", "resise"], ["--sizes", "0x5"], ["--sizes", "12MP"], ["--batch-sizes", "0"]]
    {
        let (code, _, log) = run(&[&["bench"], &wrong[..]].concat());
        assert_eq!(code, Some(2), "{wrong:?}: {log}");
    }
}

#[test]
fn counting_is_measured() {
    let report = bench(&["--only", "metrics", "--rounds", "1"]);
    assert_spread(&report["metrics"]["ns"]);
}

/// For every format and variant the header's estimate bounds the memory of a decode.
#[test]
fn decoding_stays_within_the_headers_memory_estimate() {
    // Stacks, and memory retained by the allocator.
    const SLACK_MB: f64 = 12.0;
    let report = bench(&["--only", "cost", "--rounds", "1", "--claimed-pixels", "9MP"]);
    let rows = report["cost"]["rows"].as_array().expect("rows");
    let mut largest = 0.0_f64;
    for row in rows {
        assert_spread(&row["ms"]);
        let [peak, resident] = ["peak_mb", "resident_mb"].map(|name| row[name].as_f64().expect("a number"));
        assert!(resident <= peak + SLACK_MB, "{row}");
        largest = largest.max(resident);
    }
    assert!(rows.len() > 40 && largest > 20.0, "{report}");
}
