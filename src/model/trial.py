"""Writes trial.onnx beside itself: one convolution, which needs of a provider what the network needs.

    python src/model/trial.py     # with onnx 1.23.2, as in .venv
"""

from pathlib import Path

import onnx
from onnx import TensorProto, helper

maps = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 1, 2, 2]) for name in ("x", "y")]
weight = helper.make_tensor("weight", TensorProto.FLOAT, [1, 1, 1, 1], [2.0])
node = helper.make_node("Conv", ["x", "weight"], ["y"], name="trial")
graph = helper.make_graph([node], "trial", maps[:1], maps[1:], [weight])
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8, producer_name="")
onnx.checker.check_model(model, full_check=True)
onnx.save(model, Path(__file__).with_suffix(".onnx"))
