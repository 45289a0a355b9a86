"""`import-onnx` on a small vision transformer and a small residual network with random weights: the service gives PyTorch's
logits, and the pixels of Pillow with torchvision's `Resize` and `CenterCrop`, whose arithmetic is written out here (neither
torchvision nor timm is among the requirements)."""

import hashlib
import json
import subprocess
import urllib.error
import urllib.request
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from lfm.data import decode

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = ROOT / "target/release/lfm-serve"
GOLDEN = ROOT / "tests/golden/images"
FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2))
        self.qkv, self.project = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(
            nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = self.qkv(self.norms[0](x)).chunk(3, dim=-1)
        weights = (q @ k.transpose(-2, -1) / q.shape[-1] ** 0.5).softmax(-1)
        x = x + self.project(weights @ v)
        return x + self.mlp(self.norms[1](x))


class Vit(nn.Module):
    """Patches, a class token, positions, two blocks, one logit."""

    def __init__(self, height: int, width: int, dim: int = 48) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, dim, 16, 16)
        self.token = nn.Parameter(torch.randn(1, 1, dim))
        self.position = nn.Parameter(torch.randn(1, 1 + height * width // 256, dim))
        self.blocks = nn.Sequential(Block(dim), Block(dim))
        self.head = nn.Linear(dim, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1) + self.position
        return self.head(self.blocks(x)[:, 0])


class Residual(nn.Module):
    """A stem, a residual block with batch normalisation, two logits."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, width, 7, 4, 3), nn.BatchNorm2d(width), nn.ReLU())
        self.block = nn.Sequential(
            nn.Conv2d(width, width, 3, 1, 1), nn.BatchNorm2d(width), nn.ReLU(),
            nn.Conv2d(width, width, 3, 1, 1), nn.BatchNorm2d(width),
        )  # fmt: skip
        self.head = nn.Linear(width, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        return self.head(torch.relu(x + self.block(x)).mean((2, 3)))


def prepare(image: Image.Image, resize: tuple, size: tuple[int, int], filter: str) -> np.ndarray:
    """torchvision's Resize (`_compute_resized_output_size`) and CenterCrop (`center_crop`)."""
    width, height = image.size
    if resize[0] == "shorter":
        short, long = min(width, height), max(width, height)
        longer = int(resize[1] * long / short)
        wide, high = (resize[1], longer) if width <= height else (longer, resize[1])
    else:
        high, wide = resize[1:]
    image = image.resize((wide, high), FILTERS[filter])
    top, left = (round((a - b) / 2.0) for a, b in zip((high, wide), size, strict=True))
    return np.asarray(image.crop((left, top, left + size[1], top + size[0])))


CASES = {
    "vit": (Vit(64, 96), ("shorter", 100), (64, 96), "bicubic", "logit"),
    "residual": (Residual(), ("both", 256, 250), (224, 224), "bilinear", "two-logits"),
}


@pytest.fixture(scope="module", params=list(CASES))
def case(request, tmp_path_factory) -> tuple[nn.Module, tuple, tuple, str, Path]:
    torch.manual_seed(7)
    network, resize, size, filter, kind = CASES[request.param]
    network.eval()
    folder = tmp_path_factory.mktemp(request.param)
    file, out = folder / "net.onnx", folder / "model"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        names = {"input_names": ["input"], "output_names": ["logits"]}
        dynamic = {"input": {0: "n"}, "logits": {0: "n"}}
        torch.onnx.export(
            network, (torch.zeros(2, 3, *size),), file,
            dynamo=False, opset_version=17, dynamic_axes=dynamic, **names,
        )  # fmt: skip
    rule = f"shorter={resize[1]}" if resize[0] == "shorter" else f"both={resize[1]}x{resize[2]}"
    numbers = [",".join(map(str, values)) for values in (MEAN, STD)]
    serve(
        "import-onnx", file, "--out", out, "--resize", rule, "--filter", filter, "--output-kind",
        kind, "--mean", numbers[0], "--std", numbers[1], "--name", request.param,
    )  # fmt: skip
    return network, resize, size, filter, out


def serve(*arguments) -> str:
    done = subprocess.run(
        [PROGRAM, *map(str, arguments)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def images() -> list[Path]:
    return sorted(path for path in GOLDEN.iterdir() if path.suffix in {".png", ".jpg", ".webp"})


@pytest.fixture(scope="module")
def server(case) -> Iterator[str]:
    command = [PROGRAM, "serve", "--model", case[-1], "--listen", "127.0.0.1:0", "--sessions", "1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process.stdout.readline().removeprefix("listening on ").strip()
        finally:
            process.terminate()


def test_logits_over_http_are_pytorchs(case, server):
    network, resize, size, filter, _ = case
    checked = 0
    for path in images():
        request = urllib.request.Request(f"{server}/v1/score", path.read_bytes())
        try:
            with urllib.request.urlopen(request) as response:
                answer = json.load(response)
        except urllib.error.HTTPError as error:
            assert error.code in {413, 415, 422}, path
            continue
        pixels = prepare(Image.fromarray(decode(path)), resize, size, filter)
        values = torch.from_numpy(np.float32(pixels) / 255).permute(2, 0, 1)
        values = (values - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None]
        with torch.no_grad():
            output = network(values[None])[0]
        expected = float(output[-1] - output[0]) if len(output) == 2 else float(output[0])
        assert answer["logit_raw"] == pytest.approx(expected, abs=1e-4), path
        checked += 1
    assert checked >= 10


def test_pixels_are_pillows(case, tmp_path):
    """On the golden images and on 250 generated pictures of any size: 500 in both cases."""
    _, resize, size, filter, model = case
    rng = np.random.default_rng(3)
    for number in range(250):
        height, width = np.exp(rng.uniform(0, np.log(900), 2)).astype(int)
        smooth = rng.integers(0, 256, (max(1, height // 9), max(1, width // 9), 3), dtype=np.uint8)
        noise = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
        picture = (
            np.asarray(Image.fromarray(smooth).resize((width, height))) if number % 2 else noise
        )
        Image.fromarray(picture).save(tmp_path / f"{number}.png", compress_level=1)
    done = subprocess.run(
        [PROGRAM, "score", "--json", "--model", model, tmp_path, GOLDEN],
        capture_output=True,
        check=False,
        text=True,
    )
    assert done.returncode in {0, 2}, done.stderr
    answers = [line for line in map(json.loads, done.stdout.splitlines()) if "error" not in line]
    assert len(answers) >= 260
    for answer in answers:
        path = Path(answer["path"])
        pixels = prepare(Image.fromarray(decode(path)), resize, size, filter)
        assert answer["image"]["rgb256_sha256"] == hashlib.sha256(pixels.tobytes()).hexdigest(), (
            path
        )
