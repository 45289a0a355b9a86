"""Writes trial.onnx and trial.std.onnx beside itself: a convolution and its Top-K, by our operator and by ONNX's.
A provider that runs them has what the network needs.

    python src/model/trial.py     # with onnx 1.23.2, as in .venv
"""

from pathlib import Path

import onnx
from onnx import TensorProto, helper

K = 3


def write(name: str, nodes: list, constants: list) -> None:
    tensor = helper.make_tensor_value_info
    pooled = [tensor("values", TensorProto.FLOAT, [1, 1, K]), tensor("indices", TensorProto.INT64, [1, 1, K])]
    weight = helper.make_tensor("weight", TensorProto.FLOAT, [1, 1, 1, 1], [2.0])
    conv = helper.make_node("Conv", ["x", "weight"], ["twice"], name="conv")
    maps = [tensor("x", TensorProto.FLOAT, [1, 1, 2, 4])]
    graph = helper.make_graph([conv, *nodes], "trial", maps, pooled, [weight, *constants])
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("lfm", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8, producer_name="")
    onnx.checker.check_model(model)
    onnx.save(model, Path(__file__).with_name(name))


outputs = ["values", "indices"]
write("trial.onnx", [helper.make_node("TopKPooling", ["twice"], outputs, name="topk", domain="lfm", k=K)], [])
write(
    "trial.std.onnx",
    [
        helper.make_node("Reshape", ["twice", "rows"], ["flat"], name="rows"),
        helper.make_node("TopK", ["flat", "k"], outputs, name="topk"),
    ],
    [
        helper.make_tensor("rows", TensorProto.INT64, [3], [1, 1, 8]),
        helper.make_tensor("k", TensorProto.INT64, [1], [K]),
    ],
)
