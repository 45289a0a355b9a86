"""`import-onnx` on networks of timm and torchvision with random weights: the service gives PyTorch's logits, and the pixels
of torchvision's and timm's own transforms on Pillow's images."""

import hashlib
import json
import os
import re
import subprocess
import sys
import urllib.error
import urllib.request
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
import torchvision
from PIL import Image
from torch import nn
from torchvision import transforms

from lfm.data import decode

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = ROOT / "target/release/lfm-serve"
GOLDEN = ROOT / "tests/golden/images"
DOCUMENT = ROOT / "docs/models.md"
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def before_tensor(resize, filter: str, size: tuple[int, int]) -> transforms.Compose:
    """A detector's preprocessing until `ToTensor`."""
    resize = transforms.Resize(resize, transforms.InterpolationMode(filter))
    return transforms.Compose([resize, transforms.CenterCrop(size)])


VIT = {"img_size": (64, 96), "embed_dim": 48, "depth": 2, "num_heads": 1, "num_classes": 1}
SMALL = {
    "vit": (
        lambda: timm.models.VisionTransformer(**VIT),
        ("shorter=100", 100),
        ((64, 96), "bicubic", "logit"),
    ),
    "residual": (
        lambda: torchvision.models.ResNet(
            torchvision.models.resnet.BasicBlock, [1] * 4, num_classes=2
        ),
        ("both=256x250", (256, 250)),
        ((224, 224), "bilinear", "two-logits"),
    ),
}


