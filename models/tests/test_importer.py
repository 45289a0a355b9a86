"""The importer takes what the official code writes and refuses everything else in one line,
without running any of it. No PyTorch here."""

import collections
import os
import pickle
import random
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch_zip

from lfm import importer, weights
from lfm.checkpoint import CheckpointError, read_checkpoint


def run(capsys, *argv) -> tuple[int, str]:
    """Exit status and what was said, which is one line."""
    code = importer.main([str(a) for a in argv])
    said = capsys.readouterr()
    text = said.err if code else said.out
    assert text.count("\n") == 1 and text.endswith("\n")
    assert not (code and said.out)
    return code, text


@pytest.mark.parametrize(
    "wrap",
    [
        lambda s: collections.OrderedDict(s),
        lambda s: {"model": s, "optimizer": {"lr": 1e-4, "betas": (0.9, 0.999)}, "total_steps": 3},
        lambda s: {"state_dict": s, "epoch": 3},
        lambda s: {"module." + name: tensor for name, tensor in s.items()},
        lambda s: {n: t.astype(np.float64) if t.dtype == np.float32 else t for n, t in s.items()},
        lambda s: {n: t for n, t in s.items() if n in weights.SHAPES or n.startswith("fc1")},
    ],
    ids=["plain", "model", "state_dict", "module", "float64", "bare"],
)
def test_every_form_of_the_same_weights_gives_the_same_folder(wrap, state, tmp_path, capsys):
    for name, obj in (("plain", state), ("other", wrap(state))):
        (tmp_path / name).mkdir()
        torch_zip.save(obj, tmp_path / name / "w.pth")
        code, _ = run(capsys, tmp_path / name / "w.pth", tmp_path / name / "model")
        assert code == 0
    for file in ("lfm.onnx", "lfm.std.onnx", "lfm.cpu.onnx"):
        plain, other = ((tmp_path / n / "model" / file).read_bytes() for n in ("plain", "other"))
        assert plain == other


def test_values_survive_bit_for_bit(state, tmp_path):
    tensors, facts = read_checkpoint(torch_zip.save({"model": state, "step": 5}, tmp_path / "w"))
    assert facts == {"step": 5}
    assert tensors.keys() == state.keys()
    for name in state:
        np.testing.assert_array_equal(tensors[name], state[name])
    digest = weights.digest(weights.canonical(tensors))
    assert digest == weights.digest(weights.canonical(state))
    changed = {**state, "fc1.bias": np.nextafter(state["fc1.bias"], np.float32(9))}
    assert digest != weights.digest(weights.canonical(changed))


def test_half_precision_is_read(state, tmp_path):
    half = {n: t.astype(np.float16) if t.dtype == np.float32 else t for n, t in state.items()}
    tensors, _ = read_checkpoint(torch_zip.save(half, tmp_path / "w"))
    np.testing.assert_array_equal(tensors["fc1.weight"], half["fc1.weight"])


class Call:
    """Pickles to a call of `function` with `args` when loaded."""

    def __init__(self, function, *args) -> None:
        self.function, self.args = function, args

    def __reduce__(self):
        return self.function, self.args


def malicious(canary: str) -> dict[str, bytes]:
    shell = f"touch {canary}"
    code = f"open({canary!r}, 'w')"
    evil = {
        "os.system": pickle.dumps(Call(os.system, shell), protocol=2),
        "protocol 4": pickle.dumps(Call(os.system, shell), protocol=4),
        "protocol 0": pickle.dumps(Call(os.system, shell), protocol=0),
        "subprocess": pickle.dumps(Call(subprocess.call, ["touch", canary]), protocol=2),
        "eval": pickle.dumps(Call(eval, code), protocol=2),
        "exec": pickle.dumps(Call(exec, code), protocol=2),
        "open": pickle.dumps(Call(open, canary, "w"), protocol=2),
        "in a dict": pickle.dumps({"model": {"fc1.bias": Call(exec, code)}}, protocol=2),
        "dotted name": b"\x80\x04\x8c\x06numpy.\x94\x8c\x09os.system\x94\x93.",
        "inst": b"(S'" + shell.encode() + b"'\nios\nsystem\n.",
        "obj": b"(cos\nsystem\nS'" + shell.encode() + b"'\no.",
        "newobj": b"\x80\x02cos\nsystem\nX\x04\x00\x00\x00true\x85\x81.",
        "extension": b"\x80\x02\x82\x01.",
        "torch.load again": b"\x80\x02ctorch.storage\n_load_from_bytes\nC\x01x\x85R.",
        "getattr": b"\x80\x02c__builtin__\ngetattr\n.",
        "numpy loads": b"\x80\x02cnumpy\nload\n.",
        "our own module": b"\x80\x02clfm.checkpoint\nread_checkpoint\n.",
        "memo": b"\x80\x02]r\xff\xff\xff\x7f.",
        "call of an OrderedDict": b"\x80\x02ccollections\nOrderedDict\nK\x05\x85R.",
        "wrong arguments": b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n)R.",
        "persistent id": b"\x80\x02X\x07\x00\x00\x00storageQ.",
        "setstate": b"\x80\x02ccollections\nOrderedDict\n)R}X\x07\x00\x00\x00__class__Nsb.",
        "no stop": b"\x80\x02}",
        "empty": b"",
        "noise": bytes(range(256)),
    }
    return evil


