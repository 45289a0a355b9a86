"""Runs the programs of docs/client.md unchanged."""

import base64
import collections
import http.server
import json
import os
import re
import subprocess
import sys
import threading

import pytest
import requests
from conftest import GOLDEN, ROOT, new_key, serving

PICTURE = GOLDEN / "orig_rocket.jpg"
PROGRAMS = {
    "score.sh": ["sh"],
    "score.py": [sys.executable],
    "batch.py": [sys.executable],
    "score.mjs": ["node"],
    "browser.js": None,
    "explain.sh": ["sh"],
}
SCORERS = ["score.sh", "score.py", "batch.py", "score.mjs"]


@pytest.fixture(scope="module")
def programs(tmp_path_factory):
    """Each fenced program of the document, by the name in its first line."""
    folder = tmp_path_factory.mktemp("client")
    blocks = re.findall(r"```(?:sh|python|js)\n((?:#|//) (\w+\.\w+): .*?)```", (ROOT / "docs/client.md").read_text(), re.S)
    for text, name in blocks:
        (folder / name).write_text(text)
    assert {name for _, name in blocks} == PROGRAMS.keys()
    return folder


def run(folder, name, url, *arguments, key=None):
    environment = os.environ | {"LFM_SERVER": url} | ({"LFM_KEY": key} if key else {})
    command = [*PROGRAMS[name], folder / name, *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)


@pytest.fixture(scope="module")
def server():
    with serving() as url:
        yield url


class Overloaded(http.server.ThreadingHTTPServer):
    """Sends a list of scripted answers in order, and counts requests."""

    def __init__(self, *answers):
        super().__init__(("127.0.0.1", 0), Answer)
        self.answers, self.asked = collections.deque(answers), 0
        self.bodies = []
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}"


class Answer(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        self.server.asked += 1
        self.server.bodies.append(self.rfile.read(int(self.headers["Content-Length"])))
        status, code = self.server.answers.popleft()
        if status == 0:
            # A replica that crashes.
            self.close_connection = True
            return
        if status == 200:
            body = {"verdict": "real", "score": 0.25, "warnings": ["no_signal"]}
            if code == "void":
                body = {"verdict": "uncertain", "score": None, "warnings": ["no_signal"]}
            if self.path.endswith("/batch"):
                body = {"results": [{"id": "0", "result": body}]}
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
def test_it_retries_after_retry_after(programs, name):
    with Overloaded((429, "overloaded"), (503, "draining"), (200, None)) as overloaded:
        ended = run(programs, name, overloaded.url, PICTURE)
        assert ended.returncode == 0, ended.stderr
        assert overloaded.asked == 3 and "0.25" in ended.stdout and "no_signal" in ended.stdout
        assert "overloaded" not in ended.stdout
        overloaded.shutdown()


@pytest.mark.parametrize("name", SCORERS)
def test_an_answer_without_a_score_is_no_failure(programs, name):
    with Overloaded((200, "void")) as server:
        ended = run(programs, name, server.url, PICTURE)
        assert ended.returncode == 0 and "uncertain" in ended.stdout and "no_signal" in ended.stdout, ended.stderr
        server.shutdown()


@pytest.mark.parametrize("name", ["score.py", "score.mjs"])
def test_it_retries_an_interrupted_request(programs, name):
    with Overloaded((0, None), (200, None)) as dying:
        ended = run(programs, name, dying.url, PICTURE)
        assert ended.returncode == 0 and dying.asked == 2, ended.stderr
        dying.shutdown()


def test_the_overlay_is_that_of_the_final_answer(programs, tmp_path):
    with Overloaded((429, "overloaded"), (200, None)) as overloaded:
        ended = run(programs, "explain.sh", overloaded.url, PICTURE, tmp_path / "overlay")
        assert ended.returncode == 0 and overloaded.asked == 2, ended.stderr
        assert json.loads((tmp_path / "overlay").read_text())["verdict"] == "real"
        overloaded.shutdown()


@pytest.mark.parametrize("name", SCORERS)
def test_it_does_not_retry_permanent_errors(programs, name):
    with Overloaded((415, "unsupported_format")) as refusing:
        ended = run(programs, name, refusing.url, PICTURE)
        assert ended.returncode != 0 and refusing.asked == 1
        assert "unsupported_format" in ended.stdout + ended.stderr
        refusing.shutdown()


@pytest.mark.parametrize("name", SCORERS)
def test_it_sends_its_key(programs, tmp_path, name):
    key, keys = new_key(tmp_path)
    with serving("--api-keys-file", str(keys)) as url:
        assert run(programs, name, url, PICTURE).returncode != 0
        ended = run(programs, name, url, PICTURE, key=key)
    assert ended.returncode == 0 and "real" in ended.stdout, ended.stderr


def test_it_saves_the_overlay(programs, server, tmp_path):
    ended = run(programs, "explain.sh", server, PICTURE, tmp_path / "overlay.png")
    assert ended.returncode == 0, ended.stderr
    assert (tmp_path / "overlay.png").read_bytes().startswith(b"\x89PNG")


def test_a_retried_batch_is_complete(programs, server):
    paths = [PICTURE, GOLDEN / "coffee_rgb.png"]
    ended = run(programs, "batch.py", server, *paths)
    assert ended.returncode == 0, ended.stderr
    assert [line.split()[1] in ("real", "fake", "uncertain") for line in ended.stdout.splitlines()] == [True, True]
    with Overloaded((429, "overloaded"), (503, "draining"), (415, "unsupported_format")) as overloaded:
        assert run(programs, "batch.py", overloaded.url, *paths).returncode != 0
        assert len(overloaded.bodies) == 3 and len(set(map(len, overloaded.bodies))) == 1
        assert all(PICTURE.read_bytes() in body for body in overloaded.bodies)
        overloaded.shutdown()


def test_a_batch_reports_which_picture_cannot_be_judged(programs, server, tmp_path):
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(PICTURE.read_bytes()[:1000])
    ended = run(programs, "batch.py", server, PICTURE, broken)
    assert ended.returncode != 0 and "real" in ended.stdout and "undecodable_image" in ended.stderr


JUDGE = """
const done = arguments[arguments.length - 1];
const bytes = Uint8Array.from(atob(arguments[1]), (letter) => letter.charCodeAt(0));
new Function(arguments[0] + "; return score;")()(new File([bytes], "picture")).then(done, (error) => done(String(error)));
"""


def judged_in(browser, programs, picture):
    text = (programs / "browser.js").read_text()
    return browser.execute_async_script(JUDGE, text, base64.b64encode(picture).decode())


def test_a_page_of_the_same_origin_scores(programs, server, browser):
    browser.get(server)
    assert judged_in(browser, programs, PICTURE.read_bytes())["verdict"] == "real"
    assert judged_in(browser, programs, b"no picture") == "Error: unsupported_format: " + requests.post(
        f"{server}/v1/score", data=b"no picture", timeout=30
    ).json()["detail"]
