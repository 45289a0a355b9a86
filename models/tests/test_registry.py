"""`lfm.registry`: pictures out of packages, with a stub in place of npm."""

import io

import pytest
from PIL import Image

from lfm import registry, web


@pytest.fixture
def listed(tmp_path, npm):
    """A package of two pictures, which the stub `npm pack` hands out; returns its list of `label`."""
    files = {}
    for name, format, options in (
        ("a.jpg", "JPEG", {"quality": 92, "subsampling": "4:2:0"}),
        ("b.png", "PNG", {}),
    ):
        file = io.BytesIO()
        Image.new("RGB", (700, 300), "grey").save(file, format, **options)
        files[f"package/img/{name}"] = file.getvalue()
    digest = npm(files)

    def text(sha256=digest, pictures=tuple(files)):
        head = f"# comment\n\nnpm @some/photos@1.0.0 {sha256} real someone photographs of a demo\n"
        path = tmp_path / "list.txt"
        path.write_text(head + "".join(f"  {name}\n" for name in pictures))
        return path

    return text


def run(tmp_path, listed) -> int:
    return registry.main(["--out", str(tmp_path / "out"), "--list", str(listed)])


def test_pictures_come_as_they_are_and_web_reads_them(tmp_path, listed):
    assert run(tmp_path, listed()) == 0
    pictures = web.pictures([tmp_path / "out"], held_out=False)
    assert [(p.origin, p.label, p.stored) for p in pictures] == [
        ("someone", 0, "jpeg_90_420"),
        ("someone", 0, "lossless"),
    ]
    assert pictures[0].pixels.shape == (300, 640, 3), "the middle of a large picture"
    assert run(tmp_path, listed()) == 0
    assert (tmp_path / "runs").read_text() == "run\n", "what is there is not fetched again"


def test_another_archive_than_the_listed_one_is_refused(tmp_path, listed, capsys):
    assert run(tmp_path, listed(sha256="0" * 64)) == 1
    assert "its sha256 is" in capsys.readouterr().err
    assert not (tmp_path / "out/someone").exists()


def test_a_missing_picture_leaves_nothing(tmp_path, listed, capsys):
    assert run(tmp_path, listed(pictures=("package/img/a.jpg", "package/img/c.jpg"))) == 1
    assert "c.jpg" in capsys.readouterr().err
    assert not (tmp_path / "out/someone").exists()


def test_without_npm_it_says_so(tmp_path, listed, capsys, monkeypatch):
    text = listed()
    monkeypatch.setenv("PATH", str(tmp_path))
    assert run(tmp_path, text) == 1
    assert "npm is not installed" in capsys.readouterr().err


def test_the_list_names_each_picture_once():
    packages = registry.packages(registry.LIST.read_text())
    folders = [package.folder for package in packages]
    assert len(set(folders)) == len(folders) > 50
    for package in packages:
        assert package.registry in ("npm", "sdist", "wheel")
        assert package.label in registry.LABELS
        assert len(package.sha256) == 64 and package.pictures
        assert len(set(package.pictures)) == len(package.pictures)
