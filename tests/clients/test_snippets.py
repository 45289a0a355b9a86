"""The programs of docs/client.md, run as they stand."""

import collections
import http.server
import json
import os
import pathlib
import re
import subprocess
import sys
import threading

from conftest import GOLDEN, ROOT, serving
import pytest

PICTURE = GOLDEN / "orig_rocket.jpg"
PROGRAMS = {"score.sh": ["sh"], "score.py": [sys.executable], "score.mjs": ["node"], "explain.sh": ["sh"]}
SCORERS = ["score.sh", "score.py", "score.mjs"]


@pytest.fixture(scope="module")
def programs(tmp_path_factory):
    """Each fenced program of the document, under the name that its first line gives it."""
    folder = tmp_path_factory.mktemp("client")
    blocks = re.findall(r"```(?:sh|python|js)\n((?:#|//) ([\w.]+): .*?)```", (ROOT / "docs/client.md").read_text(), re.S)
    for text, name in blocks:
        (folder / name).write_text(text)
    assert {name for _, name in blocks} == PROGRAMS.keys()
    return folder


def run(folder, name, url, *arguments, key=None):
    environment = os.environ | {"LFM_URL": url} | ({"LFM_KEY": key} if key else {})
    command = [*PROGRAMS[name], folder / name, *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)


@pytest.fixture(scope="module")
def server():
    with serving() as url:
        yield url


class Overloaded(http.server.ThreadingHTTPServer):
    """Answers what it is told to, one after the other, and counts."""

    def __init__(self, *answers):
        super().__init__(("127.0.0.1", 0), Answer)
        self.answers, self.asked = collections.deque(answers), 0
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}"


class Answer(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        self.server.asked += 1
        self.rfile.read(int(self.headers["Content-Length"]))
        status, code = self.server.answers.popleft()
        if status == 200:
            body = {"verdict": "real", "score": 0.25, "warnings": ["no_signal"]}
        else:
            body = {"code": code, "detail": "as told"}
        text = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(text)))
        self.send_header("X-Request-Id", "an-id")
        if status in (429, 503):
            self.send_header("Retry-After", "1")
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_):
        pass


@pytest.mark.parametrize("name", SCORERS)
def test_it_scores(programs, server, name):
    ended = run(programs, name, server, PICTURE)
    assert ended.returncode == 0, ended.stderr
    assert "real" in ended.stdout


@pytest.mark.parametrize("name", SCORERS)
def test_it_comes_back_when_told(programs, name):
    with Overloaded((429, "overloaded"), (503, "draining"), (200, None)) as overloaded:
        ended = run(programs, name, overloaded.url, PICTURE)
        assert ended.returncode == 0, ended.stderr
        assert overloaded.asked == 3 and "0.25" in ended.stdout and "no_signal" in ended.stdout
        overloaded.shutdown()


@pytest.mark.parametrize("name", SCORERS)
def test_it_does_not_repeat_what_cannot_succeed(programs, name):
    with Overloaded((415, "unsupported_format")) as refusing:
        ended = run(programs, name, refusing.url, PICTURE)
        assert ended.returncode != 0 and refusing.asked == 1
        assert "unsupported_format" in ended.stdout + ended.stderr
        refusing.shutdown()


@pytest.mark.parametrize("name", SCORERS)
def test_it_sends_its_key(programs, tmp_path, name):
    made = subprocess.run([ROOT / "target/release/lfm-serve", "key", "tester"], capture_output=True, text=True, check=True)
    words = (made.stdout + made.stderr).split()
    line = next(word for word in words if word.startswith("tester:"))
    key = max((word for word in words if word != line), key=len)
    keys = tmp_path / "keys"
    keys.write_text(line + "\n")
    with serving("--api-keys-file", str(keys)) as url:
        assert run(programs, name, url, PICTURE).returncode != 0
        ended = run(programs, name, url, PICTURE, key=key)
    assert ended.returncode == 0 and "real" in ended.stdout, ended.stderr


def test_it_saves_the_overlay(programs, server, tmp_path):
    ended = run(programs, "explain.sh", server, PICTURE, tmp_path / "overlay.png")
    assert ended.returncode == 0, ended.stderr
    assert (tmp_path / "overlay.png").read_bytes().startswith(b"\x89PNG")


def test_the_sentence_on_batches(server):
    """`files=` of the document, as written."""
    import requests

    paths = [PICTURE, GOLDEN / "coffee_rgb.png"]
    answer = requests.post(server + "/v1/score/batch", files=[("image", open(path, "rb")) for path in paths], timeout=60)
    assert [item["result"]["verdict"] for item in answer.json()["results"]]
    text = pathlib.Path(ROOT / "docs/client.md").read_text()
    assert 'files=[("image", open(path, "rb")) for path in paths]' in text
