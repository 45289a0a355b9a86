"""The program against PyTorch, ONNX Runtime, Pillow and scikit-learn, on the validation images."""

import hashlib
import json
import subprocess
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from sklearn import metrics

from lfm import evaluate, judge
from lfm.checkpoint import read_checkpoint
from lfm.data import PREPROCESS, Source, crop, decode, load, recompress
from lfm.graph import build
from lfm.network import LFM, normalise
from lfm.weights import canonical

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = ROOT / "target/release/lfm-serve"
MODEL = ROOT / "models"


def serve(*arguments: str) -> str:
    done = subprocess.run([PROGRAM, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="session")
def val(shared) -> Path:
    return shared / "data/val"


@pytest.fixture(scope="session")
def sources(val) -> list[Source]:
    return load(val)


@pytest.fixture(scope="session")
def manifest() -> dict:
    return json.loads((MODEL / "manifest.json").read_text())


@pytest.fixture(scope="session")
def answers(val) -> dict[str, dict]:
    """What `lfm-serve score` says of the centre of every image, by path."""
    said = serve("score", "--json", "--regions", "1", str(val)).splitlines()
    return {line["path"]: line for line in map(json.loads, said)}


def test_pytorch_both_graphs_and_the_program_agree(val, sources, answers, manifest):
    tensors, _ = read_checkpoint(MODEL / "lfm.pth")
    network = LFM(manifest["k"])
    network.load_state_dict({k: torch.as_tensor(v) for k, v in tensors.items()}, strict=False)
    network.eval()
    graph = evaluate.make_scorer((MODEL / "lfm.std.onnx").read_bytes())
    prepare = PREPROCESS[manifest["preprocessing"]]
    worst = {"PyTorch": 0.0, "ONNX Runtime": 0.0}
    for source in sources:
        paths = [p for c in ("0_real", "1_fake") for p in sorted((val / source.name / c).glob("*"))]
        program = np.array([answers[str(path)]["logit_raw"] for path in paths])
        pixels = np.stack([prepare(image) for images in source.images for image in images])
        with torch.inference_mode():
            parts = torch.from_numpy(pixels).split(8)
            raw = torch.cat([network(normalise(part))[0] for part in parts]).double().numpy()
        for name, values in (("PyTorch", raw), ("ONNX Runtime", graph(pixels))):
            worst[name] = max(worst[name], float(np.abs(values - program).max()))
    print(f"largest difference of a logit from the program's: {worst}")
    assert max(worst.values()) <= 5e-4


def test_the_program_judges_as_the_reference(answers, manifest):
    """From the program's own raw logit: class of file, calibration, evidence, verdict."""
    seen = set()
    for path, said in answers.items():
        file_class = judge.class_of(Path(path))
        expected = judge.judge(manifest, file_class, [said["logit_raw"]])
        assert said["evidence"]["class"] == file_class, path
        for found, wanted in (
            (said["logit"], expected.logit),
            (said["score"], expected.score),
            (said["evidence"]["real_at_or_above"], expected.real_at_or_above),
            (said["evidence"]["fake_at_or_below"], expected.fake_at_or_below),
        ):
            assert found == pytest.approx(wanted, abs=1e-4), path
        seen.add(file_class)
        if "no_signal" not in said["warnings"]:
            assert said["verdict"] == expected.verdict, path
    assert len(seen) >= 2


def test_the_bundled_graph_is_the_checkpoint_as_it_is(manifest):
    tensors, _ = read_checkpoint(MODEL / "lfm.pth")
    assert manifest["format_version"] == 2 and manifest["calibration"] == {"a": 1.0, "b": 0.0}
    graph = build(canonical(tensors), standard=True)
    assert graph == (MODEL / "lfm.std.onnx").read_bytes()


def figures(said: list[dict]) -> dict:
    """What `evaluate` says of pictures, by scikit-learn, from their lines."""
    label, verdict = (np.array([line[key] for line in said]) for key in ("label", "verdict"))
    decided = verdict != "uncertain"
    both = label[decided], verdict[decided]
    real, fake = ({"pos_label": side, "zero_division": np.nan} for side in ("real", "fake"))
    raw = [line["logit_raw"] for line in said]
    expected = {
        "coverage": decided.mean(),
        "accuracy": metrics.accuracy_score(*both) if decided.any() else np.nan,
        "average_precision": metrics.average_precision_score(label == "fake", raw)
        if len(set(label)) == 2
        else np.nan,
        "real_accuracy": metrics.recall_score(*both, **real),
        "fake_accuracy": metrics.recall_score(*both, **fake),
        "real_verdicts_right": metrics.precision_score(*both, **real),
        "fake_verdicts_right": metrics.precision_score(*both, **fake),
        "false_alarms": (verdict[label == "real"] == "fake").sum() / (label == "real").sum(),
        "misses": (verdict[label == "fake"] == "real").sum() / (label == "fake").sum(),
        "regions": np.mean([len(line["judged"]["regions"]) for line in said]),
    }
    counts = {
        "n": len(said),
        "n_real": int((label == "real").sum()),
        "n_fake": int((label == "fake").sum()),
        "real_verdicts": int((verdict == "real").sum()),
        "fake_verdicts": int((verdict == "fake").sum()),
    }
    return {**counts, **{k: None if np.isnan(v) else float(v) for k, v in expected.items()}}


@pytest.mark.filterwarnings("ignore:invalid value")  # a class of file with one label
def test_figures_equal_scikit_learns_on_the_same_scores(val, manifest, tmp_path):
    """Every line of `--scores` is what `score` says of the file, and the figures are the lines'."""
    lines = tmp_path / "scores.jsonl"
    report = json.loads(serve("evaluate", "--json", "--scores", str(lines), str(val)))
    said = [json.loads(line) for line in lines.read_text().splitlines()]
    scored = {
        line["path"]: line
        for line in map(json.loads, serve("score", "--json", str(val)).splitlines())
    }
    assert len(said) == len(scored) == report["all"]["n"]
    folders = {"real": "0_real", "fake": "1_fake"}
    sources, classes = {}, {}
    for line in said:
        assert {**line, **scored[line["path"]]} == line
        assert Path(line["path"]).parent == val / line["source"] / folders[line["label"]]
        sources.setdefault(line["source"], []).append(line)
        classes.setdefault(line["evidence"]["class"], []).append(line)
    assert (
        len(classes) >= 2
        and report["judged_by"]["operating_point"] == manifest["evidence"]["operating_point"]
    )
    intervals = [report[row].pop("interval_95") for row in ("all", "mean")]
    for found, by_name in ((report["sources"], sources), (report["classes"], classes)):
        assert found.keys() == by_name.keys()
        for name, own in by_name.items():
            assert found[name] == pytest.approx(figures(own), abs=1e-6), name
    assert report["all"] == pytest.approx(figures(said), abs=1e-6)
    for name in ("coverage", "average_precision", "accuracy", "false_alarms"):
        mean = np.mean([source[name] for source in report["sources"].values()])
        assert report["mean"][name] == pytest.approx(mean, abs=1e-6)
    for row, interval in zip(("all", "mean"), intervals, strict=True):
        for name, (low, high) in interval.items():
            assert low <= report[row][name] <= high, name


def test_the_interval_is_the_references(val, sources, answers):
    """Of the mean average precision, whose draws `lfm.evaluate` makes too, by other random numbers."""
    report = json.loads(serve("evaluate", "--json", "--regions", "1", str(val)))
    scored = {}
    for source in sources:
        paths = [sorted((val / source.name / c).glob("*")) for c in ("0_real", "1_fake")]
        values = [answers[str(path)]["logit_raw"] for path in paths[0] + paths[1]]
        scored[source.name] = np.array(values), np.repeat([0, 1], [len(p) for p in paths])
    found = report["mean"]["interval_95"]["average_precision"]
    assert found == pytest.approx(evaluate.interval(scored), abs=0.004)


def test_a_recompression_is_pillows(val, tmp_path):
    """To the last bit of the pixels, or single verdicts would differ."""
    lines = tmp_path / "scores.jsonl"
    serve("evaluate", "--jpeg-quality", "75", "--regions", "1", "--scores", str(lines), str(val))
    said = [json.loads(line) for line in lines.read_text().splitlines()]
    said = [line for line in said if line["jpeg_quality"] == 75]
    assert len(said) == len([path for path in val.glob("*/*/*") if path.is_file()])
    scorer = evaluate.make_scorer((MODEL / "lfm.std.onnx").read_bytes())
    pixels = [crop(recompress(decode(Path(line["path"])), "JPEG", 75, "4:2:0")) for line in said]
    for line, own in zip(said, pixels, strict=True):
        assert line["image"]["rgb256_sha256"] == hashlib.sha256(own.tobytes()).hexdigest()
    apart = np.abs(scorer(np.stack(pixels)) - [line["logit_raw"] for line in said]).max()
    print(f"largest difference of a logit after JPEG 75: {apart}")
    assert apart <= 1e-4


def test_onnxruntime_is_the_one_that_the_service_loads():
    assert onnxruntime.__version__ in (ROOT / "deploy/onnxruntime.lock").read_text()
