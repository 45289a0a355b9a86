"""The graphs: equal bytes for equal weights, exact over batches, and the published model."""

import hashlib
import json
from functools import partial

import numpy as np
import onnx
import onnxruntime
import pytest
from conftest import GOLDEN_TOP_K, assert_golden_top_k, random_weights

from lfm import graph
from lfm import weights as weights_module
from lfm.checkpoint import read_checkpoint
from lfm.data import decode, resize


def session(model: bytes, threads: int = 1) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def bits(values: np.ndarray) -> list[int]:
    return values.view(np.int32).ravel().tolist()


def test_builds_are_deterministic(weights):
    build_standard, build_ours = (partial(graph.build, standard=s) for s in (True, False))
    for build in (build_standard, build_ours, graph.build_for_cpu):
        one, other = (build(weights) for _ in range(2))
        assert one == other != build(random_weights(seed=1))


@pytest.mark.parametrize("k", [1, 16, 900])
def test_inputs_and_outputs(k):
    weights = random_weights(k)
    run = session(graph.build(weights, standard=True))
    assert [(i.name, i.type, i.shape) for i in run.get_inputs()] == [
        ("pixels", "tensor(uint8)", ["n", 256, 256, 3])
    ]
    assert [(o.name, o.type, o.shape) for o in run.get_outputs()] == [
        ("logit", "tensor(float)", ["n"]),
        ("topk_values", "tensor(float)", ["n", 64, k]),
        ("topk_indices", "tensor(int64)", ["n", 64, k]),
    ]
    noise = np.random.default_rng(0).integers(0, 256, (2, 256, 256, 3), np.uint8)
    logit, values, indices = run.run(None, {"pixels": noise})
    assert (np.diff(values, axis=-1) <= 0).all()
    assert ((0 <= indices) & (indices < 900)).all()
    linear = np.float64(weights["fc1.weight"]).reshape(64, k)
    expected = (np.float64(values) * linear).sum((1, 2)) + weights["fc1.bias"]
    np.testing.assert_allclose(logit, expected, rtol=1e-4, atol=1e-3)


def test_the_two_graphs_differ_in_the_pooling_alone(weights):
    one, other = (
        onnx.load_model_from_string(graph.build(weights, standard=s)) for s in (False, True)
    )
    pooling = [node for node in one.graph.node if node.domain == "lfm"]
    assert [(n.op_type, n.name, list(n.output)) for n in pooling] == [
        ("TopKPooling", "topk", ["topk_values", "topk_indices"])
    ]
    assert {a.name: a.i for a in pooling[0].attribute} == {"k": 16}
    assert [(o.domain, o.version) for o in one.opset_import] == [("", 18), ("lfm", 1)]
    shared = {n.name: n for n in other.graph.node if n.name not in ("topk", "rows")}
    assert shared == {n.name: n for n in one.graph.node if n.name != "topk"}
    assert one.metadata_props == other.metadata_props
    props = {p.key: p.value for p in one.metadata_props}
    assert props["lfm.digest"] == weights_module.digest(weights)


@pytest.mark.parametrize("threads", [1, 2])
def test_a_logit_does_not_depend_on_batch_or_position(weights, images, threads):
    run = session(graph.build(weights, standard=True), threads)
    names = ["logit", "topk_values"]
    alone = [run.run(names, {"pixels": image[None]}) for image in images]
    logits, values = (np.concatenate(part) for part in zip(*alone, strict=True))
    rng = np.random.default_rng(2)
    for size in (2, 3, 4, 5, 7, 8, 11, 16, 32):
        chosen = rng.permutation(len(images))[:size]
        logit, value = run.run(names, {"pixels": images[chosen]})
        assert bits(logit) == bits(logits[chosen]), size
        assert bits(value) == bits(values[chosen]), size


@pytest.fixture(scope="module")
def published(shared) -> onnxruntime.InferenceSession:
    state, _ = read_checkpoint(shared / "reference/weights/lfm_bmvc2025.pth")
    return session(graph.build(weights_module.canonical(state), standard=True))


def test_golden_logits(shared, published):
    """All 38 images within 5e-4 of the float64 run of the official code, pixels identical."""
    golden = shared / "reference/golden"
    entries = json.loads((golden / "golden.json").read_text())["images"]
    assert len(entries) == 38
    for entry in entries:
        pixels = resize(decode(golden / "images" / entry["file"]))
        assert hashlib.sha256(pixels.tobytes()).hexdigest() == entry["rgb256_sha256"]
        logit = published.run(["logit"], {"pixels": pixels[None]})[0][0]
        assert abs(logit - entry["resize"]["logit_fp64"]) <= 5e-4, entry["file"]


@pytest.mark.parametrize("name", GOLDEN_TOP_K)
def test_golden_top_k(shared, published, name):
    assert_golden_top_k(shared, published, name)
