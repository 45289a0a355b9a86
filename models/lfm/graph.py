"""Builds the ONNX graphs of an LFM model from its canonical weights; shared by export and import.

Input   `pixels`        uint8   [n, 256, 256, 3]  RGB
Outputs `logit`         float32 [n]               log-odds of "fake"
        `topk_values`   float32 [n, 64, K]        descending
        `topk_indices`  int64   [n, 64, K]        positions in the 30x30 map, row * 30 + column

`lfm.onnx` pools with the operator `lfm:TopKPooling`, `lfm.std.onnx` with standard operators;
`lfm.cpu.onnx` also uses our operators for convolutions (src/conv/), for CPUs.
"""

import base64

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from lfm.weights import MAPS, PLACES, digest, top_k

SIDE = 256
OPSET = 18
IR_VERSION = 8  # the version of opset 18: supported by most runtimes
DOMAIN = "lfm"
STD = np.array([0.229, 0.224, 0.225])  # ImageNet; the means cancel in the NPR residue
BN_EPS = 1e-5  # torch.nn.BatchNorm2d


def build(weights: dict[str, np.ndarray], *, standard: bool) -> bytes:
    """The serialised model; equal weights give equal bytes."""
    graph = _Graph()
    x = _npr(graph)
    for i in range(1, 5):
        x = graph.node("Conv", [x, *_conv(graph, weights, i)], f"conv{i}", kernel_shape=[2, 2])
        x = graph.node("Relu", [x], f"relu{i}")
        if i < 4:
            x = graph.node("MaxPool", [x], f"pool{i}", kernel_shape=[2, 2], strides=[2, 2])
    maps = graph.node("Conv", [x, graph.const("conv1x1.weight", weights["covn1_1.weight"])],
                      "conv1x1", kernel_shape=[1, 1])  # fmt: skip  # (n, 64, 30, 30)
    return _serialised(graph, maps, weights, standard=standard)


def build_for_cpu(weights: dict[str, np.ndarray]) -> bytes:
    """The same with `lfm:ResidueConv` and `lfm:WinogradConv`, each a convolution with all
    operations up to the next one. Their images are NHWC."""
    graph = _Graph()
    x = graph.node("ResidueConv", ["pixels", *_conv(graph, weights, 1)], "conv1",
                   domain=DOMAIN)  # fmt: skip  # (n, 127, 127, 64)
    for i in range(2, 5):
        x = graph.node("WinogradConv", [x, *_conv(graph, weights, i)], f"conv{i}",
                       domain=DOMAIN, pool=int(i < 4))  # fmt: skip
    mixing = weights["covn1_1.weight"].reshape(MAPS, -1).T  # (512, 64)
    mixed = graph.node("MatMul", [x, graph.const("conv1x1.weight", mixing)], "conv1x1")
    maps = graph.node("Transpose", [mixed], "nchw", perm=[0, 3, 1, 2])  # (n, 64, 30, 30)
    return _serialised(graph, maps, weights, standard=False)


def _serialised(graph: "_Graph", maps: str, weights: dict[str, np.ndarray], *, standard: bool):
    """Ends the graph: Top-K of the maps, the linear layer, the interface, the metadata."""
    k = top_k(weights)
    _top_k(graph, maps, k, standard)
    _linear(graph, weights, k)

    model = helper.make_model(
        helper.make_graph(
            graph.nodes,
            "lfm",
            [helper.make_tensor_value_info("pixels", TensorProto.UINT8, ["n", SIDE, SIDE, 3])],
            [
                helper.make_tensor_value_info("logit", TensorProto.FLOAT, ["n"]),
                helper.make_tensor_value_info("topk_values", TensorProto.FLOAT, ["n", MAPS, k]),
                helper.make_tensor_value_info("topk_indices", TensorProto.INT64, ["n", MAPS, k]),
            ],
            graph.initializers,
        ),
        opset_imports=[helper.make_opsetid("", OPSET)]
        + ([] if standard else [helper.make_opsetid(DOMAIN, 1)]),
        ir_version=IR_VERSION,
        producer_name="lfm",
    )
    # Data for explanations, and the digest that links this file to its manifest.
    helper.set_model_props(
        model,
        {
            "lfm.digest": digest(weights),
            "lfm.linear.weight": _base64(weights["fc1.weight"]),  # float32 LE, (64, K)
            "lfm.linear.bias": _base64(weights["fc1.bias"]),  # float32 LE, (1,)
        },
    )
    onnx.checker.check_model(model, full_check=standard)
    return model.SerializeToString(deterministic=True)


