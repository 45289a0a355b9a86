"""Shared by the wheel's tests: what is in the checkout, a server, and an environment that has the wheel alone."""

import contextlib
import os
import pathlib
import shutil
import subprocess
import sys

import pytest

import lfm_serve

ROOT = pathlib.Path(__file__).parents[2]
IMAGES = sorted((ROOT / "tests/golden/images").iterdir())
HOSTILE = sorted((ROOT / "tests/golden/hostile").iterdir())
PHOTO = ROOT / "tests/golden/images/orig_rocket.jpg"
TRAIN = ROOT / ".venv-train/bin/python"


@pytest.fixture(scope="session")
def scorer():
    with lfm_serve.Scorer() as scorer:
        yield scorer


@contextlib.contextmanager
def serving(*flags):
    """Runs a server on a free port; yields its address."""
    command = [ROOT / "target/release/lfm-serve", "serve", "--listen", "127.0.0.1:0", "--sessions", "1",
               "--drain-delay", "0s", "--log-level", "warn", *flags]  # fmt: skip
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    try:
        first = process.stdout.readline()
        assert first.startswith("listening on "), first
        yield first.removeprefix("listening on ").strip()
    finally:
        process.terminate()
        ended = process.wait(60)
    assert ended == 0


@pytest.fixture(scope="session")
def server():
    with serving() as url:
        yield url


@pytest.fixture(scope="session")
def wheel():
    wheels = list((ROOT / "dist").glob("lfm_serve-*.whl"))
    assert len(wheels) == 1, f"`make wheel` first: {wheels}"
    return wheels[0]


@pytest.fixture(scope="session")
def clean(wheel, tmp_path_factory):
    """The folder of an environment with nothing but the wheel."""
    folder = tmp_path_factory.mktemp("clean") / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    pip = [sys.executable, "-m", "pip", "--python", folder / "bin/python", "install", "--quiet"]
    subprocess.run([*pip, "--disable-pip-version-check", "--no-index", wheel], check=True)
    return folder


@pytest.fixture
def elsewhere(tmp_path):
    """Starts programs in a folder with a photograph and nothing of the checkout."""
    shutil.copy(PHOTO, tmp_path / "photo.jpg")

    def start(*command, **options):
        environment = {"PATH": "/nowhere", "HOME": str(tmp_path), "LC_ALL": "C.UTF-8"}
        environment |= options.pop("env", {})
        return subprocess.run(
            command,
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
            **options,
        )

    return start


@pytest.fixture
def fifo(tmp_path):
    """A file whose reader waits."""
    path = tmp_path / "fifo"
    os.mkfifo(path)
    return path
