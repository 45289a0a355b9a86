"""The program against PyTorch, ONNX Runtime, Pillow and scikit-learn, on the validation images."""

import json
import subprocess
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from sklearn import metrics

from lfm import evaluate
from lfm.checkpoint import read_checkpoint
from lfm.data import PREPROCESS, Source, load
from lfm.graph import build
from lfm.network import LFM, normalise
from lfm.weights import calibrate, canonical

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
def logits(val, sources) -> evaluate.Scored:
    """What `lfm-serve score` says, in the order of `sources`."""
    said = [json.loads(line) for line in serve("score", "--json", str(val)).splitlines()]
    by_path = {line["path"]: line["logit"] for line in said}
    scored = {}
    for source in sources:
        paths = [sorted((val / source.name / c).glob("*")) for c in ("0_real", "1_fake")]
        values = [by_path[str(path)] for path in paths[0] + paths[1]]
        scored[source.name] = np.array(values), np.repeat([0, 1], [len(p) for p in paths])
    return scored


def test_pytorch_both_graphs_and_the_program_agree(logits, sources, manifest):
    tensors, _ = read_checkpoint(MODEL / "lfm.pth")
    network = LFM(manifest["k"])
    network.load_state_dict({k: torch.as_tensor(v) for k, v in tensors.items()}, strict=False)
    network.eval()
    a, b = manifest["calibration"]["a"], manifest["calibration"]["b"]
    graph = evaluate.make_scorer((MODEL / "lfm.std.onnx").read_bytes())
    prepare = PREPROCESS[manifest["preprocessing"]]
    worst = {"PyTorch": 0.0, "ONNX Runtime": 0.0}
    for source in sources:
        pixels = np.stack([prepare(image) for images in source.images for image in images])
        with torch.inference_mode():
            parts = torch.from_numpy(pixels).split(8)
            raw = torch.cat([network(normalise(part))[0] for part in parts]).double().numpy()
        program = logits[source.name][0]
        for name, values in (("PyTorch", a * raw + b), ("ONNX Runtime", graph(pixels))):
            worst[name] = max(worst[name], float(np.abs(values - program).max()))
    print(f"largest difference of a logit from the program's: {worst}")
    assert max(worst.values()) <= 5e-4


def test_the_bundled_graph_is_the_checkpoint_calibrated(manifest):
    tensors, _ = read_checkpoint(MODEL / "lfm.pth")
    weights = calibrate(canonical(tensors), **manifest["calibration"])
    assert build(weights, standard=True) == (MODEL / "lfm.std.onnx").read_bytes()


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
