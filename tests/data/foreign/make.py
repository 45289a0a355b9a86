"""Writes the smallest graphs that have all that `import-onnx` has to deal with. Their logits are linear in the mean of each
channel, so that a test can compute them. Run with .venv-train's Python.

tiny.onnx           floats in NCHW, an input that is not square, two logits, values with the names of the served graph's own
                    input and output
probability.onnx    floats in NHWC, one probability
bytes.onnx          bytes in NHWC, normalised in the graph; two probabilities in half precision
mixing.onnx         one logit, from which the mean over the batch is subtracted
"""

from pathlib import Path

import numpy as np
from onnx import TensorProto, checker, helper, numpy_helper, save

HERE = Path(__file__).parent
NCHW, NHWC = ["n", 3, 8, 12], ["n", 8, 12, 3]
WEIGHT, BIAS = [[0.5, -1.0, 2.0], [-1.5, 0.75, 1.0]], [0.25, -0.5]


def write(name, nodes, image, output, constants=()):
    """`image` and `output` are (element type, shape); `nodes` go from `pixels` to `logit`."""
    node = helper.make_node
    graph = helper.make_graph(
        [node(*one[:3], **one[3]) for one in nodes],
        name,
        [helper.make_tensor_value_info("pixels", *image)],
        [helper.make_tensor_value_info("logit", *output)],
        [numpy_helper.from_array(value, name) for name, value in constants],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    checker.check_model(model)
    save(model, HERE / f"{name}.onnx")


def linear(labels):
    """Weight and bias of the logits of these labels: 0 is real, 1 is fake."""
    return [("weight", np.float32(WEIGHT)[labels]), ("bias", np.float32(BIAS)[labels])]


def gemm(output):
    return ("Gemm", ["flat", "weight", "bias"], [output], {"transB": 1})


POOL = [("GlobalAveragePool", ["pixels"], ["means"], {}), ("Flatten", ["means"], ["flat"], {})]
MEAN = {"axes": [1, 2], "keepdims": 0}
write("tiny", [*POOL, gemm("logit")], (TensorProto.FLOAT, NCHW), (TensorProto.FLOAT, ["n", 2]), linear([0, 1]))
write(
    "probability",
    [("ReduceMean", ["pixels"], ["flat"], MEAN), gemm("one"), ("Sigmoid", ["one"], ["logit"], {})],
    (TensorProto.FLOAT, NHWC),
    (TensorProto.FLOAT, ["n", 1]),
    linear([1]),
)
write(
    "bytes",
    [
        ("Cast", ["pixels"], ["floats"], {"to": TensorProto.FLOAT}),
        ("Div", ["floats", "range"], ["scaled"], {}),
        ("ReduceMean", ["scaled"], ["flat"], MEAN),
        gemm("both"),
        ("Softmax", ["both"], ["shares"], {"axis": 1}),
        ("Cast", ["shares"], ["logit"], {"to": TensorProto.FLOAT16}),
    ],
    (TensorProto.UINT8, NHWC),
    (TensorProto.FLOAT16, ["n", 2]),
    [*linear([0, 1]), ("range", np.float32(255))],
)
write(
    "mixing",
    [
        *POOL,
        gemm("alone"),
        ("ReduceMean", ["alone"], ["common"], {"axes": [0], "keepdims": 1}),
        ("Sub", ["alone", "common"], ["logit"], {}),
    ],
    (TensorProto.FLOAT, NCHW),
    (TensorProto.FLOAT, ["n", 1]),
    linear([1]),
)
