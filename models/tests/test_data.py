"""What the training sees: no trace of the label but the pixels, halves that share nothing."""

import random

import numpy as np
import pytest
from PIL import Image
from sklearn.model_selection import StratifiedKFold, cross_val_score
from sklearn.tree import DecisionTreeClassifier

from lfm import data, evaluate


@pytest.fixture
def sources() -> list[data.Source]:
    """Pixels that say where they lie: red the column, green the row, blue the class."""
    y, x = np.mgrid[0:256, 0:256]
    made = []
    for name, side in (("small", 256), ("large", 512)):
        y, x = np.mgrid[0:side, 0:side] % 256
        images = tuple([np.uint8(np.stack([x, y, 0 * x + 100 * c], -1))] * 6 for c in (0, 1))
        made.append(data.Source(name, images))
    return made


def test_crops_lie_at_even_offsets_and_are_balanced(sources):
    how = data.Augmentation(crop=64, resized=0)
    pixels, labels = data.batch(sources, 64, how, random.Random(0))
    assert pixels.shape == (64, 64, 64, 3) and labels.sum() == 32
    assert (pixels[..., 2].mean((1, 2)) == 100 * labels).all()
    flipped = pixels[:, 0, 0, 0] > pixels[:, 0, 1, 0]
    left = np.where(flipped, pixels[:, 0, -1, 0], pixels[:, 0, 0, 0])
    assert (left % 2 == 0).all() and (pixels[:, 0, 0, 1] % 2 == 0).all()
    assert 0 < flipped.sum() < 64 and len(set(left.tolist())) > 10