NAMES = list(malicious(""))


@pytest.mark.parametrize("name", NAMES)
def test_malicious_pickles_are_refused_and_never_run(name, tmp_path, capsys):
    canary = tmp_path / "canary"
    torch_zip.write(tmp_path / "w.pth", malicious(str(canary))[name], {})
    code, text = run(capsys, tmp_path / "w.pth", tmp_path / "model")
    assert code == 1 and "w.pth" in text
    assert not canary.exists() and not (tmp_path / "model").exists()


def test_the_canary_sings(tmp_path):
    """The same pickle does run in an ordinary unpickler, so the test above can fail."""
    canary = tmp_path / "canary"
    pickle.loads(malicious(str(canary))["os.system"])
    assert canary.exists()


def broken(state: dict) -> dict[str, tuple[dict, str]]:
    without = {n: t for n, t in state.items() if n != "cnn.layer2.0.weight"}
    nan = state["fc1.bias"] * np.float32("nan")
    return {
        "missing": (without, "cnn.layer2.0.weight"),
        "unknown": ({**state, "head.weight": nan}, "head.weight"),
        "shape": ({**state, "cnn.layer1.0.bias": np.zeros(65, np.float32)}, "cnn.layer1.0.bias"),
        "k": ({**state, "fc1.weight": np.zeros((1, 1000), np.float32)}, "fc1.weight"),
        "two classes": ({**state, "fc1.weight": np.zeros((2, 1024), np.float32)}, "fc1.weight"),
        "nan": ({**state, "fc1.bias": nan}, "fc1.bias"),
        "float64 overflow": ({**state, "fc1.bias": np.array([1e300])}, "fc1.bias"),
        "variance": (
            {**state, "cnn.layer1.1.running_var": -state["cnn.layer1.1.running_var"]},
            "cnn.layer1.1.running_var",
        ),
        "kernel": (
            {**state, "downsample_conv.weight": state["upsample_conv.weight"]},
            "downsample_conv.weight",
        ),
        "not a tensor": ({**state, "fc1.bias": 3}, "fc1.bias"),
        "empty": ({}, "state dict"),
    }


@pytest.mark.parametrize("name", broken({"fc1.bias": np.zeros(1), "upsample_conv.weight": 0,
                                         "cnn.layer1.1.running_var": np.zeros(1)}))  # fmt: skip
def test_a_wrong_network_is_named(name, state, tmp_path, capsys):
    obj, named = broken(state)[name]
    torch_zip.save(obj, tmp_path / "w.pth")
    code, text = run(capsys, tmp_path / "w.pth", tmp_path / "model")
    assert code == 1 and named in text and not (tmp_path / "model").exists()


def test_a_tensor_cannot_reach_outside_its_storage(state, tmp_path):
    data, storages = torch_zip.pickled(state)
    for key, raw in storages.items():
        short = {**storages, key: raw[:-1]}
        with pytest.raises(CheckpointError, match="outside its storage"):
            read_checkpoint(torch_zip.write(tmp_path / "w", data, short))
    del storages["3"]
    with pytest.raises(CheckpointError, match="missing"):
        read_checkpoint(torch_zip.write(tmp_path / "w", data, storages))


def test_strides_cannot_make_a_huge_tensor(tmp_path):
    data = (  # {"w": shape (2^20, 2^20), strides (0, 0), over a storage of one value}
        b"\x80\x02}X\x01\x00\x00\x00wctorch._utils\n_rebuild_tensor_v2\n((X\x07\x00\x00\x00"
        b"storagectorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpuK\x01tQK\x00"
        b"J\x00\x00\x10\x00J\x00\x00\x10\x00\x86K\x00K\x00\x86\x89}tRs."
    )
    with pytest.raises(CheckpointError, match="too large"):
        read_checkpoint(torch_zip.write(tmp_path / "w", data, {"0": bytes(4)}))


def test_a_compressed_archive_is_refused(state, tmp_path):
    data, storages = torch_zip.pickled(state)
    bomb = {**storages, "0": bytes(64 << 20)}
    path = torch_zip.write(tmp_path / "w", data, bomb, compress=True)
    with pytest.raises(CheckpointError, match="compressed"):
        read_checkpoint(path)


