"""Reads the tensors of a PyTorch checkpoint without PyTorch and without trusting it.

The format (torch/serialization.py, zip since PyTorch 1.6): a zip archive `<name>/data.pkl`, a
pickle whose tensors are `torch._utils._rebuild_tensor_v2(storage, offset, shape, stride, ...)`
over storages named by persistent ids, and one raw file `<name>/data/<key>` per storage.

A pickle is a program. Only an allowlist of names without side effects and an allowlist of opcodes
are accepted; anything else is refused before it runs.
"""

import collections
import io
import pickle
import pickletools
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

MAX_FILE = 256 << 20  # bytes of the checkpoint: the network has 3 MB, an Adam state 9 MB
MAX_PICKLE = 1 << 20  # bytes of data.pkl
MAX_VALUES = 16 << 20  # values of one tensor: with a stride of 0 a small file makes a huge tensor
MAX_MEMO = 1 << 16  # memo index: the unpickler allocates a table of that size
MAX_TUPLE = 1 << 10  # values in a tuple, including nested tuples
MAX_FACTS = 1 << 14  # values besides the state dict, counted each time they are reached

STORAGES = {
    "FloatStorage": np.dtype("<f4"),
    "DoubleStorage": np.dtype("<f8"),
    "HalfStorage": np.dtype("<f2"),
    "LongStorage": np.dtype("<i8"),
    "IntStorage": np.dtype("<i4"),
}

# The opcodes of `torch.save` for a dict of tensors, numbers, strings, lists and tuples.
OPCODES = set(
    """
    PROTO FRAME STOP MARK MEMOIZE PUT BINPUT LONG_BINPUT GET BINGET LONG_BINGET
    NONE NEWTRUE NEWFALSE BININT BININT1 BININT2 LONG1 BINFLOAT BINUNICODE SHORT_BINUNICODE
    EMPTY_TUPLE TUPLE TUPLE1 TUPLE2 TUPLE3 EMPTY_LIST APPEND APPENDS EMPTY_DICT SETITEM SETITEMS
    GLOBAL BINPERSID REDUCE BUILD
    """.split()
)


class CheckpointError(ValueError):
    """An unsupported checkpoint; the message is one line for the user."""


@dataclass(frozen=True, slots=True)
class _Storage:
    """A persistent id of the pickle: the location of a tensor's values."""

    dtype: np.dtype
    key: str