def test_both_classes_are_recompressed_alike(sources, monkeypatch):
    seen = []

    def record(pixels, *parameters):
        seen.append((int(pixels[0, 0, 2]) // 100, *parameters))
        return pixels

    monkeypatch.setattr(data, "recompress", record)
    how = data.Augmentation(crop=64, lossy=0.5, quality=80)
    data.batch(sources, 400, how, random.Random(0))
    real, fake = ([s[1:] for s in seen if s[0] == c] for c in (0, 1))
    assert real == fake and 60 < len(real) < 140
    assert {r[0] for r in real} == {"JPEG", "WEBP"} and {r[2] for r in real} == {"4:2:0", "4:4:4"}
    assert 80 <= min(r[1] for r in real) and max(r[1] for r in real) <= 100


def test_the_label_follows_from_no_parameter_of_the_augmentation(sources, monkeypatch):
    """A decision tree on what was done to a crop guesses its class no better than chance."""
    seen = []
    monkeypatch.setattr(data, "recompress", lambda pixels, *how: seen[-1].extend(how) or pixels)
    cut, shrink, filters = data._crop, data.shrink, []

    def record_shrink(pixels, factor, filter, least):
        filters.append(filter)
        return shrink(pixels, factor, filter, least)

    def record(pixels, side, lossy, rng):
        filter = filters.pop() if filters else None
        seen.append([int(pixels[0, 0, 2]) // 99, *pixels.shape[:2], filter, lossy is not None])
        return cut(pixels, side, lossy, rng)

    monkeypatch.setattr(data, "shrink", record_shrink)
    monkeypatch.setattr(data, "_crop", record)
    how = data.Augmentation(crop=64, lossy=0.6, quality=70, scaled=0.5)
    data.batch(sources, 1000, how, random.Random(0))
    rows = [[*row[1:5], *(row[5:] or [None, 0, None])] for row in seen]
    shrunk = [row for row in rows if row[2] is not None]
    assert 350 < len(shrunk) < 650 and {row[2] for row in shrunk} == set(data.FILTERS)
    assert min(row[0] for row in rows) >= 128  # half of the smallest
    assert guessed(rows, [row[0] for row in seen]) < 0.55


def test_an_image_is_shrunk_to_no_less_than_the_crop_needs():
    pixels = np.zeros((256, 300, 3), np.uint8)
    assert data.shrink(pixels, 0.5, data.FILTERS[0], least=100).shape == (128, 150, 3)
    assert data.shrink(pixels, 0.5, data.FILTERS[0], least=240).shape == (240, 281, 3)
    assert data.shrink(pixels, 0.5, data.FILTERS[0], least=400).shape == pixels.shape


def test_a_pair_is_cut_at_one_place():
    """Where the two images of a pair differ in one value alone, so do their crops."""
    rng = np.random.default_rng(0)
    real = [rng.integers(0, 255, (256, 256, 3), np.uint8) for _ in range(4)]
    source = data.Source("pairs", (real, [pixels + 1 for pixels in real]))
    how = data.Augmentation(crop=64, resized=0)
    pixels, labels = data.batch([source], 32, how, random.Random(0))
    assert np.array_equal(pixels[labels == 0] + 1, pixels[labels == 1])
    assert len({crop.tobytes() for crop in pixels}) > 24


@pytest.mark.parametrize("part", ["train", "val"])
def test_the_label_follows_from_no_property_of_the_shared_files(shared, part):
    """Neither from format, size, mode, quantisation tables nor chroma."""
    rows, labels = [], []
    for path in sorted((shared / "data" / part).glob("*/*/*")):
        with Image.open(path) as image:
            tables = getattr(image, "quantization", {})
            chroma = [c[1:3] for c in getattr(image, "layer", [])]
            rows.append([image.width, image.height, image.format, image.mode, tables, chroma])
        labels.append(data.LABELS[path.parent.name])
    assert len(labels) > 200 and guessed(rows, labels) < 0.55


def guessed(rows: list[list], labels: list[int]) -> float:
    """The share of labels that a decision tree gets right of rows it has not seen."""
    columns = [[str(value) for value in column] for column in zip(*rows, strict=True)]
    features = np.transpose([np.unique(column, return_inverse=True)[1] for column in columns])
    folds = StratifiedKFold(5, shuffle=True, random_state=0)
    return cross_val_score(
        DecisionTreeClassifier(random_state=0), features, labels, cv=folds
    ).mean()


def test_a_share_is_within_a_larger_one():
    images = tuple([np.full((1, 1, 3), 10 * c + i, np.uint8) for i in range(8)] for c in (0, 1))
    source = data.Source("s", images)
    few, more = ({int(i[0, 0, 0]) for i in source.share(share).images[0]} for share in (0.25, 0.5))
    assert len(few) == 2 and len(more) == 4 and few < more
    assert all(len(i) == 1 for i in source.share(0.01).images)


def test_halves_are_disjoint_pairs_and_whole():
    images = tuple([np.full((1, 1, 3), 10 * c + i, np.uint8) for i in range(9)] for c in (0, 1))
    source = data.Source("s", images)
    halves = [source.half(part) for part in ("fit", "report")]
    values = [[[int(i[0, 0, 0]) for i in images] for images in half.images] for half in halves]
    assert [len(real) for real, _ in values] == [5, 4]
    for real, fake in values:
        assert fake == [10 + v for v in real]
    assert sorted(values[0][0] + values[1][0]) == list(range(9))
    assert [[[int(i[0, 0, 0]) for i in im] for im in source.half("fit").images]] == values[:1]


@pytest.mark.parametrize(
    ("shape", "corner"), [((256, 256), (0, 0)), ((258, 260), (0, 2)), ((513, 259), (128, 0))]
)
def test_crop_takes_the_centre_at_an_even_offset(shape, corner):
    y, x = np.mgrid[0 : shape[0], 0 : shape[1]]
    pixels = np.uint8(np.stack([x % 256, y % 256, x // 256 + 2 * (y // 256)], -1))
    y, x = corner
    assert np.array_equal(data.crop(pixels), pixels[y : y + 256, x : x + 256])
    small = pixels[:200]
    assert np.array_equal(data.crop(small), data.resize(small))


def test_load_reads_the_layout_and_says_what_is_missing(tmp_path):
    for set_name in ("", "set/"):
        for label in data.LABELS:
            folder = tmp_path / f"{set_name}gan" / label
            folder.mkdir(parents=True)
            Image.new("L", (4, 2), 9).save(folder / "b.png")
    loaded = data.load(tmp_path)
    assert [s.name for s in loaded] == ["gan", "set/gan"]
    assert loaded[0].images[0][0].shape == (2, 4, 3)
    (tmp_path / "gan/1_fake/b.png").unlink()
    with pytest.raises(ValueError, match="1_fake"):
        data.load(tmp_path)


def test_figures():
    values, labels = np.array([3.0, -1, 2, -2]), np.array([1, 1, 0, 0])
    assert evaluate.figures(values, labels) == {
        "n": 4, "accuracy": 0.5, "average_precision": 0.8333, "real_accuracy": 0.5,
        "fake_accuracy": 0.5}  # fmt: skip
    assert evaluate.figures(values, labels, threshold=2.5)["real_accuracy"] == 1
