"""What the Triton tests share: a server, and a client of each kind behind one face."""

import asyncio
import pathlib
import subprocess
import types

import pytest
import requests
import tritonclient.grpc as grpcclient
import tritonclient.grpc.aio
import tritonclient.http as httpclient
import tritonclient.http.aio

ROOT = pathlib.Path(__file__).parents[2]
GOLDEN = ROOT / "tests/golden/images"


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
    """What /v1 says of a file."""
    answer = requests.post(f"http://{address}/v1/score", data=path.read_bytes(), timeout=60)
    assert answer.status_code == 200
    return answer.json()


class Client:
    """One of the four clients; what it is asked is asked of tritonclient, awaited if need be."""

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
        """The answer of `name` as a dictionary of JSON, over either transport."""
        return getattr(self, name)(*args, **({} if self.is_http else {"as_json": True}))


@pytest.fixture(params=["http", "http-aio", "grpc", "grpc-aio"])
def client(request, triton):
    client = Client(request.param, triton)
    yield client
    client.close()
