"""Pixels in place of a file."""

import numpy as np
import PIL.Image
import pytest

import lfm_serve
from conftest import PHOTO


@pytest.mark.parametrize(
    "name", ["coffee_rgb.png", "x_coffee_64.png", "flower8.bmp", "chelsea_rgba.png", "coins_la.png"]
)
def test_pixels_are_judged_as_a_lossless_file_of_them(scorer, name):
    path = PHOTO.with_name(name)
    of_file = scorer.score(path)
    picture = PIL.Image.open(path)
    array = np.asarray(picture.convert("RGB"))
    # Views that are not contiguous are read as what they show.
    for pixels in (picture, array, np.asfortranarray(array), array[::-1][::-1]):
        result = scorer.score(pixels)
        assert result.logit == of_file.logit and result.verdict == of_file.verdict
        assert result.judged == of_file.judged and result.evidence == of_file.evidence
        assert (result.image.width, result.image.height) == picture.size
        assert (
            result.image.format
            is result.image.bytes
            is result.image.sha256
            is result.declared
            is None
        )


def test_pixels_of_a_jpeg_are_its_file_s_but_their_class_is_not(scorer):
    result = scorer.score(PIL.Image.open(PHOTO))
    of_file = scorer.score(PHOTO)
    assert result.logit_raw == of_file.logit_raw
    assert (result.evidence.class_, of_file.evidence.class_) == ("lossless", "jpeg_90_95")


@pytest.mark.parametrize("width", [1, 2, 3, 5, 300])
def test_rows_of_any_length_are_read(scorer, width, tmp_path):
    pixels = np.random.default_rng(width).integers(0, 256, (257, width, 3), dtype=np.uint8)
    PIL.Image.fromarray(pixels).save(tmp_path / "it.png")
    assert scorer.score(pixels).judged == scorer.score(tmp_path / "it.png").judged


def test_an_explanation_of_pixels_is_that_of_the_file(scorer):
    path = PHOTO.with_name("coffee_rgb.png")
    why = scorer.explain(PIL.Image.open(path), overlay=True)
    of_file = scorer.explain(path, overlay=True)
    assert why.attribution == of_file.attribution and why.overlay == of_file.overlay


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((9, 9)),
        np.zeros((9, 9), np.uint8),
        np.zeros((9, 9, 4), np.uint8),
        np.zeros((9, 9, 3), np.int8),
    ],
)
def test_other_arrays_are_errors_that_say_what_is_wanted(scorer, array):
    with pytest.raises(
        lfm_serve.ScoreError, match=r"bad_request: .*uint8 of shape \(height, width, 3\)"
    ):
        scorer.score(array)


@pytest.mark.parametrize("shape", [(0, 9, 3), (9, 0, 3), (0, 0, 3), (1, 70_000, 3)])
def test_sizes_that_no_image_has_are_errors(scorer, shape):
    with pytest.raises(lfm_serve.ScoreError, match="undecodable_image|image_too_large"):
        scorer.score(np.zeros(shape, np.uint8))


def test_what_pillow_cannot_read_is_an_error(scorer, tmp_path):
    (tmp_path / "cut.jpg").write_bytes(PHOTO.read_bytes()[:20_000])
    with pytest.raises(lfm_serve.ScoreError, match="undecodable_image: Pillow"):
        scorer.score(PIL.Image.open(tmp_path / "cut.jpg"))
