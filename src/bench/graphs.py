"""Writes the two graphs of `lfm-serve bench --only op` beside itself: the operator alone, ONNX Runtime's TopK alone.

    python -m venv venv && venv/bin/pip install onnx==1.23.2 && venv/bin/python src/bench/graphs.py
"""

from pathlib import Path

from onnx import TensorProto, helper, save

HERE = Path(__file__).parent
K = 16


def write(file: str, node, shape, initializers=()):
    """A graph of one node, from `maps` to `values` and `indices`."""
    tensor = helper.make_tensor_value_info
    outputs = [
        tensor("values", TensorProto.FLOAT, ["n", 64, K]),
        tensor("indices", TensorProto.INT64, ["n", 64, K]),
    ]
    graph = helper.make_graph([node], "bench", [tensor("maps", TensorProto.FLOAT, shape)], outputs, list(initializers))
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("lfm", 1)]
    save(helper.make_model(graph, opset_imports=opsets, ir_version=8, producer_name=""), HERE / file)


# Each takes the maps in the shape that it uses directly: a Reshape would be a second node to measure.
write(
    "operator.onnx",
    helper.make_node("TopKPooling", ["maps"], ["values", "indices"], name="operator", domain="lfm", k=K),
    ["n", 64, 30, 30],
)
write(
    "standard.onnx",
    helper.make_node("TopK", ["maps", "k"], ["values", "indices"], name="standard"),
    ["n", 64, 900],
    [helper.make_tensor("k", TensorProto.INT64, [1], [K])],
)
