"""`lfm.restyle`: a style transfer network draws a photograph anew."""

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, helper

from lfm import generate, restyle


def test_a_network_for_one_size_takes_any_other():
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, 8, 8, 3]) for n in "xyz"]
    nodes = [helper.make_node("Relu", ["x"], ["y"]), helper.make_node("Neg", ["y"], ["z"])]
    graph = helper.make_graph(nodes, "test", ends[:1], ends[2:], value_info=ends[1:2])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    session = onnxruntime.InferenceSession(restyle.any_size(model).SerializeToString())
    (made,) = session.run(None, {"x": np.ones((1, 4, 12, 3), np.float32)})
    assert made.shape == (1, 4, 12, 3) and (made == -1).all()


@pytest.mark.skipif(not find_spec(restyle.PACKAGE), reason="`make made` has not installed it")
def test_the_photograph_drawn_anew_has_its_size_and_content():
    maker = generate.load_zoo(Path(), [restyle.NAME])[restyle.NAME]
    y, x = np.mgrid[: 25 * maker.block, : 33 * maker.block] / 20
    photograph = np.uint8(np.stack([np.sin(y), np.cos(x), np.sin(x + y)], 2) * 40 + 128)
    made = maker.make(photograph)
    assert made.shape == photograph.shape and made.dtype == np.uint8
    assert np.corrcoef(made.ravel(), photograph.ravel())[0, 1] > 0.6
