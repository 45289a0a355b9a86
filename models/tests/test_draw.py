"""What the training sees: no trace of the label but the pixels."""

import csv
import random

import numpy as np
import pytest
from PIL import Image
from test_data import guessed

from lfm import draw, halves, history, registry, web
from lfm.data import Source
from lfm.generate import Maker

SIDE = 64


def patterned(side: int, blue: int) -> np.ndarray:
    """Pixels that say where they lie: red the column, green the row, blue what is asked."""
    y, x = np.mgrid[0:side, 0:side]
    return np.uint8(np.stack([x % 256, y % 256, 0 * x + blue], -1))


def feed(**recipe) -> draw.Feed:
    """A source of pairs, a bucket of the web with few and with many, and a generator."""
    pairs = [Source("pairs", tuple([patterned(256, 100 * c)] * 6 for c in (0, 1)))]
    sides = [(320, 0, 12), (300, 100, 6)]
    bucket = tuple(
        [web.Picture(f"o{i % 3}", "", c, "lossless", patterned(side, blue)) for i in range(n)]
        for c, (side, blue, n) in enumerate(sides)
    )

    def generate(pixels):
        made = pixels.copy()
        made[..., 2] = 100
        return made

    return draw.Feed(
        pairs, {"lossless": bucket}, {"zoo": Maker(8, generate)}, draw.Recipe(**recipe)
    )


def labels_by_blue(pixels: np.ndarray) -> np.ndarray:
    return (pixels[..., 2].mean((1, 2)) > 50).astype(np.float32)


def test_crops_lie_at_even_offsets_and_are_balanced():
    pixels, labels, ids = feed(hard=0).batch(64, SIDE, random.Random(0))
    assert pixels.shape == (64, SIDE, SIDE, 3) and labels.sum() == 32 and len(ids) == 32
    assert (labels_by_blue(pixels) == labels).all()
    assert 1 < len({int(i) for i in ids})
    flipped = pixels[:, 0, 0, 0] > pixels[:, 0, 1, 0]
    assert 0 < flipped.sum() < 64


def test_couples_of_the_zoo_that_were_made_before_are_drawn():
    before = feed(pairs=0.0, web=0.0, zoo=1.0, hard=0)
    id, real, maker = before.original(random.Random(0))
    assert real.shape[0] == real.shape[1] >= 240 and not np.array_equal(real, maker.make(real))
    before.made = [(id, patterned(200, 0), patterned(200, 200))]
    pixels, _, ids = before.batch(20, SIDE, random.Random(1))
    assert (pixels[::2, ..., 2] == 0).all() and (pixels[1::2, ..., 2] == 200).all()
    assert (ids == id).all()


@pytest.mark.parametrize("kind", ["pairs", "zoo"])
def test_a_pair_is_cut_at_one_place(kind):
    shares = {"pairs": 0.0, "web": 0.0, "zoo": 0.0, kind: 1.0}
    pixels, _, _ = feed(**shares, hard=0).batch(40, SIDE, random.Random(1))
    assert np.array_equal(pixels[::2, ..., :2], pixels[1::2, ..., :2])


def test_both_classes_have_one_history(monkeypatch):
    """A decision tree on all that was done to a crop guesses its class no better than chance."""
    seen = []
    apply, recompress = history.apply, draw.recompress

    def record(pixels, steps):
        if pixels[0, 0, 2] in (0, 100):
            seen.append([int(pixels[..., 2].mean() > 50), len(steps), *map(str, steps[:2])])
        return apply(pixels, steps)

    def record_save(pixels, *save):
        seen[-1].append(str(save))
        return recompress(pixels, *save)

    monkeypatch.setattr(history, "apply", record)
    monkeypatch.setattr(draw, "recompress", record_save)
    feed(hard=0.7, lossy=0.4, zoo=0.0).batch(600, SIDE, random.Random(0))
    rows = [[*row[1:], None, None, None][:4] for row in seen]
    assert len(seen) == 600 and len({row[1] for row in rows}) > 100
    assert guessed(rows, [row[0] for row in seen]) < 0.55
    assert sum(row[1] is not None for row in rows) > 300


def test_the_worst_real_pictures_are_drawn_more_often():
    made = feed(pairs=0.0, web=1.0, zoo=0.0, hard=0)
    ids = made.buckets[0][0]
    made.saw(np.array([ids[4]]), np.array([1.0]))
    made.saw(np.array([ids[4]]), np.array([1.0]))
    made.mine()

    def times() -> int:
        _, _, drawn = made.batch(600, SIDE, random.Random(3))
        return int((drawn == ids[4]).sum())

    often = times()
    made.alarms[:] = 0
    made.mine()
    assert often > 2 * times()


