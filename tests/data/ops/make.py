"""Writes the small ONNX models of tests/suite/op.rs and conv.rs beside itself.

    python -m venv venv && venv/bin/pip install onnx==1.23.2 && venv/bin/python tests/data/ops/make.py
"""

from pathlib import Path

import numpy as np
from onnx import TensorProto, ValueInfoProto, helper, numpy_helper, save

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

# ---- the convolutions ----

CHANNELS, MAPS = 20, 35  # no multiples of a vector
images = tensor("x", ["n", "h", "w", CHANNELS])
pixels = tensor("x", ["n", "h", "w", 3], TensorProto.UINT8)
one = [tensor("y", None)]


def weights(maps=MAPS, channels=CHANNELS, side=2, biases=None):
    """A layer's constants: the filters sum to about nothing, so that the ReLU cuts half of the places."""
    rng = np.random.default_rng(maps * channels)
    filters = rng.normal(0, 0.1, (maps, channels, side, side)).astype(np.float32)
    bias = rng.normal(0, 0.1, biases or maps).astype(np.float32)
    return [numpy_helper.from_array(filters, "weight"), numpy_helper.from_array(bias, "bias")]


def conv(name: str, operator: str, output="y", **attributes):
    return helper.make_node(operator, ["x", "weight", "bias"], [output], name=name, domain="lfm", **attributes)


def standard(source: str, pool: bool):
    """What the operator stands for, NHWC to NHWC."""
    nodes = [
        helper.make_node("Transpose", [source], ["nchw"], perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["nchw", "weight", "bias"], ["sums"], kernel_shape=[2, 2]),
        helper.make_node("Relu", ["sums"], ["rectified"]),
    ]
    if pool:
        nodes += [helper.make_node("MaxPool", ["rectified"], ["pooled"], kernel_shape=[2, 2], strides=[2, 2])]
    last = "pooled" if pool else "rectified"
    return nodes + [helper.make_node("Transpose", [last], ["expected"], perm=[0, 2, 3, 1])]


both = [tensor("y", None), tensor("expected", None)]
write("winograd.onnx", [conv("winograd", "WinogradConv", pool=0), *standard("x", False)], images, both, weights())
write("winograd_pool.onnx", [conv("winograd_pool", "WinogradConv", pool=1), *standard("x", True)], images, both, weights())
npr = [
    helper.make_node("Cast", ["x"], ["floats"], to=TensorProto.FLOAT),
    helper.make_node("Slice", ["floats", "starts", "ends", "axes", "steps"], ["down"]),
    helper.make_node("Resize", ["down", "", "scales"], ["up"], mode="nearest",
                     coordinate_transformation_mode="asymmetric", nearest_mode="floor"),
    helper.make_node("Sub", ["floats", "up"], ["difference"]),
    helper.make_node("Abs", ["difference"], ["residue"]),
]  # fmt: skip
sides = [
    numpy_helper.from_array(np.array(values), name)
    for name, values in {"starts": [0, 0], "ends": [1 << 30, 1 << 30], "axes": [1, 2], "steps": [2, 2]}.items()
] + [numpy_helper.from_array(np.float32([1, 2, 2, 1]), "scales")]
residue = conv("residue", "ResidueConv")
write("residue.onnx", [residue, *npr, *standard("residue", True)], pixels, both, weights(channels=3) + sides)
# Standard operators refuse odd sides too.
write("residue_alone.onnx", [conv("residue_alone", "ResidueConv")], pixels, one, weights(channels=3))

# Wrong in themselves; each node has the name of its file.
for name, constants, attributes in [
    ("pool_missing", weights(), {}),
    ("pool_two", weights(), {"pool": 2}),
    ("filter_3x3", weights(side=3), {"pool": 0}),
    ("bias_too_long", weights(biases=MAPS + 1), {"pool": 0}),
]:
    write(f"{name}.onnx", [conv(name, "WinogradConv", **attributes)], images, one, constants)
write("residue_of_4.onnx", [conv("residue_of_4", "ResidueConv")], pixels, one, weights(channels=4))
variable = [
    helper.make_node("ReduceMean", ["x"], ["mean"], keepdims=0),
    helper.make_node("Add", ["bias", "mean"], ["moved"]),
    helper.make_node("WinogradConv", ["x", "weight", "moved"], ["y"], name="variable", domain="lfm", pool=0),
]
write("variable.onnx", variable, images, one, weights())