@dataclass(frozen=True, slots=True)
class _Tensor:
    """A tensor of the pickle, its values not yet read."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]


def read_checkpoint(path: Path) -> tuple[dict[str, np.ndarray], dict]:
    """The tensors of the state dict in `path` by name, and the trainer's other values.

    The state dict is the pickled object itself or its key `model` or `state_dict`; in the latter
    case the plain values beside it (numbers, strings, dicts of those) are the second of the pair.
    Raises `CheckpointError` for anything unsafe, truncated or unknown, `OSError` if the file cannot
    be read.
    """
    if path.stat().st_size > MAX_FILE:
        raise CheckpointError(f"larger than {MAX_FILE >> 20} MiB")
    with path.open("rb") as file:
        try:
            archive = zipfile.ZipFile(file)
        except Exception as e:  # zipfile does not say what it raises for a damaged archive
            raise CheckpointError(
                "not a PyTorch zip checkpoint (truncated, or saved before PyTorch 1.6)"
            ) from e
        with archive:
            return _read_archive(archive)


def _read_archive(archive: zipfile.ZipFile) -> tuple[dict[str, np.ndarray], dict]:
    # torch.save stores without compression, so nothing can expand while it is read.
    if any(info.compress_type != zipfile.ZIP_STORED for info in archive.infolist()):
        raise CheckpointError("compressed entries: torch.save writes none")
    pickles = [name for name in archive.namelist() if name.split("/")[1:] == ["data.pkl"]]
    if len(pickles) != 1:
        raise CheckpointError("not a PyTorch zip checkpoint (it has no data.pkl)")
    root = pickles[0].removesuffix("data.pkl")
    if archive.getinfo(pickles[0]).file_size > MAX_PICKLE:
        raise CheckpointError(f"data.pkl is larger than {MAX_PICKLE >> 20} MiB")
    order = root + "byteorder"
    if order in archive.namelist() and _read_entry(archive, order, "byteorder") != b"little":
        raise CheckpointError("not little-endian")

    state, facts = _unpickle(_read_entry(archive, pickles[0], "data.pkl")), {}
    for wrapper in ("model", "state_dict"):
        if isinstance(state, dict) and isinstance(state.get(wrapper), dict):
            left = [MAX_FACTS]
            facts = {key: value for key, value in state.items() if _plain(value, left)}
            state = state[wrapper]
    if not isinstance(state, dict) or not state:
        raise CheckpointError("holds no state dict")
    for name, value in state.items():
        if not isinstance(name, str) or not isinstance(value, _Tensor):
            raise CheckpointError(f"{str(name)[:80]!r} is no tensor: not a state dict")
    return {name: _read_tensor(archive, root, name, value) for name, value in state.items()}, facts


def _read_entry(archive: zipfile.ZipFile, name: str, what: str) -> bytes:
    try:
        return archive.read(name)
    except Exception as e:  # as above
        raise CheckpointError(f"{what}: missing or damaged") from e


def _plain(value: object, left: list[int], depth: int = 0) -> bool:
    # A pickle can refer to one dict many times: a few dicts can form an exponentially large tree.
    left[0] -= 1
    if left[0] < 0 or depth > 16:
        raise CheckpointError("unsafe: too many values beside the state dict")
    if type(value) is dict:
        return all(
            type(key) is str and _plain(inner, left, depth + 1) for key, inner in value.items()
        )
    return type(value) in (str, int, float, bool)


def _unpickle(data: bytes) -> object:
    try:
        _check(data)
        return _Unpickler(io.BytesIO(data)).load()
    except CheckpointError:
        raise
    except Exception as e:  # pickle documents that damaged data may raise about anything
        raise CheckpointError(f"damaged pickle ({type(e).__name__})") from e


def _check(data: bytes) -> None:
    """Checks the opcodes without running them.

    The hash of a tuple visits all tuples in it, shared ones each time: 40 tuples, each a pair of
    the previous one, never finish as the key of a dict. So sizes are tracked as the unpickler would
    build them.
    """
    stack, marks, memo = [], [], {}
    for opcode, argument, _ in pickletools.genops(data):
        name = opcode.name
        if name not in OPCODES:
            raise CheckpointError(f"unsafe: pickle opcode {name}")
        if name == "MEMOIZE":
            memo[len(memo)] = stack[-1]
        elif "PUT" in name:
            if int(argument) > MAX_MEMO:
                raise CheckpointError("unsafe: pickle memo too large")
            memo[int(argument)] = stack[-1]
        elif "GET" in name:
            stack.append(memo[int(argument)])
        elif name == "MARK":
            marks.append(len(stack))
        else:
            if pickletools.markobject in opcode.stack_before:
                start = marks.pop()
                # The item before the mark, for APPENDS and SETITEMS: the list or the dict.
                below = opcode.stack_before.index(pickletools.markobject)
            else:
                start, below = len(stack) - len(opcode.stack_before), 0
                if start < 0:
                    raise CheckpointError("damaged pickle (stack)")
            size = 1 + sum(stack[start:]) if name.startswith("TUPLE") else 1
            if size > MAX_TUPLE:
                raise CheckpointError("unsafe: a tuple of too many values")
            del stack[start - below :]
            stack.extend([size] * len(opcode.stack_after))


class _Unpickler(pickle.Unpickler):
    """Accepts only the names of a checkpoint (docs.python.org, "Restricting Globals")."""

    def find_class(self, module: str, name: str) -> object:
        if (module, name) == ("collections", "OrderedDict"):
            return collections.OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _rebuild_tensor_v2
        if module == "torch" and name in STORAGES:
            return STORAGES[name]
        raise CheckpointError(f"unsafe: the pickle names {f'{module}.{name}'[:80]!r}")

    def persistent_load(self, pid: object) -> _Storage:
        match pid:  # ("storage", type, key, location, number of values)
            case ("storage", np.dtype() as dtype, str(key), str(), int()):
                return _Storage(dtype, key)
        raise CheckpointError("damaged pickle (storage)")


def _rebuild_tensor_v2(storage, offset, shape, stride, requires_grad, hooks, *_) -> _Tensor:
    """Replaces the PyTorch function of this name: records its arguments."""

    def counts(values: object) -> bool:
        return isinstance(values, tuple) and all(type(v) is int and v >= 0 for v in values)

    if not (isinstance(storage, _Storage) and counts((offset,)) and counts(shape)):
        raise CheckpointError("damaged pickle (tensor)")
    if not counts(stride) or len(stride) != len(shape) or len(shape) > 8:
        raise CheckpointError("damaged pickle (tensor)")
    return _Tensor(storage, offset, shape, stride)


def _read_tensor(archive: zipfile.ZipFile, root: str, name: str, tensor: _Tensor) -> np.ndarray:
    values = 1
    for size in tensor.shape:
        values *= size
    if values > MAX_VALUES:
        raise CheckpointError(f"{name[:80]!r} has shape {tensor.shape}: too large")
    raw = _read_entry(archive, f"{root}data/{tensor.storage.key}", f"the values of {name[:80]!r}")
    dtype = tensor.storage.dtype
    flat = np.frombuffer(raw, dtype, count=len(raw) // dtype.itemsize)
    reach = ((n - 1) * s for n, s in zip(tensor.shape, tensor.stride, strict=True))
    last = tensor.offset + sum(reach)
    if values == 0 or last >= flat.size:
        raise CheckpointError(f"{name[:80]!r} reaches outside its storage")
    strides = tuple(s * dtype.itemsize for s in tensor.stride)
    return np.lib.stride_tricks.as_strided(
        flat[tensor.offset :], tensor.shape, strides, writeable=False
    ).copy()
