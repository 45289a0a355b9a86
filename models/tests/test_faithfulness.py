"""The contributions that the faithfulness figure blurs by are the logit's own."""

from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from lfm import faithfulness

MODEL = Path(__file__).resolve().parents[1]


def test_contributions_and_bias_are_the_logit(images):
    session = onnxruntime.InferenceSession(
        MODEL / "lfm.std.onnx", providers=["CPUExecutionProvider"]
    )
    places = [faithfulness.contributions(session, image) for image in images[::4]]
    [logits] = session.run(["logit"], {"pixels": images[::4]})
    bias = logits - [place.sum() for place in places]  # one and the same for every image
    assert np.ptp(logits) > 1 and bias == pytest.approx(np.full(len(bias), bias[0]), abs=1e-3)


def test_only_the_places_are_blurred():
    sharp, soft = np.zeros((256, 256, 3), np.uint8), np.full((256, 256, 3), 9, np.uint8)
    result = faithfulness.blurred(sharp, soft, np.array([31]))  # row 1, column 1
    assert (result[8:31, 8:31] == 9).all() and result.sum() == 9 * 3 * 23 * 23
    assert not sharp.any()
