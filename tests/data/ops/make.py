"""Writes the small ONNX models of tests/suite/op.rs beside itself.

    python -m venv venv && venv/bin/pip install onnx==1.23.2 && venv/bin/python tests/data/ops/make.py
"""

from pathlib import Path

from onnx import TensorProto, ValueInfoProto, helper, save

HERE = Path(__file__).parent
K = 16


def tensor(name: str, shape, element=TensorProto.FLOAT) -> ValueInfoProto:
    """A graph input or output; a shape of None leaves even the rank open."""
    return helper.make_tensor_value_info(name, element, shape)


def pooling(name: str, **attributes):
    return helper.make_node("TopKPooling", ["x"], ["values", "indices"], name=name, domain="lfm", **attributes)


def write(file: str, nodes, input, outputs=None, initializers=()):
    outputs = outputs or [tensor("values", None), tensor("indices", None, TensorProto.INT64)]
    graph = helper.make_graph(nodes, "ops", [input], outputs, list(initializers))
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("lfm", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8, producer_name="")
    save(model, HERE / file)


maps = tensor("x", ["n", "c", "h", "w"])

# The operator beside the standard one, on the same maps.
write(
    "both.onnx",
    [
        pooling("pool", k=K),
        helper.make_node("Reshape", ["x", "rows"], ["flat"], name="flatten"),
        helper.make_node("TopK", ["flat", "k"], ["expected_values", "expected_indices"], name="topk"),
    ],
    maps,
    outputs=[
        tensor("values", ["n", "c", K]),
        tensor("indices", ["n", "c", K], TensorProto.INT64),
        tensor("expected_values", ["n", "c", K]),
        tensor("expected_indices", ["n", "c", K], TensorProto.INT64),
    ],
    initializers=[
        helper.make_tensor("rows", TensorProto.INT64, [3], [0, 0, -1]),
        helper.make_tensor("k", TensorProto.INT64, [1], [K]),
    ],
)

# Maps of any size, to run with maps that are too small and with empty batches.
write("pool.onnx", [pooling("pool", k=K)], maps)
# Even the rank is known only at run time.
write("pool_any_rank.onnx", [pooling("pool_any_rank", k=K)], tensor("x", None))

# Models that are wrong in themselves; each node has the name of its file.
write("k_zero.onnx", [pooling("k_zero", k=0)], maps)
write("k_negative.onnx", [pooling("k_negative", k=-3)], maps)
write("k_missing.onnx", [pooling("k_missing")], maps)
write("k_float.onnx", [pooling("k_float", k=16.0)], maps)
write("rank_3.onnx", [pooling("rank_3", k=K)], tensor("x", ["n", "c", "hw"]))
write("input_f64.onnx", [pooling("input_f64", k=K)], tensor("x", ["n", "c", "h", "w"], TensorProto.DOUBLE))
