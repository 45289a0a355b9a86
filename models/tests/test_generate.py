"""The images made for training: pairs that share all but the generator."""

import random

import numpy as np
import pytest
from PIL import Image
from test_data import guessed

torch = pytest.importorskip("torch")

from lfm import data, generate, generators


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Everything that needs no downloaded network, made in a few steps."""
    root = tmp_path_factory.mktemp("made")
    rng = np.random.default_rng(0)
    y, x = np.mgrid[0:512, 0:512]
    for i in range(8):
        smooth = np.stack([np.sin(x / (5 + i + c)) + np.cos(y / 9) for c in range(3)], -1)
        pixels = Image.fromarray(np.uint8(smooth * 50 + 120 + rng.normal(0, 4, smooth.shape)))
        for folder in ("train/s/0_real", "train/s/1_fake"):
            (root / folder).mkdir(parents=True, exist_ok=True)
            pixels.save(root / folder / f"{i}.png")
        for folder in ("pool/real_imagenet", "pool/fake_faces_jpeg512"):
            (root / folder).mkdir(parents=True, exist_ok=True)
            pixels.save(root / folder / f"{i}.jpg", quality=96 - i)
    argv = ["--data", root / "train", "--pool", root / "pool", "--out", root / "out",
            "--pairs", 6, "--steps", 30, "--only", "transposed_k4_x4", "shuffle_k3_x2"]  # fmt: skip
    assert generate.main([str(a) for a in argv]) == 0
    return root / "out"


def test_a_set_that_is_there_is_not_made_again(made, monkeypatch):
    monkeypatch.setattr(generate, "make", None)
    root = made.parent
    assert generate.main(["--data", str(root / "train"), "--out", str(made),
                          "--only", "transposed_k4_x4", "shuffle_k3_x2"]) == 0  # fmt: skip


def test_what_is_kept_out_of_training_lies_apart(made):
    assert [s.name for s in data.load(made / "train")] == ["transposed_k4_x4"]
    assert [s.name for s in data.load(made / "unseen")] == ["faces", "shuffle_k3_x2"]
    assert set(generate.UNSEEN) < {*generators.AUTOENCODERS, *generators.SUPER_RESOLUTIONS}


def test_the_label_follows_from_no_property_of_the_made_files(made):
    rows, labels = [], []
    for path in sorted(made.glob("*/*/*/*")):
        with Image.open(path) as image:
            tables = getattr(image, "quantization", {})
            rows.append([image.width, image.height, image.format, image.mode, tables])
        labels.append(data.LABELS[path.parent.name])
    assert len(labels) == 2 * (6 + 6 + 8) and guessed(rows, labels) < 0.55


def test_a_pair_has_one_content(made):
    for source in data.load(made / "train"):
        for real, fake in zip(*source.images, strict=True):
            assert real.shape == fake.shape == (256, 256, 3) and (real != fake).any()
            assert np.corrcoef(real.ravel(), fake.ravel())[0, 1] > 0.8


def test_histories_vary():
    pixels = np.random.default_rng(0).integers(0, 256, (500, 600, 3), np.uint8)
    rng = random.Random(0)
    seen = [generate.history(pixels, rng) for _ in range(20)]
    assert {p.shape for p in seen} == {(256, 256, 3)}
    spread = [float(np.diff(p.astype(int), axis=0).std()) for p in seen]
    assert max(spread) > 1.5 * min(spread)


@pytest.mark.parametrize("name", generators.AUTOENCODERS)
def test_every_way_of_doubling_keeps_the_size(name):
    photograph = np.random.default_rng(0).integers(0, 256, (256, 256, 3), np.uint8)
    model = generators.Autoencoder(generators.AUTOENCODERS[name]).eval()
    made = generators.autoencoder(model)(photograph)
    assert made.shape == photograph.shape and made.dtype == np.uint8


def test_a_blur_keeps_the_mean_and_learns_nothing():
    blur = generators.Blur(2)
    x = torch.zeros(1, 2, 5, 5)
    x[:, 0, 2, 2] = 16
    y = blur(x)
    assert y[0, 0, 1:4, 1:4].tolist() == [[1, 2, 1], [2, 4, 2], [1, 2, 1]] and not y[0, 1].any()
    assert not [p for p in blur.parameters() if p.requires_grad]
