"""Runs the commands of every document unchanged; those that cannot run here are listed with the reason."""

import contextlib
import json
import os
import re
import shutil
import struct
import subprocess
import time

import pytest
import requests
from conftest import GOLDEN, ROOT, serving

DOCUMENTS = [ROOT / "README.md", ROOT / "SECURITY.md", *sorted((ROOT / "docs").glob("*.md"))]
# For those who work on it: their flags are also those of other programs.
INNER = [ROOT / name for name in ["ARCHITECTURE.md", "CONTRIBUTING.md", "models/README.md", "loadtest/README.md"]]
BINARY = ROOT / "target/release/lfm-serve"
PROGRAMS = "make|cargo|curl|docker|kubectl|helm|python3|apt-get|kill|PYTHONPATH=\\S+|lfm-serve|target/release/lfm-serve"

# Commands within sentences, run by a test below.
RUN = {
    "lfm-serve serve --help",
    "lfm-serve --version",
    "lfm-serve doctor",
    "lfm-serve key NAME",
    "lfm-serve score --explain DIR",
    "lfm-serve errors",
    "lfm-serve healthcheck",
    "python3 gpu/roofline.py",
}
# `make` commands are only tested with `make --dry-run`: most are stages of this gate, the others take minutes or need
# data, a GPU or an idle machine.
NOT_RUN = {
    "lfm-serve bench": "names the command; tests/suite runs it",
    "lfm-serve decode-av1": "the program starts it itself; tests/suite/avif.rs",
    "lfm-serve decode-hevc": "the program starts it itself; tests/suite/heic.rs",
    "lfm-serve try-cuda-graphs": "the program starts it itself; tests/suite/cuda_graphs.rs",
    "lfm-serve calibrate": "names the command; tests/suite runs it",
    "lfm-serve evaluate --json": "names the form; tests/suite runs it",
    "lfm-serve evaluate --model models --model detector --combine both.json testset/": "tests/suite/combine.rs runs it on models of its own",
    "cargo check --release": "the gate's clippy does the same",
    "PYTHONPATH=models .venv-train/bin/python -m lfm.train --help": "needs PyTorch",
    "lfm-serve bench --only prepare": "measures for a minute; tests/suite runs `bench`",
    "cargo test --release --test suite sum_rule": "`make test` runs it",
    "PYTHONPATH=models .venv-train/bin/python -m lfm.faithfulness models ../shared/data/val": "needs PyTorch and the validation images",
    "lfm-serve score --from": "names the form; tests/bulk runs docs/bulk.md",
    "kubectl apply -k deploy/kubernetes/bulk": "no cluster; tests/deploy renders it",
    "lfm-serve score": "names the command; with an image it is run above",
    "kill -USR1": "names a signal; tests/suite sends it",
    "apt-get install cuda-libraries-13-0 libcudnn9-cuda-13 libnvinfer10 libnvonnxparsers10": "NVIDIA's repository",
    "apt-get install libde265-0": "changes the machine",
    "docker build --target cpu -t lfm-serve:0.1.0 .": "no container engine; `make image-proof` builds the same stages",
    "docker compose -f deploy/compose.yaml up --build": "no container engine; tests/deploy checks the file",
    "kubectl apply -k deploy/kubernetes/overlays/cpu": "no cluster; tests/deploy renders it",
    "kubectl create secret generic lfm-serve-keys --from-file=keys=FILE": "no cluster; tests/deploy runs it dry",
    "helm install lfm-serve deploy/helm/lfm-serve --set image.repository=REGISTRY/lfm-serve": "no cluster; tests/deploy runs it dry",
}
# Variables of the programs in docs/client.md, not of the server.
CLIENTS_OWN = {"LFM_SERVER", "LFM_KEY"}
# Flags of Docker and of perf_analyzer.
OTHERS = {"--read-only", "--target", "--input-data"}


def shell_blocks(document):
    """Fenced shell blocks, except named programs, which test_snippets.py runs."""
    return [
        text
        for text in re.findall(r"^```sh\n(.*?)^```", document.read_text(), re.S | re.M)
        if not re.match(r"# \w+\.\w+: ", text)
    ]