@pytest.fixture(scope="module", params=list(SMALL))
def small(request, tmp_path_factory) -> tuple[nn.Module, transforms.Compose, Path]:
    """A small network, what stands before it, and its imported folder."""
    make, (rule, resize), (size, filter, kind) = SMALL[request.param]
    torch.manual_seed(7)
    network = spread(make().eval(), size)
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
    numbers = [",".join(map(str, values)) for values in (MEAN, STD)]
    done = subprocess.run(
        [
            PROGRAM, "import-onnx", file, "--out", out, "--resize", rule, "--filter", filter,
            "--output-kind", kind, "--mean", numbers[0], "--std", numbers[1], "--name", request.param,
        ],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return network, before_tensor(resize, filter, size), out


def spread(network: nn.Module, size: tuple[int, int]) -> nn.Module:
    """Random weights of which the last layer's are scaled, so that logits differ by more than a tolerance and less than
    float32's error: those of an untrained residual network are above a thousand."""
    last = [module for module in network.modules() if isinstance(module, nn.Linear)][-1]
    nn.init.normal_(last.weight)
    with torch.no_grad():
        last.weight /= network(torch.randn(8, 3, *size)).std()
    return network


def images() -> list[Path]:
    return sorted(path for path in GOLDEN.iterdir() if path.suffix in {".png", ".jpg", ".webp"})


@contextmanager
def serving(command: str, folder: Path) -> Iterator[str]:
    """The server's address while the command runs on a free port."""
    environment = os.environ | {
        "PATH": f"{PROGRAM.parent}:{os.environ['PATH']}", "LFM_LISTEN": "127.0.0.1:0",
        "LFM_SESSIONS": "1", "LFM_DRAIN_DELAY": "0s",
    }  # fmt: skip
    with subprocess.Popen(
        ["bash", "-c", f"exec {command}"], cwd=folder, env=environment, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
    ) as process:  # fmt: skip
        try:
            yield process.stdout.readline().removeprefix("listening on ").strip()
        finally:
            process.terminate()


def holds_to_pytorch(
    url: str, network: nn.Module, prepare: Callable[[Image.Image], torch.Tensor]
) -> None:
    """Compares every golden image's logit with PyTorch's."""
    expected, found = [], []
    for path in images():
        request = urllib.request.Request(f"{url}/v1/score", path.read_bytes())
        try:
            with urllib.request.urlopen(request) as response:
                found.append(json.load(response)["logit_raw"])
        except urllib.error.HTTPError as error:
            assert error.code in {413, 415, 422}, path
            continue
        with torch.no_grad():
            output = network(prepare(Image.fromarray(decode(path)))[None])[0]
        expected.append(float(output[-1] - output[0]) if len(output) == 2 else float(output[0]))
    assert len(found) >= 20 and np.std(expected) > 0.1
    assert np.abs(np.subtract(found, expected)).max() <= 1e-4


def judge_of(url: str, name: str) -> str:
    """The model that judges a golden image."""
    request = urllib.request.Request(f"{url}/v1/score", (GOLDEN / name).read_bytes())
    with urllib.request.urlopen(request) as response:
        return json.load(response)["model"]["name"]


def labelled(folder: Path) -> None:
    """Pictures that the bundled model tells apart: strong noise, and weak noise on waves."""
    rng = np.random.default_rng(5)
    y, x = np.mgrid[:256, :256]
    for number in range(90):
        noise = rng.integers(0, 256, (256, 256))
        wave = 128 + 60 * np.sin(x / 17 + number) + 30 * np.cos(y / 11)
        for side, picture in [("0_real", 100 + noise / 8), ("1_fake", wave + noise / 32)]:
            (folder / side).mkdir(parents=True, exist_ok=True)
            grey = picture.clip(0, 255).astype(np.uint8)
            Image.fromarray(grey).convert("RGB").save(folder / side / f"{side}{number}.png")


def test_logits_over_http_are_pytorchs(small):
    network, before, out = small
    prepare = transforms.Compose([before, transforms.ToTensor(), transforms.Normalize(MEAN, STD)])
    with serving(f"lfm-serve serve --model {out}", out) as url:
        holds_to_pytorch(url, network, prepare)


def test_pixels_are_pillows(small, tmp_path):
    """On the golden images and on 250 generated pictures of any size: 500 in both cases."""
    _, before, model = small
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
        pixels = np.asarray(before(Image.fromarray(decode(path))))
        assert answer["image"]["rgb256_sha256"] == hashlib.sha256(pixels.tobytes()).hexdigest(), (
            path
        )


def test_the_documents_commands_lead_from_a_checkpoint_to_pytorchs_logits(tmp_path):
    """Every block of docs/models.md, unchanged and in its order."""
    torch.manual_seed(7)
    vit = spread(timm.create_model("vit_small_patch16_384", num_classes=1).eval(), (384, 384))
    resnet = spread(torchvision.models.resnet50(num_classes=2).eval(), (224, 224))
    torch.save(vit.state_dict(), tmp_path / "detector.pth")
    torch.save(resnet.state_dict(), tmp_path / "resnet50.pth")
    labelled(tmp_path / "testset/camera")
    prepares = {
        "detector": timm.data.create_transform(**timm.data.resolve_model_data_config(vit)),
        "resnet50": transforms.Compose(
            [before_tensor(256, "bilinear", (224, 224)), transforms.ToTensor(), transforms.Normalize(MEAN, STD)]
        ),
    }  # fmt: skip
    networks = {"detector": vit, "resnet50": resnet}
    (tmp_path / "models").symlink_to(ROOT / "models")
    blocks = re.findall(
        r"^```(sh|python)\n(.*?)^```", DOCUMENT.read_text(), re.DOTALL | re.MULTILINE
    )
    assert [language for language, _ in blocks] == ["python", "sh", "python", "sh", "sh", "sh"]
    environment = os.environ | {"PATH": f"{PROGRAM.parent}:{os.environ['PATH']}"}
    for language, text in blocks:
        if language == "python":
            commands, serve = [sys.executable, "-W", "ignore", "-c", text], None
        else:
            text, serve = text.rstrip().rsplit("\n", 1)
            commands = ["bash", "-euo", "pipefail", "-c", text]
        done = subprocess.run(
            commands, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        if serve:
            assert serve.startswith("lfm-serve serve --model ")
            models = re.findall(r"--model (\S+)", serve)
            with serving(serve, tmp_path) as url:
                if len(models) == 1:
                    holds_to_pytorch(url, networks[models[0]], prepares[models[0]])
                elif "--combine" in serve:
                    assert judge_of(url, "orig_rocket.jpg") == "lfm+my-vit"
                else:
                    assert judge_of(url, "orig_rocket.jpg") == "my-vit"
                    assert judge_of(url, "coffee_rgb.png") == "lfm"