def test_few_pictures_of_a_label_are_not_drawn_from():
    few = [web.Picture("o", "", c, "jpeg_0", patterned(256, 0)) for c in (0, 1)]
    made = draw.Feed([], {"jpeg_0": ([few[0]] * 50, [few[1]] * 4)}, {}, draw.Recipe())
    assert made.kinds == {}


@pytest.mark.parametrize("seed", range(40))
def test_a_history_leaves_the_square_that_it_promises(seed):
    steps = history.draw(random.Random(seed))
    side = history.needed(steps, 100)
    left = history.apply(patterned(side, 7), steps)
    assert min(left.shape[:2]) >= 100
    assert left.dtype == np.uint8 and steps == history.draw(random.Random(seed))


def test_histories_are_of_every_kind():
    names = {step[0] for seed in range(300) for step in history.draw(random.Random(seed))}
    assert names == set(history.STEPS) - {"webp"}


def test_a_turned_picture_has_no_empty_corner():
    turned = history.rotate(np.full((200, 300, 3), 200, np.uint8), 12.0)
    assert turned.min() == 200 and turned.shape[0] < 200


@pytest.mark.parametrize("method", history.DEMOSAICING)
def test_demosaicing_keeps_what_the_sensor_saw(method):
    """Laws: a flat picture stays; without noise each pixel keeps one colour, by the mosaic."""
    flat = np.full((12, 14, 3), (9, 120, 250), np.uint8)
    scene = np.random.default_rng(0).integers(0, 256, (12, 14, 3), np.uint8)
    for y in (0, 1):
        for x in (0, 1):
            assert (history.demosaic(flat, method, y, x, 0, 0) == flat).all()
            kept = history.demosaic(scene, method, y, x, 0, 0) == scene
            assert kept[y::2, x::2, 0].all() and kept[1 - y :: 2, 1 - x :: 2, 2].all()
            assert kept[y::2, 1 - x :: 2, 1].all() and kept[1 - y :: 2, x::2, 1].all()
            assert kept.mean() < 0.5, "the other two colours are interpolated"


@pytest.fixture
def listed(tmp_path):
    """A web folder: two origins of val2, others, stored in several ways."""
    rows = []
    for i, (origin, label, format, quality, chroma, stored) in enumerate(
        [
            ("McMaster", 0, "TIFF", "-", "-", "decoded"),
            ("Kolors", 1, "JPEG", "75", "4:2:0", "jpegtran"),
            ("street", 0, "JPEG", "92", "4:4:4", "jpegtran"),
            ("flux", 1, "JPEG", "93", "4:4:4", "jpegtran"),
            ("flux", 1, "JPEG", "93", "4:2:0", "jpegtran"),
            ("flux", 1, "PNG", "-", "-", "decoded; 8-px grid trace 1.9"),
            ("street", 0, "WEBP-lossy", "-", "-", "decoded"),
        ]
    ):
        path = f"{origin}/{label}/{i}.png"
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (256, 256)).save(tmp_path / path)
        rows.append({"path": path, "label": label, "orig_format": format, "jpeg_q": quality,
                     "chroma": chroma, "stored": stored})  # fmt: skip
    with (tmp_path / "MANIFEST.tsv").open("w") as file:
        writer = csv.DictWriter(file, list(rows[0]), delimiter="\t")
        writer.writeheader()
        writer.writerows(rows)
    return tmp_path


def test_web_pictures_are_parted_by_origin_and_by_how_they_are_stored(listed):
    kept, others = (web.pictures([listed], held_out=held) for held in (True, False))
    assert {p.origin for p in kept} == {"McMaster", "Kolors"}
    assert {p.origin for p in others} == {"street", "flux"}
    both = web.buckets(others)
    assert list(both) == ["jpeg_90_444", "lossless_once_lossy"]
    assert [len(side) for side in both["jpeg_90_444"]] == [1, 1]
    assert [[len(i) for i in s.images] for s in web.val2([listed])] == [[0, 1], [1, 0]]


def test_val2_is_what_the_card_says(shared):
    """At least three real origins, lossless among them, and three generators, with pictures."""
    kept = web.pictures([shared / "data/web"], held_out=True)
    fetched = {p.origin for p in registry.packages(registry.LIST.read_text())}
    assert {p.origin for p in kept} == halves.kept_out() - fetched
    real, fake = ({p.origin for p in kept if p.label == label} for label in (0, 1))
    assert len(real) >= 3 and len(fake) >= 3
    assert any(p.label == 0 and p.stored == "lossless" for p in kept)
    assert not {p.path for p in kept} & {
        p.path for p in web.pictures([shared / "data/web"], held_out=False)
    }