def test_files_that_are_no_checkpoint(state, tmp_path, capsys):
    legacy = tmp_path / "legacy.pth"
    legacy.write_bytes(pickle.dumps(0x1950A86A20F9469CFC6C, protocol=2))
    empty = tmp_path / "empty.pth"
    empty.touch()
    for path in (legacy, empty, tmp_path / "absent.pth", tmp_path):
        code, text = run(capsys, path, tmp_path / "model")
        assert code == 1 and path.name in text


def test_damaged_files_are_refused_wherever_the_damage_is(state, tmp_path):
    """Truncation anywhere, and a pickle with bytes changed: an error of ours or a clean read."""
    whole = torch_zip.save(state, tmp_path / "w").read_bytes()
    rng = random.Random(0)
    for cut in [0, 1, len(whole) - 1, *(rng.randrange(len(whole)) for _ in range(60))]:
        (tmp_path / "cut").write_bytes(whole[:cut])
        with pytest.raises(CheckpointError):
            read_checkpoint(tmp_path / "cut")
    data, storages = torch_zip.pickled({name: np.zeros(4, np.float32) for name in state})
    refused = 0
    for _ in range(1000):
        changed = bytearray(data)
        for _ in range(rng.choice([1, 1, 3])):
            changed[rng.randrange(len(changed))] = rng.randrange(256)
        try:
            read_checkpoint(torch_zip.write(tmp_path / "w", bytes(changed), storages))
        except CheckpointError:
            refused += 1
    assert refused > 100


def test_a_zip_whose_entries_would_begin_before_the_file_is_damaged(state, tmp_path, capsys):
    path = torch_zip.save(state, tmp_path / "w.pth")
    whole = bytearray(path.read_bytes())
    offset = whole.rindex(b"PK\5\6") + 16  # where the directory is said to begin
    struct.pack_into("<I", whole, offset, struct.unpack_from("<I", whole, offset)[0] + 10_000)
    path.write_bytes(whole)
    code, text = run(capsys, path, tmp_path / "model")
    assert code == 1 and "missing or damaged" in text


def test_an_existing_folder_is_replaced_file_by_file(state, tmp_path, capsys):
    torch_zip.save(state, tmp_path / "w.pth")
    target = tmp_path / "model"
    target.mkdir()
    (target / "README.md").write_text("kept")
    code, _ = run(capsys, tmp_path / "w.pth", target, "--preprocess", "crop")
    assert code == 0 and (target / "README.md").read_text() == "kept"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model", "w.pth"]
    assert sorted(p.name for p in target.iterdir()) == [
        "README.md", "lfm.cpu.onnx", "lfm.onnx", "lfm.std.onnx", "manifest.json"]  # fmt: skip


def test_it_needs_no_torch(state, tmp_path):
    torch_zip.save(state, tmp_path / "w.pth")
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "from lfm import importer\n"
        f"sys.exit(importer.main([{str(tmp_path / 'w.pth')!r}, {str(tmp_path / 'model')!r}]))"
    )
    root = Path(importer.__file__).parents[1]
    subprocess.run([sys.executable, "-c", code], cwd=root, check=True)


def pairs(opcodes: bytes) -> bytes:
    """A pickle in which each of 60 objects holds the one before twice: a tree of 2^60 values."""
    steps = (opcodes.replace(b"$", b"h" + bytes([n])) + b"q" + bytes([n + 1]) for n in range(60))
    return b"K\x01q\x00" + b"".join(steps)


def dicts(depth: int) -> bytes:
    """The same of {"a": x, "b": x}, one within the other: SETITEM takes no dict as a key."""
    inner = dicts(depth - 1) if depth else b"K\x01"
    first = b"X\x01\x00\x00\x00a" + inner + b"q" + bytes([depth]) + b"s"
    return b"}" + first + b"X\x01\x00\x00\x00bh" + bytes([depth]) + b"s"


@pytest.mark.parametrize(
    "beside",
    [
        # {"a": x, "b": x} and (x, x), under "facts" or as a key.
        b"X\x05\x00\x00\x00facts" + dicts(60) + b"s",
        b"X\x05\x00\x00\x00facts" + pairs(b"$$\x86") + b"s",
        pairs(b"$$\x86") + b"K\x01s",
    ],
    ids=["dicts", "tuples", "a tuple as a key"],
)
def test_a_small_file_of_shared_references_is_refused_at_once(beside, tmp_path):
    model = b"X\x05\x00\x00\x00model}X\x01\x00\x00\x00xNss"
    path = torch_zip.write(tmp_path / "w.pth", b"\x80\x02}" + model + beside + b".", {})
    with pytest.raises(CheckpointError, match="unsafe"):
        read_checkpoint(path)
