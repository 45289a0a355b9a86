"""`lfm.translate`: a CycleGAN makes a fake with the photograph's tones."""

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch

from lfm import generate, generators, translate


@pytest.fixture
def photograph():
    y, x = np.mgrid[:48, :64] / 20
    return np.uint8(np.stack([np.sin(y), np.cos(x), np.sin(x + y)], 2) * 40 + 128)


def test_any_network_keeps_size_and_tones(photograph):
    torch.manual_seed(0)
    made = generators.generator(translate.Translator())(photograph)
    assert made.shape == photograph.shape and made.dtype == np.uint8
    assert np.abs(made - photograph.astype(float)).mean() > 5, "another picture"
    assert np.abs(made.mean((0, 1)) - photograph.mean((0, 1))).max() < 2


def test_a_picture_of_one_colour_stays_one():
    made = translate.toned(torch.zeros(1, 3, 4, 4), torch.full((1, 3, 4, 4), 0.5))
    assert torch.equal(made, torch.full((1, 3, 4, 4), 0.5))


@pytest.mark.skipif(not find_spec(translate.PACKAGE), reason="`make made` has not installed it")
def test_the_fake_has_the_content_of_its_photograph(photograph):
    assert translate.NAME not in generate.load_zoo(Path()), "too slow for a CPU"
    made = generate.load_zoo(Path(), [translate.NAME])[translate.NAME].make(photograph)
    assert np.corrcoef(made.ravel(), photograph.ravel())[0, 1] > 0.6
