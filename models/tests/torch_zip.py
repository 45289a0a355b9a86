"""Writes PyTorch's zip checkpoint format without PyTorch, also in ways PyTorch never would."""

import collections
import io
import pickle
import sys
import types
import zipfile
from pathlib import Path
from unittest import mock

import numpy as np

STORAGES = {"f4": "Float", "f8": "Double", "f2": "Half", "i8": "Long"}


class _Pickler(pickle.Pickler):
    """Pickles arrays as tensors. `storages` collects the raw files."""

    def __init__(self, file, torch: types.ModuleType) -> None:
        super().__init__(file, protocol=2)
        self.torch, self.storages = torch, {}

    def persistent_id(self, obj):
        return obj.pid if isinstance(obj, _Storage) else None

    def reducer_override(self, obj):
        if not isinstance(obj, np.ndarray):
            return NotImplemented
        key = str(len(self.storages))
        self.storages[key] = obj.tobytes()  # in C order
        kind = getattr(self.torch, STORAGES[obj.dtype.str[1:]] + "Storage")
        strides = tuple(s // obj.itemsize for s in obj.copy(order="C").strides)
        storage = _Storage(("storage", kind, key, "cpu", obj.size))
        hooks = collections.OrderedDict()
        return self.torch._utils._rebuild_tensor_v2, (storage, 0, obj.shape, strides, False, hooks)


class _Storage:
    def __init__(self, pid) -> None:
        self.pid = pid


def pickled(obj: object) -> tuple[bytes, dict[str, bytes]]:
    """data.pkl and the storages of `obj`, in the names that PyTorch would write."""
    torch, utils = types.ModuleType("torch"), types.ModuleType("torch._utils")
    torch._utils = utils
    for name in STORAGES.values():
        kind = type(name + "Storage", (), {"__module__": "torch"})
        setattr(torch, name + "Storage", kind)

    def _rebuild_tensor_v2():
        raise AssertionError("only its name is pickled")

    _rebuild_tensor_v2.__module__, _rebuild_tensor_v2.__qualname__ = (
        "torch._utils",
        "_rebuild_tensor_v2",
    )
    utils._rebuild_tensor_v2 = _rebuild_tensor_v2
    file = io.BytesIO()
    with mock.patch.dict(sys.modules, {"torch": torch, "torch._utils": utils}):
        pickler = _Pickler(file, torch)
        pickler.dump(obj)
    return file.getvalue(), pickler.storages


def write(path: Path, data: bytes, storages: dict[str, bytes], compress: bool = False) -> Path:
    method = zipfile.ZIP_DEFLATED if compress else zipfile.ZIP_STORED
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.writestr("archive/data.pkl", data)
        archive.writestr("archive/byteorder", "little")
        for key, raw in storages.items():
            archive.writestr(f"archive/data/{key}", raw)
    return path


def save(obj: object, path: Path) -> Path:
    return write(path, *pickled(obj))
