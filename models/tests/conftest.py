"""Weights, checkpoints and images that the tests share."""

import hashlib
import io
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from lfm.weights import SHAPES, npr_kernel

SHARED = Path(__file__).resolve().parents[3] / "shared"


@pytest.fixture(scope="session")
def shared() -> Path:
    if not SHARED.is_dir():
        pytest.skip(f"{SHARED} is absent: published weights and golden images not tested")
    return SHARED


def random_weights(k: int = 16, seed: int = 0) -> dict[str, np.ndarray]:
    """A network whose activations neither die nor grow from layer to layer and whose logits spread
    over several units, so that a wrong graph cannot pass a comparison."""
    rng = np.random.default_rng(seed)
    weights = {}
    for name, shape in SHAPES.items():
        if name.endswith("running_var"):
            values = rng.uniform(0.5, 2, shape)
        elif name.endswith("1.weight") and name.startswith("cnn"):
            values = rng.uniform(0.5, 1.5, shape)
        elif len(shape) == 1:
            values = rng.normal(0, 0.1, shape)
        else:
            values = rng.normal(0, (2 / np.prod(shape[1:])) ** 0.5, shape)
        weights[name] = np.float32(values)
    weights["fc1.weight"] = np.float32(rng.normal(0, 0.3, (1, 64 * k)))
    weights["fc1.bias"] = np.float32(rng.normal(0, 1, 1))
    return weights


@pytest.fixture(scope="session")
def weights() -> dict[str, np.ndarray]:
    return random_weights()


@pytest.fixture(scope="session")
def state() -> dict[str, np.ndarray]:
    """What an official checkpoint holds: the weights, the NPR kernels and the counters."""
    kernels = {name + ".weight": npr_kernel(name) for name in ("downsample_conv", "upsample_conv")}
    counters = {f"cnn.layer{i}.1.num_batches_tracked": np.array(7) for i in range(1, 5)}
    return {**kernels, **random_weights(), **counters}


@pytest.fixture(scope="session")
def images() -> np.ndarray:
    """uint8 (32, 256, 256, 3): noise, smooth, flat, saturated and mixed."""
    rng = np.random.default_rng(1)
    y, x = np.mgrid[0:256, 0:256]
    smooth = np.stack([np.sin(x / 17) + np.cos(y / s) for s in (11, 23, 41)], -1) * 60 + 128
    made = []
    for i in range(32):
        noise = rng.normal(0, (1, 4, 16, 64)[i % 4], (256, 256, 3))
        base = (smooth, np.roll(smooth, 8 * i, 0), np.full_like(smooth, 255.0), smooth / 4)[i // 8]
        made.append(np.clip(base + noise, 0, 255))
    made[0] = np.full((256, 256, 3), 77)
    return np.uint8(made)


GOLDEN_TOP_K = ["astro_420_q95_jpg", "coffee_rgb_png", "orig_china_jpg"]


def assert_golden_top_k(shared: Path, run, name: str) -> None:
    """Values within 5e-4; a place may differ only where the values are as close as that."""
    golden = shared / "reference/golden/topk"
    pixels = np.fromfile(golden / f"{name}_rgb256.raw", np.uint8).reshape(1, 256, 256, 3)
    values, indices = run.run(["topk_values", "topk_indices"], {"pixels": pixels})
    want_values = np.load(golden / f"{name}_val.npy")
    want_indices = np.load(golden / f"{name}_idx.npy")
    assert np.abs(values[0] - want_values).max() <= 5e-4
    differ = np.argwhere(indices[0] != want_indices)
    assert len(differ) <= 8
    for channel, _ in differ:
        gaps = -np.diff(want_values[channel])
        assert gaps.min() <= 5e-4


@pytest.fixture
def npm(tmp_path, monkeypatch) -> Callable[[dict[str, bytes]], str]:
    """Puts a stub in place of npm: `npm pack` hands out a package of these files and writes a line to
    `runs`. Returns the package's sha256."""

    def pack(files: dict[str, bytes]) -> str:
        archive = tmp_path / "some-1.0.0.tgz"
        with tarfile.open(archive, "w:gz") as tar:
            for name, data in files.items():
                info = tarfile.TarInfo(name)
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
        programs = tmp_path / "bin"
        programs.mkdir()
        stub = programs / "npm"
        stub.write_text(f'#!/bin/sh\necho run >> {tmp_path}/runs\ncp {archive} "$4"\n')
        stub.chmod(0o755)
        monkeypatch.setenv("PATH", f"{programs}:/usr/bin:/bin")
        return hashlib.sha256(archive.read_bytes()).hexdigest()

    return pack
