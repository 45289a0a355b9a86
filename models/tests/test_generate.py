"""The zoo: decoders that keep content and size, trained once, some of them kept out."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

torch = pytest.importorskip("torch")

from lfm import data, generate, generators


@pytest.fixture(scope="module")
def zoo(tmp_path_factory):
    root = tmp_path_factory.mktemp("zoo")
    rng = np.random.default_rng(0)
    y, x = np.mgrid[0:256, 0:256]
    for i in range(4):
        smooth = np.stack([np.sin(x / (5 + i + c)) + np.cos(y / 9) for c in range(3)], -1)
        pixels = Image.fromarray(np.uint8(smooth * 50 + 120 + rng.normal(0, 4, smooth.shape)))
        for folder in ("train/s/0_real", "train/s/1_fake"):
            (root / folder).mkdir(parents=True, exist_ok=True)
            pixels.save(root / folder / f"{i}.png")
    argv = ["--data", root / "train", "--out", root / "zoo", "--steps", 60,
            "--only", "transposed_k4_x4", "shuffle_k3_x2", "nearest_k3_x4_gan"]  # fmt: skip
    assert generate.main([str(a) for a in argv]) == 0
    return root / "zoo"


def test_a_decoder_that_is_there_is_not_trained_again(zoo, monkeypatch):
    monkeypatch.setattr(generators, "train", None)
    argv = ["--data", str(zoo.parent / "train"), "--out", str(zoo), "--only", "shuffle_k3_x2"]
    assert generate.main(argv) == 0


def test_what_is_held_out_is_not_loaded_for_training(zoo):
    at_hand = set(generate.load_zoo(zoo))
    assert {"transposed_k4_x4", "nearest_k3_x4_gan"} <= at_hand
    assert not at_hand & set(generators.HELD_OUT)
    assert set(generate.load_zoo(zoo, ["shuffle_k3_x2"])) == {"shuffle_k3_x2"}


def test_a_quarter_and_whole_kinds_are_held_out():
    held = set(generators.HELD_OUT)
    assert held < {*generators.ZOO, *generators.SUPER_RESOLUTIONS}
    enlarging = set(generators.SUPER_RESOLUTIONS)
    enlarging_held = enlarging & held
    assert len(enlarging_held) >= len(enlarging) / 4
    assert enlarging_held < enlarging
    held &= set(generators.ZOO)
    assert len(held) >= len(generators.ZOO) / 4
    kinds = {d.up for name, d in generators.ZOO.items() if name not in held}
    assert {generators.ZOO[name].up for name in held} - kinds == {"shuffle", "smoothed"}
    assert len(generators.ZOO) >= 60
    assert sum(d.gan for d in generators.ZOO.values()) >= len(generators.ZOO) / 3


def test_a_fake_has_the_content_of_its_photograph(zoo):
    photograph = data.decode(zoo.parent / "train/s/0_real/0.png")
    for maker in generate.load_zoo(zoo).values():
        made = maker.make(photograph)
        assert made.shape == photograph.shape and (made != photograph).any()
        assert np.corrcoef(made.ravel(), photograph.ravel())[0, 1] > 0.8


@pytest.mark.parametrize("name", generators.SUPER_RESOLUTIONS)
def test_a_super_resolution_keeps_size_and_content(name):
    pytest.importorskip("ncnn", reason="`make made` has not installed the networks")
    maker = generate.load_zoo(Path(), [name])[name]
    y, x = np.mgrid[: 17 * maker.block, : 13 * maker.block] / 20
    smooth = np.stack([np.sin(y), np.cos(x), np.sin(x + y)], 2)
    photograph = np.uint8(smooth * 40 + 128)
    made = maker.make(photograph)
    assert made.shape == photograph.shape
    error = np.square(made.astype(float) - photograph).mean()
    assert 10 * np.log10(255**2 / error) > 20


@pytest.mark.parametrize("name", generators.ZOO)
def test_every_way_of_growing_keeps_the_size(name):
    decoder = generators.ZOO[name]
    side = 48 // decoder.block * decoder.block
    photograph = np.random.default_rng(0).integers(0, 256, (side, side, 3), np.uint8)
    made = generators.generator(generators.Autoencoder(decoder).eval())(photograph)
    assert made.shape == photograph.shape and made.dtype == np.uint8


def test_a_blur_keeps_the_mean_and_learns_nothing():
    blur = generators.Blur(2)
    x = torch.zeros(1, 2, 5, 5)
    x[:, 0, 2, 2] = 16
    y = blur(x)
    assert y[0, 0, 1:4, 1:4].tolist() == [[1, 2, 1], [2, 4, 2], [1, 2, 1]] and not y[0, 1].any()
    assert not [p for p in blur.parameters() if p.requires_grad]


def test_a_rounded_code_has_levels_and_passes_its_gradient():
    x = torch.linspace(-2, 2, 50, requires_grad=True)
    y = generators.Code("vq")(x)
    assert torch.allclose(7 * y, (7 * y).round(), atol=1e-5)
    y.sum().backward()
    assert torch.allclose(x.grad, 1 - x.detach().tanh() ** 2)
