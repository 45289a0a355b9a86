"""Shared by the client tests: servers, a browser, and a common interface to Triton's clients."""

import asyncio
import contextlib
import pathlib
import socket
import subprocess
import types
import urllib.parse
import urllib.request

import pytest
import requests
import tritonclient.grpc as grpcclient
import tritonclient.grpc.aio
import tritonclient.http as httpclient
import tritonclient.http.aio
from selenium import webdriver

ROOT = pathlib.Path(__file__).parents[2]
GOLDEN = ROOT / "tests/golden/images"


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


def new_key(folder):
    """A new API key, and a keys file with it alone."""
    made = subprocess.run([ROOT / "target/release/lfm-serve", "key", "tester"], capture_output=True, text=True, check=True)
    words = (made.stdout + made.stderr).split()
    line = next(word for word in words if word.startswith("tester:"))
    (folder / "keys").write_text(line + "\n")
    return max((word for word in words if word != line), key=len), folder / "keys"


# Flags of a server for `full`.
ONE_AT_ONCE = ["--max-in-flight", "1", "--request-timeout", "1h", "--body-timeout", "1h", "--min-upload-rate", "0B"]


@contextlib.contextmanager
def full(url):
    """Holds the server's only in-flight permit with an upload that does not end."""

    def in_flight():
        lines = urllib.request.urlopen(f"{url}/metrics").read().decode().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("lfm_images_in_flight "))

    place = urllib.parse.urlsplit(url)
    with socket.create_connection((place.hostname, place.port)) as upload:
        upload.sendall(b"POST /v1/score HTTP/1.1\r\nhost: x\r\ncontent-length: 1000\r\n\r\n.")
        while in_flight() == 0:
            pass
        yield
    while in_flight() > 0:
        pass


@pytest.fixture(scope="module")
def browser():
    options = webdriver.ChromeOptions()
    options.binary_location = "/usr/bin/chromium"
    for flag in ["headless", "no-sandbox", "disable-gpu", "disable-quic", "no-first-run", "disable-background-networking",
                 "disable-component-update", "disable-sync", "disable-dev-shm-usage"]:  # fmt: skip
        options.add_argument(f"--{flag}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options, webdriver.ChromeService("/usr/bin/chromedriver"))
    driver.set_script_timeout(60)
    yield driver
    driver.quit()


@pytest.fixture(scope="session")
def triton():
    """A server with both transports: `http` and `grpc` are addresses."""
    command = [ROOT / "target/release/lfm-serve", "serve", "--listen", "127.0.0.1:0", "--grpc-listen", "127.0.0.1:0",
               "--sessions", "1", "--max-body-bytes", "8MiB", "--drain-delay", "0s", "--log-level", "warn"]  # fmt: skip
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    http = process.stdout.readline().removeprefix("listening on http://").strip()
    grpc = process.stdout.readline().removeprefix("listening for gRPC on ").strip()
    assert http and grpc
    yield types.SimpleNamespace(http=http, grpc=grpc, score=lambda path: score(http, path))
    process.terminate()
    assert process.wait(30) == 0


def score(address, path):
    """The answer of /v1 for a file."""
    answer = requests.post(f"http://{address}/v1/score", data=path.read_bytes(), timeout=60)
    assert answer.status_code == 200
    return answer.json()


class Client:
    """One of the four clients; calls are passed on to tritonclient, and awaited if asynchronous."""

    def __init__(self, kind, server):
        self.is_http = kind.startswith("http")
        self.tensors = httpclient if self.is_http else grpcclient
        aio = tritonclient.http.aio if self.is_http else tritonclient.grpc.aio
        address = server.http if self.is_http else server.grpc
        self.loop = asyncio.new_event_loop() if kind.endswith("aio") else None
        module = aio if self.loop else self.tensors
        self.client = self.run(lambda: module.InferenceServerClient(address))

    def run(self, call):
        if self.loop is None:
            return call()

        async def awaited():
            answer = call()
            return await answer if asyncio.iscoroutine(answer) else answer

        return self.loop.run_until_complete(awaited())

    def __getattr__(self, name):
        method = getattr(self.client, name)
        return lambda *args, **kwargs: self.run(lambda: method(*args, **kwargs))

    def message(self, name, *args):
        """The answer to the call `name` as a JSON dictionary, over either transport."""
        return getattr(self, name)(*args, **({} if self.is_http else {"as_json": True}))


@pytest.fixture(params=["http", "http-aio", "grpc", "grpc-aio"])
def client(request, triton):
    client = Client(request.param, triton)
    yield client
    client.close()
