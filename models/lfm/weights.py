"""The weights of an LFM model: the official names, their shapes, and one canonical form.

Every graph, digest and manifest is built from the canonical form, whichever program and float type
the checkpoint was written with.
"""

import hashlib
import json
from itertools import pairwise

import numpy as np

MAPS = 64  # channels of the 1x1 convolution that Top-K pools
PLACES = 30 * 30  # values of one map at the 256x256 input: the largest possible K
CHANNELS = (3, 64, 128, 256, 512)  # into and out of the four 2x2 convolutions

# (name, shape) of every tensor of the network except the linear layer, whose width defines K.
# `covn1_1` is the official code's spelling.
SHAPES: dict[str, tuple[int, ...]] = {}
for _i, (_in, _out) in enumerate(pairwise(CHANNELS), start=1):
    SHAPES[f"cnn.layer{_i}.0.weight"] = (_out, _in, 2, 2)
    SHAPES[f"cnn.layer{_i}.0.bias"] = (_out,)
    for _name in ("weight", "bias", "running_mean", "running_var"):
        SHAPES[f"cnn.layer{_i}.1.{_name}"] = (_out,)
SHAPES["covn1_1.weight"] = (MAPS, CHANNELS[-1], 1, 1)

# Tensors of a checkpoint without learned values. The NPR kernels are constants that the graph
# replaces by slicing; a checkpoint with different ones is another network.
NPR_KERNELS = ("downsample_conv.weight", "upsample_conv.weight")
COUNTERS = tuple(f"cnn.layer{i}.1.num_batches_tracked" for i in range(1, 5))


class WeightsError(ValueError):
    """A checkpoint that is not an LFM network; the message is one line for the user."""


def npr_kernel(name: str) -> np.ndarray:
    """The (3, 3, 2, 2) kernel `name`: channel c to channel c only; down-sampling picks the top-left
    value of each 2x2 block (stride 2), up-sampling spreads it over the block."""
    kernel = np.zeros((3, 3, 2, 2), np.float32)
    for c in range(3):
        if name.startswith("downsample"):
            kernel[c, c, 0, 0] = 1
        else:
            kernel[c, c] = 1
    return kernel


def canonical(state: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Checks a state dict against the network and returns its learned tensors as float32.

    Names may have the `module.` prefix of `torch.nn.DataParallel`. Raises `WeightsError` naming the
    first invalid tensors.
    """
    state = {name.removeprefix("module."): tensor for name, tensor in state.items()}
    names = [*SHAPES, "fc1.weight", "fc1.bias"]
    missing = [name for name in names if name not in state]
    if missing:
        raise WeightsError(f"not an LFM checkpoint: missing {_some(missing)}")
    unknown = [name for name in state if name not in {*names, *NPR_KERNELS, *COUNTERS}]
    if unknown:
        raise WeightsError(f"not an LFM checkpoint: unknown {_some(unknown)}")
    width = state["fc1.weight"].shape[-1] if state["fc1.weight"].ndim == 2 else 0
    if width % MAPS or not 1 <= width // MAPS <= PLACES:
        raise WeightsError(f"fc1.weight has shape {state['fc1.weight'].shape}, want (1, {MAPS}*K)")
    for name, shape in {**SHAPES, "fc1.weight": (1, width), "fc1.bias": (1,)}.items():
        if state[name].shape != shape:
            raise WeightsError(f"{name} has shape {state[name].shape}, want {shape}")
    for name in NPR_KERNELS:
        if name in state and not np.array_equal(state[name], npr_kernel(name)):
            raise WeightsError(f"{name} is not the NPR kernel (nearest of each 2x2 block)")
    with np.errstate(over="ignore"):  # a float64 beyond float32 becomes inf, refused below
        weights = {name: np.ascontiguousarray(state[name], np.float32) for name in names}
    for name, tensor in weights.items():
        if not np.isfinite(tensor).all():
            raise WeightsError(f"{name} holds values that are not finite")
        if name.endswith("running_var") and (tensor < 0).any():
            raise WeightsError(f"{name} holds a negative variance")
    return weights


def top_k(weights: dict[str, np.ndarray]) -> int:
    """K, the number of values pooled per map."""
    return weights["fc1.weight"].shape[1] // MAPS


def digest(weights: dict[str, np.ndarray]) -> str:
    """`sha256:<hex>` of canonical weights.

    The hash covers, for each tensor in ascending order of names: one line of JSON
    `["<name>",[<shape>]]` without spaces, ended by a newline, then the values as little-endian
    float32 in C order. NPR kernels and batch counters are not learned and not hashed.
    """
    hasher = hashlib.sha256()
    for name in sorted(weights):
        header = json.dumps([name, weights[name].shape], separators=(",", ":"))
        hasher.update(header.encode() + b"\n" + weights[name].astype("<f4").tobytes())
    return f"sha256:{hasher.hexdigest()}"


def _some(names: list[str]) -> str:
    shown = ", ".join(repr(name[:80]) for name in names[:3])
    return shown + (f" and {len(names) - 3} more" if len(names) > 3 else "")