def named(document):
    """Commands within sentences and tables, and indented commands."""
    text = re.sub(r"^```.*?^```", "", document.read_text(), flags=re.S | re.M)
    found = re.findall(r"`([^`]+)`", text) + re.findall(r"^    (\S.*)$", text, re.M)
    return {" ".join(one.split()) for one in found if re.match(rf"(?:{PROGRAMS})\s", one)}


EVERYWHERE = set().union(*map(named, DOCUMENTS + INNER))
MAKE = sorted(one for one in EVERYWHERE if one.startswith("make "))


def test_no_command_is_forgotten():
    assert EVERYWHERE - set(MAKE) == RUN | NOT_RUN.keys()
    # Those of CONTRIBUTING need a nightly toolchain. models/tests/test_import_onnx.py runs those of models.md, with PyTorch, and
    # tests/bulk those of bulk.md.
    blocks = {document.name: len(shell_blocks(document)) for document in DOCUMENTS + INNER[:2]}
    expected = {"README.md": 2, "bulk.md": 3, "oip.md": 1, "models.md": 4, "calibrate.md": 1, "CONTRIBUTING.md": 2}
    assert {name: count for name, count in blocks.items() if count} == expected


@pytest.mark.parametrize("command", MAKE)
def test_make_knows(command):
    ended = subprocess.run(f"{command} --dry-run", shell=True, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 0, ended.stderr


def shell(command, folder=ROOT, **environment):
    """Runs a command unchanged, in a shell that stops at the first failure."""
    command = ["bash", "-euo", "pipefail", "-c", command]
    return subprocess.run(command, cwd=folder, env=os.environ | environment, capture_output=True, text=True, timeout=600)


def aimed_at(url, folder):
    """Configures curl to send requests for localhost:8080 to this server."""
    (folder / ".curlrc").write_text(f'silent\nconnect-to = "localhost:8080:{url.removeprefix("http://")}"\n')
    return {"CURL_HOME": str(folder)}


def until_ready(url):
    end = time.monotonic() + 120
    while requests.get(f"{url}/readyz", timeout=60).status_code == 503 and time.monotonic() < end:
        time.sleep(0.05)  # polling: a server in another process cannot notify us


@contextlib.contextmanager
def first_command(command, folder, place=ROOT):
    """Runs the command that starts the server in a place, on a free port; its build has been done before the tests."""
    (folder / "cargo").write_text("#!/bin/sh\n")
    (folder / "cargo").chmod(0o755)
    environment = os.environ | {
        "LFM_LISTEN": "127.0.0.1:0",
        "LFM_DRAIN_DELAY": "0s",
        "PATH": f"{folder}:{os.environ['PATH']}",
    }
    process = subprocess.Popen(["bash", "-c", f"exec {command}"], cwd=place, env=environment, stdout=subprocess.PIPE, text=True)
    try:
        # make prints its commands first.
        url = next(line.split()[-1] for line in process.stdout if line.startswith("listening on "))
        yield url
    finally:
        process.terminate()
        process.wait(60)


def test_the_first_two_commands_give_the_answer_below_them(tmp_path):
    serve, ask = shell_blocks(ROOT / "README.md")[0].splitlines()
    shown = json.loads(re.search(r"^```json\n(.*?)^```", (ROOT / "README.md").read_text(), re.S | re.M).group(1))
    with first_command(serve, tmp_path) as url:
        until_ready(url)
        ended = shell(ask, **aimed_at(url, tmp_path))
    assert ended.returncode == 0, ended.stderr
    answer = json.loads(ended.stdout)
    assert shape(answer) == shape(shown)
    for name in ("verdict", "threshold", "warnings", "model", "image"):
        assert answer[name] == shown[name], name
    assert answer["logit"] == pytest.approx(shown["logit"], abs=1e-3)


def shape(value):
    return {name: shape(inner) for name, inner in value.items()} if isinstance(value, dict) else None


@pytest.fixture
def workplace(tmp_path):
    """A folder with the files that README's commands use."""
    for name in ("target", "models"):
        (tmp_path / name).symlink_to(ROOT / name)
    (tmp_path / "other").symlink_to(ROOT / "models")
    shutil.copy(GOLDEN / "orig_rocket.jpg", tmp_path / "photo.jpg")
    for folder in ("uploads", "testset/camera/0_real", "testset/camera/1_fake"):
        (tmp_path / folder).mkdir(parents=True)
        shutil.copy(GOLDEN / "x_coffee_64.png", tmp_path / folder)
    return tmp_path


WITHOUT_A_SERVER = [line.split("  #")[0].strip() for line in shell_blocks(ROOT / "README.md")[1].splitlines()]


@pytest.mark.parametrize("command", WITHOUT_A_SERVER)
def test_it_runs_without_a_server(command, workplace):
    ended = shell(command, workplace)
    assert ended.returncode == 0 and ended.stdout, ended.stderr
    assert ("--explain why/" in command) == any((workplace / "why").glob("*.png"))
    assert ("--plot roc.svg" in command) == (workplace / "roc.svg").exists()


@pytest.mark.parametrize("command", sorted(RUN - {"lfm-serve healthcheck"}))
def test_what_is_named_runs(command, workplace):
    if not command.startswith("lfm-serve"):
        ended = shell(command)
    else:
        # Replaces the placeholder, and adds the images that `score` takes after its flags.
        command = command.replace("DIR", "why photo.jpg")
        ended = shell(f"target/release/{command}", workplace)
    assert ended.returncode == 0 and ended.stdout, ended.stderr


def test_the_protocols_commands_run(tmp_path):
    [block] = shell_blocks(ROOT / "docs/oip.md")
    with serving() as url:
        until_ready(url)
        ended = shell(block, **aimed_at(url, tmp_path))
        health = shell("target/release/lfm-serve healthcheck", LFM_URL=f"{url}/readyz")
    assert ended.returncode == 0, ended.stderr
    assert '"name":"lfm"' in ended.stdout and '"name":"verdict"' in ended.stdout
    assert health.returncode == 0, health.stderr


def grey(path, value):
    """A BMP of 256 x 256 pixels of one grey level."""
    pixels = bytes([value]) * (256 * 256 * 3)
    head = struct.pack("<IHHIIiiHHIIiiII", 54 + len(pixels), 0, 0, 54, 40, 256, 256, 1, 24, 0, len(pixels), 0, 0, 0, 0)
    path.write_bytes(b"BM" + head + pixels)


def test_the_commands_of_calibrate_run(tmp_path):
    """On the graph of tests/data/foreign, whose logit falls with the grey level."""
    [block] = shell_blocks(ROOT / "docs/calibrate.md")
    calibrate, serve = block.splitlines()
    (tmp_path / "lfm-serve").symlink_to(BINARY)
    importing = f"lfm-serve import-onnx {ROOT}/tests/data/foreign/tiny.onnx --out detector --resize both=8x12 --filter bicubic"
    importing += " --output-kind two-logits --mean 0.485,0.456,0.406 --std 0.229,0.224,0.225"
    for label, first in [("0_real", 125), ("1_fake", 40)]:
        folder = tmp_path / "testset/greys" / label
        folder.mkdir(parents=True)
        for value in range(first, first + 90):
            grey(folder / f"{value}{label}.bmp", value)
    for command in (importing, calibrate):
        ended = shell(command, tmp_path, PATH=f"{tmp_path}:{os.environ['PATH']}")
        assert ended.returncode == 0 and ended.stdout, ended.stderr
    with first_command(serve, tmp_path, tmp_path) as url:
        until_ready(url)
        evidence = requests.get(f"{url}/v1/model", timeout=60).json()["evidence"]
    assert evidence["classes"]["lossless"]["regions"]["1"]["a"] > 0


@pytest.fixture(scope="module")
def helps():
    def said(*command):
        return subprocess.run([BINARY, *command, "--help"], capture_output=True, text=True, check=True).stdout

    listed = re.search(r"^Commands:\n(.*?)\n\n", said(), re.S | re.M).group(1)
    return "".join(said(name) for name in re.findall(r"^  ([\w-]+)", listed, re.M) if name != "help")


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: document.name)
def test_its_settings_exist(document, helps):
    text = document.read_text()
    flags = set(re.findall(r"`(--[a-z][a-z-]+)", text)) - OTHERS
    variables = set(re.findall(r"\bLFM_[A-Z_]+\b", text)) - CLIENTS_OWN
    assert not [flag for flag in flags if not re.search(rf"{flag}\b(?!-)", helps)]
    assert not [variable for variable in variables if f"[env: {variable}=" not in helps]
