"""The program against PyTorch, ONNX Runtime, Pillow and scikit-learn, on the validation images."""

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
from lfm.data import PREPROCESS, Source, load
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


@pytest.fixture(scope="session")
def logits(val, sources, answers) -> evaluate.Scored:
    """The calibrated logits in the order of `sources`."""
    scored = {}
    for source in sources:
        paths = [sorted((val / source.name / c).glob("*")) for c in ("0_real", "1_fake")]
        values = [answers[str(path)]["logit"] for path in paths[0] + paths[1]]
        scored[source.name] = np.array(values), np.repeat([0, 1], [len(p) for p in paths])
    return scored


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


def test_figures_equal_scikit_learns_on_the_same_scores(val, logits, manifest):
    report = json.loads(serve("evaluate", "--json", str(val)))
    cut = np.log(manifest["threshold"] / (1 - manifest["threshold"]))
    assert report["sources"].keys() == logits.keys()
    means = []
    for name, (values, labels) in logits.items():
        right = values > cut
        expected = {
            "n": len(labels),
            "accuracy": metrics.accuracy_score(labels, right),
            "average_precision": metrics.average_precision_score(labels, values),
            "real_accuracy": metrics.recall_score(labels, right, pos_label=0),
            "fake_accuracy": metrics.recall_score(labels, right, pos_label=1),
        }
        assert report["sources"][name] == pytest.approx(expected, abs=1e-6)
        means.append(list(expected.values())[1:])
    expected = [len(values) for values, _ in logits.values()], np.mean(means, axis=0)
    mean = report["mean"]
    assert mean.pop("n") == sum(expected[0])
    assert list(mean.values()) == pytest.approx(expected[1].tolist(), abs=1e-6)


def test_a_recompression_is_pillows(val, sources, manifest):
    """To the last bit of the pixels, or single verdicts would differ."""
    report = json.loads(serve("evaluate", "--json", "--jpeg-quality", "75", str(val)))
    scorer = evaluate.make_scorer((MODEL / "lfm.std.onnx").read_bytes())
    expected = evaluate.report(evaluate.score(sources, scorer, manifest["preprocessing"], 75))
    found = report["jpeg"]["75"]["sources"]
    for name, figures in expected["sources"].items():
        assert found[name] == pytest.approx(figures, abs=1e-4), name


def test_onnxruntime_is_the_one_that_the_service_loads():
    assert onnxruntime.__version__ in (ROOT / "deploy/onnxruntime.lock").read_text()