class _Graph:
    """Nodes and constants in order of creation; a node's output has its name."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []

    def const(self, name: str, value: np.ndarray) -> str:
        self.initializers.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name

    def node(self, op: str, inputs: list[str], name: str, outputs=None, **attributes) -> str:
        outputs = outputs or [name]
        self.nodes.append(helper.make_node(op, inputs, outputs, name, **attributes))
        return outputs[0]


def _npr(g: _Graph) -> str:
    """|x - up2(down2(x))|, nearest neighbour, top-left of each 2x2 block: (n, 3, 256, 256).

    The residue of bytes is a whole number, exact in float32; 1 / (255 std) is left to conv1.
    """
    # Cast first: TensorRT accepts a uint8 network input only directly before a Cast.
    x = g.node("Cast", ["pixels"], "float", to=TensorProto.FLOAT)
    x = g.node("Transpose", [x], "nchw", perm=[0, 3, 1, 2])  # (n, 3, 256, 256)
    down = g.node("Slice", [x, g.const("slice.starts", np.array([0, 0])),
                            g.const("slice.ends", np.array([SIDE, SIDE])),
                            g.const("slice.axes", np.array([2, 3])),
                            g.const("slice.steps", np.array([2, 2]))], "down")  # fmt: skip
    up = g.node("Resize", [down, "", g.const("up.scales", np.float32([1, 1, 2, 2]))], "up",
                mode="nearest", coordinate_transformation_mode="asymmetric",
                nearest_mode="floor")  # fmt: skip
    return g.node("Abs", [g.node("Sub", [x, up], "npr")], "residue")


def _conv(g: _Graph, weights: dict[str, np.ndarray], i: int) -> tuple[str, str]:
    """Weight and bias of convolution `i` with its batch norm (and, for the first, the input scale)
    folded in, computed in float64."""
    w, b = (weights[f"cnn.layer{i}.0.{n}"].astype(np.float64) for n in ("weight", "bias"))
    gamma, beta, mean, var = (
        weights[f"cnn.layer{i}.1.{n}"].astype(np.float64)
        for n in ("weight", "bias", "running_mean", "running_var")
    )
    scale = gamma / np.sqrt(var + BN_EPS)
    w = w * scale[:, None, None, None]
    if i == 1:
        w = w / (255 * STD)[None, :, None, None]
    bias = (b - mean) * scale + beta
    return g.const(f"conv{i}.weight", np.float32(w)), g.const(f"conv{i}.bias", np.float32(bias))


def _top_k(g: _Graph, maps: str, k: int, standard: bool) -> None:
    outputs = ["topk_values", "topk_indices"]
    if standard:
        rows = g.node("Reshape", [maps, g.const("rows.shape", np.array([0, MAPS, PLACES]))], "rows")
        g.node("TopK", [rows, g.const("k", np.array([k]))], "topk", outputs,
               axis=-1, largest=1, sorted=1)  # fmt: skip
    else:
        g.node("TopKPooling", [maps], "topk", outputs, domain=DOMAIN, k=k)


def _linear(g: _Graph, weights: dict[str, np.ndarray], k: int) -> None:
    """logit = sum over (map, rank) of weight * value, + bias.

    A row-wise sum instead of a Gemm: a Gemm may choose its kernel, and so its order of summation,
    by the batch size, but the logit must not depend on that, to the last bit.
    """
    weight = g.const("linear.weight", weights["fc1.weight"].reshape(1, MAPS, k))
    terms = g.node("Mul", ["topk_values", weight], "contributions")
    flat = g.node("Reshape", [terms, g.const("flat.shape", np.array([0, MAPS * k]))], "flat")
    total = g.node("ReduceSum", [flat, g.const("sum.axes", np.array([1]))], "sum", keepdims=0)
    g.node("Add", [total, g.const("linear.bias", weights["fc1.bias"])], "linear", ["logit"])


def _base64(values: np.ndarray) -> str:
    return base64.b64encode(values.astype("<f4").tobytes()).decode()
