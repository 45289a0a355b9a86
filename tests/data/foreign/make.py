"""Writes tiny.onnx, the smallest graph that has all that `import-onnx` has to deal with: floats in NCHW, an input that
is not square, two logits, a dynamic batch, and values with the names of the served graph's own input and output. Its
logits are linear in the mean of each channel, so that a test can compute them. Run with .venv-train's Python."""

from pathlib import Path

import numpy as np
from onnx import TensorProto, checker, helper, numpy_helper, save

weight = numpy_helper.from_array(np.float32([[0.5, -1.0, 2.0], [-1.5, 0.75, 1.0]]), "weight")
bias = numpy_helper.from_array(np.float32([0.25, -0.5]), "bias")
graph = helper.make_graph(
    [
        helper.make_node("GlobalAveragePool", ["pixels"], ["means"]),
        helper.make_node("Flatten", ["means"], ["flat"]),
        helper.make_node("Gemm", ["flat", "weight", "bias"], ["logit"], transB=1),
    ],
    "tiny",
    [helper.make_tensor_value_info("pixels", TensorProto.FLOAT, ["n", 3, 8, 12])],
    [helper.make_tensor_value_info("logit", TensorProto.FLOAT, ["n", 2])],
    [weight, bias],
)
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
checker.check_model(model)
save(model, Path(__file__).with_name("tiny.onnx"))
