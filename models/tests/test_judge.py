"""The reference of the judgement, and the cases by which the service is tested."""

import io
import json
import random
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lfm import cases, evidence, judge
from lfm.data import crop

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("quality", [1, 30, 49, 50, 75, 90, 95, 100])
def test_the_quality_of_a_file_that_pillow_saved_is_found_again(quality, tmp_path):
    path = tmp_path / "a.jpg"
    Image.new("RGB", (256, 300)).save(path, quality=quality)
    with Image.open(path) as image:
        found = judge.quality(image.quantization[0])
        saved = io.BytesIO()
        image.save(saved, "JPEG", quality=found)
    with Image.open(saved) as again, Image.open(path) as image:
        assert again.quantization == image.quantization
    assert judge.class_of(path) == judge.jpeg_class(found)


def test_classes_of_files(tmp_path):
    picture = Image.fromarray(np.full((256, 256, 3), 9, np.uint8))
    black = Image.new("RGB", (256, 256))
    files = {"a.png": ({}, "lossless"), "b.webp": ({"lossless": True}, "lossless"),
             "c.webp": ({"quality": 80}, "webp_lossy"), "d.jpg": ({"quality": 95}, "jpeg_95"),
             "e.jpg": ({"quality": 94}, "jpeg_90_95"), "f.jpg": ({"quality": 89}, "jpeg_80_90"),
             "g.jpg": ({"quality": 70}, "jpeg_70_80"), "h.jpg": ({"quality": 69}, "jpeg_below_70"),
             "i.bmp": ({}, "lossless"), "j.tif": ({}, "lossless"),
             "extended.webp": ({"quality": 80, "icc_profile": b"odd"}, "webp_lossy"),
             "extended_l.webp": ({"lossless": True, "exif": b"Exif\0\0"}, "lossless"),
             "moves.webp": ({"quality": 80, "save_all": True, "append_images": [black]}, "webp_lossy"),
             }  # fmt: skip
    for name, (options, file_class) in files.items():
        picture.save(tmp_path / name, **options)
        assert judge.class_of(tmp_path / name) == file_class, name
    picture.crop((0, 0, 255, 256)).save(tmp_path / "k.jpg")
    assert judge.class_of(tmp_path / "k.jpg") == "small"


