"""The wheel alone: no checkout, no compiler, no NumPy, no Pillow; and the documents."""

import doctest
import json
import os
import shutil

import pytest

import lfm_serve
from conftest import PHOTO, ROOT

DOCTESTS = """
import doctest, sys, lfm_serve
assert not {"numpy", "PIL"} & set(sys.modules)
finder, runner = doctest.DocTestFinder(), doctest.DocTestRunner()
for name in ["__doc__", *lfm_serve.__all__]:
    # `module=False`: wherever the class is defined.
    thing = lfm_serve if name == "__doc__" else getattr(lfm_serve, name)
    for test in finder.find(thing, name, module=False, globs=vars(lfm_serve) | {"lfm_serve": lfm_serve}):
        runner.run(test)
tested = runner.summarize()
assert tested.attempted > 15 and tested.failed == 0, tested
"""


def test_it_needs_nothing_else(clean, elsewhere, scorer):
    line = "import lfm_serve; print(lfm_serve.Scorer().score('photo.jpg'))"
    ended = elsewhere(clean / "bin/python", "-c", line)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "real, score 0.0601\n", "")
    absent = elsewhere(clean / "bin/python", "-c", "import numpy")
    assert "No module named 'numpy'" in absent.stderr


def test_the_command_is_the_program_with_the_same_model(clean, elsewhere, scorer):
    ended = elsewhere(clean / "bin/lfm-serve", "score", "photo.jpg")
    assert ended.returncode == 0, ended.stderr
    line = json.loads(ended.stdout)
    result = scorer.score(PHOTO).to_dict()
    # The command also hashes the pixels, and says nothing of the model.
    del line["path"], line["image"]["rgb256_sha256"], result["model"]
    assert line == result
    assert elsewhere(clean / "bin/lfm-serve", "score", "absent.jpg").returncode == 2


def test_the_examples_of_the_docstrings_hold(clean, elsewhere):
    ended = elsewhere(clean / "bin/python", "-c", DOCTESTS)
    assert ended.returncode == 0, ended.stdout + ended.stderr


def test_the_tour_s_examples_hold(tmp_path, monkeypatch):
    """docs/python.md, top to bottom, as one session."""
    shutil.copy(PHOTO, tmp_path / "photo.jpg")
    shutil.copytree(
        ROOT / "tests/golden/images",
        tmp_path / "archive",
        ignore=lambda _, names: sorted(names)[8:],
    )
    monkeypatch.chdir(tmp_path)
    name = ROOT / "docs/python.md"
    failed, attempted = doctest.testfile(
        str(name), module_relative=False, optionflags=doctest.ELLIPSIS
    )
    assert attempted > 20 and failed == 0


def test_every_licence_and_the_bill_of_materials_are_in_it():
    files = os.path.join(os.path.dirname(lfm_serve.__file__), "_program_files")
    with open(os.path.join(files, "sbom.cdx.json")) as file:
        names = {component["name"] for component in json.load(file)["components"]}
    assert {"pyo3", "onnxruntime", "libjpeg-turbo", "lfm"} <= names
    with open(os.path.join(files, "LICENSES/rust-crates.txt")) as file:
        assert "\npyo3 0." in file.read()


@pytest.mark.parametrize(
    "name", ["bin/lfm-serve", "lib/libonnxruntime.so", "share/lfm-serve/model/manifest.json"]
)
def test_it_has_what_it_runs(name):
    assert os.path.exists(os.path.join(os.path.dirname(lfm_serve.__file__), "_program_files", name))
