"""The benches of passed-on pictures, of kinds and of collages: operations, counts, and a run with the program itself."""

import json
import shutil
import subprocess
import sys
import xml.etree.ElementTree
from pathlib import Path

import pytest
from PIL import Image

from lfm import collage, data, kinds, reship

ROOT = Path(__file__).resolve().parents[2]
GOLDEN = ROOT / "tests/golden/images"


@pytest.mark.parametrize("name", reship.OPERATIONS)
@pytest.mark.parametrize("size", [(300, 200), (64, 64), (7, 90), (1, 1)])
def test_every_operation_takes_every_size(name, size):
    made = reship.reopened(reship.OPERATIONS[name](Image.new("RGB", size, (90, 120, 30))))
    assert min(made.size) >= 1


def test_what_an_operation_does_to_the_size():
    image = Image.new("RGB", (600, 400))
    sizes = {
        name: reship.reopened(operation(image)).size
        for name, operation in reship.OPERATIONS.items()
    }
    assert sizes["enlarged twice"] == (1200, 800) and sizes["shrunk to 0.5"] == (300, 200)
    assert sizes["enlarged from 64 pixels"] == (600, 400) and sizes["corner of 200 pixels"] == (
        200,
        200,
    )
    assert sizes["rotated by 90 degrees"] == (400, 600) and sizes["to 512 pixels, JPEG 90"] == (
        512,
        341,
    )


def test_flips_are_counted_against_what_was_right():
    images = [(None, "a", "real")] * 3 + [(None, "a", "fake")] * 3
    verdicts = {
        "as stored": ["real", "real", "fake", "fake", "uncertain", "real"],
        "blurred": ["fake", "uncertain", "fake", "real", "real", None],
    }
    stored, blurred = reship.summary(images, verdicts)
    assert (
        stored["real"] == {"n": 3, "flipped": 0, "wrong": 1, "undecided": 0}
        and stored["coverage"] == 5 / 6
    )
    assert blurred["real"] == {"n": 3, "flipped": 1, "wrong": 2, "undecided": 1}
    assert (
        blurred["fake"] == {"n": 2, "flipped": 1, "wrong": 2, "undecided": 0}
        and blurred["coverage"] == 4 / 5
    )


def test_kinds_of_real_pictures_are_told_and_counted(tmp_path, capsys):
    rows = [
        ("DICM-LIME/0_real/a.jpg", "0", "DICM/LIME low-light set"),
        ("blog/0_real/b.jpg", "0", "EXIF FUJIFILM X-T5 | sw darktable 5.2.1"),
        ("blog/0_real/c.jpg", "0", "EXIF Canon EOS 5D"),
        ("flux/1_fake/d.jpg", "1", "Flux.1-dev"),
    ]
    lines = ["path\tlabel\tgenerator_or_camera", *map("\t".join, rows)]
    (tmp_path / "MANIFEST.tsv").write_text("\n".join(lines) + "\n")
    for path, _, _ in rows:
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(GOLDEN / "orig_rocket.jpg", tmp_path / path)
    kinds.main([str(tmp_path), "--binary", str(ROOT / "target/release/lfm-serve")])
    found = [line.split(" | ") for line in capsys.readouterr().out.splitlines()[2:]]
    counts = {cells[0].removeprefix("| "): cells[1:5] for cells in found}
    one, none = ["1", "0", "1", "0"], ["0", "0", "0", "0"]
    assert [counts[kind] for kind, _ in kinds.KINDS] == [one, none, none, one, one]
    assert counts[kinds.OTHER] == none

    (tmp_path / "seen.txt").write_text("# sources\nblog  a photo blog\n")
    unseen = ["--except", str(tmp_path / "seen.txt"), "--by", "class"]
    kinds.main([str(tmp_path), "--binary", str(ROOT / "target/release/lfm-serve"), *unseen])
    assert capsys.readouterr().out.splitlines()[2:] == ["| jpeg_90_95 | 1 | 0 | 1 | 0 | 0 |"]


