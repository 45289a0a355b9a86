"""An answer sent before the body was read reaches common clients.

A server at capacity refuses a 20 MB upload by its head. Closing the connection then would make the kernel send a reset,
which can arrive before the answer; curl, Python's requests and a browser must all get the 429.
"""

import os
import subprocess

import pytest
import requests
from conftest import ONE_AT_ONCE, full, serving

BODY = os.urandom(20_000_000)


@pytest.fixture(scope="module")
def server():
    """A server whose only in-flight permit is taken."""
    with serving(*ONE_AT_ONCE) as url, full(url):
        yield url


@pytest.fixture
def upload(tmp_path):
    path = tmp_path / "upload.jpg"
    path.write_bytes(BODY)
    return path


@pytest.mark.parametrize("expect", ["Expect: 100-continue", "Expect:"])
@pytest.mark.parametrize("form", [["--data-binary", "@{}", "-H", "Content-Type: image/jpeg"], ["-F", "image=@{}"]])
def test_curl(server, upload, form, expect):
    command = ["curl", "-sS", "-i", "-H", expect, *[word.format(upload) for word in form], f"{server}/v1/score"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 0, ended.stderr
    head = ended.stdout.lower()
    assert "http/1.1 429" in head and "retry-after:" in head and "connection: close" in head
    assert '"code":"overloaded"' in head


@pytest.mark.parametrize("attempt", range(5))
def test_requests(server, upload, attempt):
    with upload.open("rb") as file:
        answer = requests.post(f"{server}/v1/score", data=file, headers={"Content-Type": "image/jpeg"}, timeout=60)
    assert answer.status_code == 429
    assert answer.json()["code"] == "overloaded"
    assert int(answer.headers["Retry-After"]) >= 1


def test_requests_multipart(server, upload):
    with upload.open("rb") as file:
        answer = requests.post(f"{server}/v1/score", files={"image": file}, timeout=60)
    assert answer.status_code == 429


def test_browser(server, browser):
    # A page of the server's own origin, to avoid cross-origin rules.
    browser.get(f"{server}/openapi.json")
    script = """
        const done = arguments[0];
        fetch('/v1/score', {method: 'POST', body: new Blob([new Uint8Array(20000000)], {type: 'image/jpeg'})})
            .then(async answer => done([answer.status, (await answer.json()).code]), error => done([0, String(error)]));
    """
    for _ in range(5):
        assert browser.execute_async_script(script) == [429, "overloaded"]
