"""The operators as a library for any ONNX Runtime, loaded into Python's.

LFM_TEST_PROVIDER names another execution provider than the CPU (`make gpu-check`).
"""

import os
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from conftest import GOLDEN_TOP_K, assert_golden_top_k
from onnx import TensorProto, helper, numpy_helper

from lfm import graph
from lfm import weights as weights_module
from lfm.checkpoint import read_checkpoint

LIBRARY = Path(__file__).resolve().parents[2] / "target/release/liblfm_ops.so"
PROVIDER = os.environ.get("LFM_TEST_PROVIDER", "CPUExecutionProvider")
K = 16


def session(model: bytes, threads: int = 1) -> onnxruntime.InferenceSession:
    if not LIBRARY.is_file():
        pytest.skip(f"{LIBRARY} is absent: make ops builds it")
    options = onnxruntime.SessionOptions()
    options.register_custom_ops_library(str(LIBRARY))
    options.intra_op_num_threads = threads
    if PROVIDER != "CPUExecutionProvider":
        options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    return onnxruntime.InferenceSession(model, options, providers=[PROVIDER])


def pooling(k: int = K, *, standard: bool = False) -> onnxruntime.InferenceSession:
    """Our operator on maps, or ONNX's on rows."""
    outputs, constants, sides = ["values", "indices"], [], ["h", "w"]
    if standard:
        node = helper.make_node("TopK", ["x", "k"], outputs)
        constants, sides = [numpy_helper.from_array(np.array([k]), "k")], ["hw"]
    else:
        node = helper.make_node("TopKPooling", ["x"], outputs, domain="lfm", k=k)
    tensor = helper.make_tensor_value_info
    body = helper.make_graph(
        [node],
        "pooling",
        [tensor("x", TensorProto.FLOAT, ["n", "c", *sides])],
        [
            tensor("values", TensorProto.FLOAT, ["n", "c", k]),
            tensor("indices", TensorProto.INT64, ["n", "c", k]),
        ],
        constants,
    )
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("lfm", 1)]
    return session(helper.make_model(body, opset_imports=opsets, ir_version=8).SerializeToString())


def by_stable_sort(rows: np.ndarray, k: int) -> np.ndarray:
    """Indices, descending; NaN first, ties and both zeros by place."""
    return np.lexsort((-rows, ~np.isnan(rows)), axis=-1)[..., :k]


def maps(kind: str) -> np.ndarray:
    rng = np.random.default_rng(3)
    shape = (2, 64, 30, 30)
    match kind:
        case "random":
            return rng.normal(size=shape).astype(np.float32)
        case "ties":
            return rng.integers(0, 5, shape).astype(np.float32)
        case "zeros of both signs":
            return rng.choice(np.float32([0.0, -0.0, -1.0]), shape)
        case "any bits":
            return rng.integers(0, 1 << 32, shape, np.uint32).view(np.float32)
    raise ValueError(kind)


@pytest.mark.filterwarnings("ignore:invalid value")
@pytest.mark.parametrize("kind", ["random", "ties", "zeros of both signs", "any bits"])
def test_it_is_a_stable_sort_to_the_last_bit(kind):
    x = maps(kind)
    values, indices = pooling().run(None, {"x": x})
    rows = x.reshape(2, 64, 900)
    expected = by_stable_sort(rows, K)
    assert np.array_equal(indices, expected)
    taken = np.take_along_axis(rows, expected, -1)
    assert np.array_equal(values.view(np.int32), taken.view(np.int32))


@pytest.mark.parametrize("kind", ["random", "ties", "zeros of both signs"])
def test_the_standard_topk_has_the_same_order(kind):
    """Without NaN, which ONNX leaves open; ties by place are ONNX's own rule, kept by whom is the question."""
    rows = maps(kind).reshape(2, 64, 900)
    values, indices = pooling(standard=True).run(None, {"x": rows})
    expected = by_stable_sort(rows, K)
    assert np.array_equal(values, np.take_along_axis(rows, expected, -1))
    assert np.array_equal(indices, expected)


def test_sessions_come_and_go():
    x = maps("random")
    first, second = pooling(), pooling(3)
    del first
    assert second.run(None, {"x": x})[0].shape == (2, 64, 3)
    assert pooling().run(None, {"x": x[:0]})[1].shape == (0, 64, K)


def test_errors_are_pythons():
    with pytest.raises(Exception, match="k is 0, must be at least 1"):
        pooling(0)
    with pytest.raises(Exception, match="k is 16, must be from 1 to the 15 values of a row"):
        pooling().run(None, {"x": np.zeros((1, 64, 3, 5), np.float32)})


def test_both_graphs_give_the_same(weights, images):
    """What TensorRT runs is what the operator was checked on."""
    ours, standard = (session(graph.build(weights, standard=s)) for s in (False, True))
    for batch in (images[:1], images[:7], images[7:]):
        one, other = (run.run(None, {"pixels": batch}) for run in (ours, standard))
        assert np.abs(one[0] - other[0]).max() <= 1e-5
        assert np.array_equal(one[1], other[1]) and np.array_equal(one[2], other[2])


on_a_cpu = pytest.mark.skipif(PROVIDER != "CPUExecutionProvider", reason="convolutions for CPUs")


@on_a_cpu
def test_the_graph_for_cpus_gives_nearly_the_same(weights, images):
    run, standard = (
        session(graph.build_for_cpu(weights)),
        session(graph.build(weights, standard=True)),
    )
    for batch in (images[:1], images[1:8]):
        one, other = (it.run(["logit", "topk_values"], {"pixels": batch}) for it in (run, standard))
        assert all(np.abs(a - b).max() <= 5e-4 for a, b in zip(one, other, strict=True))


@on_a_cpu
def test_the_graph_for_cpus_does_not_depend_on_batch_or_threads(weights, images):
    names = ["logit", "topk_values", "topk_indices"]
    one_thread, two = (session(graph.build_for_cpu(weights), threads) for threads in (1, 2))
    alone = [one_thread.run(names, {"pixels": image[None]}) for image in images]
    alone = [np.concatenate(part) for part in zip(*alone, strict=True)]
    rng = np.random.default_rng(2)
    for run in (one_thread, two):
        for size in (1, 2, 3, 7, 32):
            chosen = rng.permutation(len(images))[:size]
            for part, expected in zip(
                run.run(names, {"pixels": images[chosen]}), alone, strict=True
            ):
                assert part.tobytes() == expected[chosen].tobytes(), size


@pytest.mark.parametrize("name", GOLDEN_TOP_K)
def test_golden_top_k(shared, name):
    state, _ = read_checkpoint(shared / "reference/weights/lfm_bmvc2025.pth")
    run = session(graph.build(weights_module.canonical(state), standard=False))
    assert_golden_top_k(shared, run, name)