def test_verdicts_are_counted_by_the_class_that_a_picture_ends_as():
    images = [(None, "a", "real")] * 2 + [(None, "a", "fake")] * 2
    judged = {
        "as stored": [("real", "lossless"), ("fake", "lossless"), ("fake", "lossless"), (None, None)],
        "JPEG 70": [("uncertain", "jpeg_70_80"), ("uncertain", "jpeg_70_80"), ("real", "jpeg_70_80"), ("fake", None)],
    }  # fmt: skip
    without, jpeg, lossless = sorted(
        reship.by_class(images, judged), key=lambda row: row["class"] or ""
    )
    assert without["class"] is None and without["fake"] == {"n": 1, "called": 1, "right": 1.0}
    assert jpeg["coverage"] == 1 / 3 and jpeg["real"] == {"n": 2, "called": 1, "right": 0.0}
    assert jpeg["fake"] == {"n": 1, "called": 0, "right": None}
    assert lossless["coverage"] == 1.0 and lossless["fake"] == {"n": 1, "called": 2, "right": 0.5}


def test_a_half_is_the_one_that_training_reports_on():
    images = [(f"{label}{i}", "a", label) for label in ("real", "fake") for i in range(9)]
    halves = [{image[0] for image in reship.half_of(images, part)} for part in ("fit", "report")]
    assert [len(half) for half in halves] == [10, 8] and not halves[0] & halves[1]
    source = data.Source(
        "a", tuple([f"{label}{i}" for i in range(9)] for label in ("real", "fake"))
    )
    reported = source.half("report").images
    assert halves[1] == {*reported[0], *reported[1]}


def test_a_run_with_the_program(tmp_path):
    for place, name in [("0_real/a.jpg", "orig_rocket.jpg"), ("1_fake/b.png", "coffee_rgb.png")]:
        file = tmp_path / "data/one" / place
        file.parent.mkdir(parents=True)
        shutil.copy(GOLDEN / name, file)
    (tmp_path / "data/one/1_fake/notes.txt").write_text("no picture")
    command = [sys.executable, "-m", "lfm.reship", tmp_path / "data", "--binary", ROOT / "target/release/lfm-serve",
               "--svg", tmp_path / "out/map.svg", "--json", tmp_path / "out/rows.json"]  # fmt: skip
    done = subprocess.run(command, cwd=ROOT / "models", capture_output=True, text=True, check=True)
    written = json.loads((tmp_path / "out/rows.json").read_text())
    rows, classes = written["operations"], written["classes"]
    assert [row["operation"] for row in rows] == ["as stored", *reship.OPERATIONS]
    assert all(row["n"] == 2 for row in rows)
    # A PNG holds the same pixels.
    assert rows[1]["real"]["flipped"] == rows[1]["fake"]["flipped"] == 0
    assert done.stdout.count("\n") == len(rows) + len(classes) + 5 and "notes.txt" in done.stderr
    assert xml.etree.ElementTree.parse(tmp_path / "out/map.svg").getroot().tag.endswith("svg")


def test_a_collage_has_its_centre_and_its_tiles(tmp_path):
    for name, colour in [("tile", (200, 0, 0)), ("middle", (0, 0, 200))]:
        Image.new("RGB", (300, 256), colour).save(tmp_path / f"{name}.png")
    for count in (2, 3):
        made = collage.collage([tmp_path / "tile.png"] * count**2, tmp_path / "middle.png", count)
        assert made.size == (256 * count,) * 2
        middle = 128 * count
        colours = [
            made.getpixel((at, middle))
            for at in (middle - 129, middle - 128, middle + 127, middle + 128)
        ]
        assert colours == [(200, 0, 0), (0, 0, 200), (0, 0, 200), (200, 0, 0)]


def test_collages_are_counted():
    verdicts = ("real", "uncertain", "real")
    of = [(512, "real", "generated", {"verdict": verdict}) for verdict in verdicts]
    of.append((512, "generated", "real", {"verdict": "fake"}))
    rows = collage.table(of).splitlines()[2:]
    assert rows == [
        "| 512 x 512 | real | generated | 3 | 0 | 2 | 1 |",
        "| 512 x 512 | generated | real | 1 | 1 | 0 | 0 |",
    ]
