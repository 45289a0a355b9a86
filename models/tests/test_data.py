"""Images and their halves; the shared files tell nothing of the label."""

import numpy as np
import pytest
from PIL import Image
from sklearn.model_selection import StratifiedKFold, cross_val_score
from sklearn.tree import DecisionTreeClassifier

from lfm import data, evaluate


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


def test_halves_of_what_is_no_pairs_hold_every_picture_once():
    images = tuple([np.full((1, 1, 3), i, np.uint8) for i in range(n)] for n in (5, 8))
    halves = [data.Source("s", images).half(part).images for part in ("fit", "report")]
    assert [[len(images) for images in half] for half in halves] == [[3, 4], [2, 4]]
    for label, count in enumerate((5, 8)):
        values = [int(i[0, 0, 0]) for half in halves for i in half[label]]
        assert sorted(values) == list(range(count))


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


def test_two_views_are_the_sum_of_their_logits():
    noise = np.random.default_rng(0).integers(0, 256, (2, 300, 400, 3), np.uint8)
    source = data.Source("s", ([noise[0]], [noise[1]]))

    def scorer(pixels: np.ndarray) -> np.ndarray:
        return pixels.mean(axis=(1, 2, 3))

    both, *alone = (
        evaluate.score([source], scorer, how)["s"][0] for how in ("crop+resize", "crop", "resize")
    )
    assert both == pytest.approx(sum(alone)) and alone[0] != pytest.approx(alone[1])


def test_evaluate_wants_one_kind_of_data(capsys):
    for argv in (["models"], ["models", "data", "--web", "web"]):
        with pytest.raises(SystemExit):
            evaluate.main(argv)
        assert "give either data or --web" in capsys.readouterr().err