def test_regions_lie_inside_at_even_offsets_and_begin_with_the_centre():
    rng = random.Random(0)
    for _ in range(200):
        height, width = (rng.randint(256, 1500) for _ in range(2))
        for count in judge.COUNTS:
            places = judge.regions(height, width, count)
            assert 1 <= len(places) <= count
            assert places[0] == ((height - 256) // 2 // 2 * 2, (width - 256) // 2 // 2 * 2)
            for y, x in places:
                assert y % 2 == x % 2 == 0 and 0 <= y <= height - 256 and 0 <= x <= width - 256
    assert [len(judge.regions(2000, 1800, n)) for n in judge.COUNTS] == [1, 5, 9, 16]
    assert len(judge.regions(300, 300, 16)) == 1
    pixels = np.random.default_rng(0).integers(0, 256, (520, 600, 3), np.uint8)
    assert np.array_equal(judge.cut(pixels, 5)[0], crop(pixels))


MANIFEST = {
    "regions": {"auto": {"start": 1, "then": 5, "open_below": 1.0},
                "disagree": {"margin": 1.5, "voids": True}},
    "evidence": {
        "operating_point": {"false_alarms": 0.05, "misses": 0.10},
        "classes": {
            "lossless": {"regions": {
                "1": {"a": 2.0, "b": 1.0, "real": list(np.linspace(-5, 1, 60)),
                      "fake": list(np.linspace(0, 6, 40)), "n_real": 60, "n_fake": 40},
                "9": {"a": 1.0, "b": 0.0, "real": [0.0], "fake": [0.0]}}},
            "small": {"regions": {"1": {"a": 0.0, "b": 0.0, "real": [0.0] * 200,
                                        "fake": [0.0] * 200}}},
        },
    },
}  # fmt: skip


@pytest.mark.parametrize(
    ("raw", "verdict", "disagree"),
    [([0.5], "fake", False), ([-1.5], "real", False), ([-0.2], "uncertain", False),
     ([1.0, 1.0, 1.0, 1.0, -1.24], "fake", False), ([1, 1, 1, 1, -1.26], "uncertain", True)],
)  # fmt: skip
def test_verdicts(raw, verdict, disagree):
    found = judge.judge(MANIFEST, "lossless", raw)
    assert (found.verdict, found.regions_disagree) == (verdict, disagree)
    assert found.logit == pytest.approx(2 * np.mean(raw) + 1)
    assert 0 < found.real_at_or_above <= 1 and 0 < found.fake_at_or_below <= 1


def test_a_class_without_signal_is_uncertain_and_opens_no_more_regions():
    for raw in ([-9.0], [0.0], [9.0]):
        found = judge.judge(MANIFEST, "small", raw)
        assert (found.verdict, found.score) == ("uncertain", 0.5)
        assert not judge.opens(MANIFEST, "small", raw)
    assert judge.opens(MANIFEST, "lossless", [-0.2]) and not judge.opens(MANIFEST, "lossless", [1])


def test_a_number_of_regions_without_a_table_takes_the_next_smaller():
    assert (
        judge.table(MANIFEST, "lossless", 5)["a"] == 2 == judge.table(MANIFEST, "lossless", 8)["a"]
    )
    assert judge.table(MANIFEST, "lossless", 16)["a"] == 1


def test_both_sides_at_once_is_the_smaller_or_none():
    few = {"a": 1.0, "b": 0.0, "real": [0.0] * 30, "fake": [2.0] * 15}
    manifest = {**MANIFEST, "evidence": {**MANIFEST["evidence"], "classes": {
        "lossless": {"regions": {"1": few}}}}}  # fmt: skip
    assert judge.judge(manifest, "lossless", [1.0]).verdict == "fake"
    few["fake"] = [2.0] * 30
    assert judge.judge(manifest, "lossless", [1.0]).verdict == "uncertain"


def test_the_cases_of_the_service_are_of_the_bundled_manifest():
    """`python -m lfm.cases models tests/data/judge/cases.json` writes them anew."""
    manifest = json.loads((ROOT / "models/manifest.json").read_text())
    stored = json.loads((ROOT / "tests/data/judge/cases.json").read_text())
    assert stored == json.loads(json.dumps(cases.make(manifest)))
    assert {case["class"] for case in stored["cases"]} == set(judge.CLASSES)


def shots(shift: float) -> list[evidence.Shot]:
    """Four sources a label, the generated ones higher by `shift`."""
    rng = np.random.default_rng(0)
    return [
        evidence.Shot(f"s{label}{i % 4}", "g", label, name, "as stored",
                      float(rng.normal(shift * label)))
        for name in judge.CLASSES for label in (0, 1) for i in range(100)
    ]  # fmt: skip


def test_evidence_is_calibrated_and_holds_on_sources_left_out():
    classes, held = evidence.classes(shots(5.0))
    manifest = {**MANIFEST, "evidence": {**MANIFEST["evidence"], "classes": classes}}
    for name in judge.CLASSES:
        table = classes[name]["regions"]["1"]
        assert table["a"] > 0.5 and table["n_real"] == table["n_fake"] == 100
        kept = held[name]["sources_left_out"]
        assert kept["real_called_fake"] <= evidence.FALSE_ALARMS
        assert kept["fake_verdicts_right"] >= evidence.RIGHT
        assert judge.judge(manifest, name, [6.0]).verdict == "fake"
        assert judge.judge(manifest, name, [-1.0]).verdict == "real"


def test_evidence_without_signal_leaves_every_verdict_open():
    for shift in (0.0, -2.0):
        classes, held = evidence.classes(shots(shift))
        for name in judge.CLASSES:
            assert classes[name]["regions"]["1"]["a"] == 0, held[name]
            assert held[name]["sources_left_out"] is None


def test_a_source_of_its_own_raises_the_threshold():
    """One real source scores like the generated ones: with it left out, its pictures are called
    fake, so the evidence moves."""
    odd = shots(5.0)
    for shot in odd:
        if shot.source == "s00":
            shot.raw += 3.0
    _, held = evidence.classes(odd)
    _, even = evidence.classes(shots(5.0))
    for name, kept in held.items():
        assert kept["sources_left_out"] is None or kept["sources_left_out"]["shift_real"] > 0
        low, high = kept["average_precision_95"]
        assert low <= kept["average_precision"] <= high
        usual = even[name]["average_precision_95"]
        assert high - low > usual[1] - usual[0], "it is about sources, not pictures"


def test_weights_are_equal_for_labels_groups_sources_and_ways():
    made = [("a", "g", 0, "as stored")] * 3 + [("b", "g", 0, "as stored"), ("c", "h", 0, "median")]
    made += [("d", "g", 1, "as stored"), ("d", "g", 1, "median"), ("d", "g", 1, "turned")]
    table = evidence.Table([evidence.Shot(*m[:3], "lossless", m[3], 0.0) for m in made])
    expected = [1 / 12] * 3 + [1 / 4, 1 / 2] + [1 / 2, 1 / 4, 1 / 4]
    assert table.weight == pytest.approx(np.array(expected) / 2)


def test_every_way_ends_in_the_class_of_the_file_that_it_makes():
    for side, stored in ((256, "lossless"), (384, "jpeg_90_95"), (600, "lossless")):
        pixels = np.random.default_rng(0).integers(0, 256, (side, side, 3), np.uint8)
        picture = evidence.Picture("s", "g", 0, stored, pixels)
        seen = {}
        for number in range(6):
            for way, file_class, changed in evidence.ways(picture, number):
                assert (file_class == "small") == (min(changed.shape[:2]) < 256), way
                seen.setdefault(file_class, set()).add(way)
        assert set(seen) == set(judge.CLASSES)
        assert {"enlarged from 64", "median", "turned"} <= seen["lossless"]


def test_the_calibration_error_is_the_weighted_gap():
    scores = np.array([0.25, 0.25, 0.25, 0.75])
    error = evidence._calibration_error(scores, np.array([0, 0, 1, 1]), np.full(4, 0.25), 10)
    assert error == pytest.approx((abs(3 * 0.25 - 1) + abs(0.75 - 1)) / 4, abs=1e-4)
