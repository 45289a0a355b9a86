"""Shared by the tests of archives: an S3 server (moto) on loopback, whose answers can be made to fail, and the program."""

import contextlib
import io
import json
import os
import pathlib
import socket
import subprocess
import threading

import boto3
import pyarrow.parquet
import pytest
import requests
from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import WSGIRequestHandler, make_server

ROOT = pathlib.Path(__file__).parents[2]
BINARY = ROOT / "target/release/lfm-serve"
PICTURE = (ROOT / "tests/golden/images/x_coffee_64.png").read_bytes()


def picture(number):
    """A picture of 64x64 that is a file of its own: what follows a PNG's end is ignored."""
    return PICTURE + number.to_bytes(8, "little")


class Faulty:
    """An S3 server whose answers `fault` may replace: a function of the request, that answers or returns None."""

    def __init__(self):
        self.app = DomainDispatcherApplication(create_backend_app)
        self.fault = None
        self.lock = threading.Lock()

    def __call__(self, environ, start):
        answer = self.fault and self.fault(environ, start)
        return self.app(environ, start) if answer is None else answer

    def whole(self, environ):
        """moto's own answer: status, headers, body."""
        said = {}
        body = b"".join(self.app(environ, lambda status, headers, _=None: said.update(status=status, headers=headers)))
        return said["status"], said["headers"], body


def slow_down(_environ, start):
    """What S3 answers when it has too much to do."""
    body = b"<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"
    start("503 Slow Down", [("Content-Type", "application/xml"), ("Content-Length", str(len(body)))])
    return [body]


def reset(environ):
    """Ends the connection, wherever its answer is."""
    environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
    raise ConnectionResetError


class Quiet(WSGIRequestHandler):
    protocol_version = "HTTP/1.1"

    def log(self, *_):
        pass


class Bucket:
    """A bucket of its own for each test, and the program that scores what is in it."""

    def __init__(self, url, faulty, name):
        self.url, self.faulty, self.name = url, faulty, name
        self.s3 = boto3.client(
            "s3", endpoint_url=url, region_name="us-east-1", aws_access_key_id="k", aws_secret_access_key="s"
        )
        self.s3.create_bucket(Bucket=name)
        self.environment = os.environ | {
            "AWS_ENDPOINT": url,
            "AWS_ALLOW_HTTP": "true",
            "AWS_REGION": "us-east-1",
            "AWS_ACCESS_KEY_ID": "k",
            "AWS_SECRET_ACCESS_KEY": "s",
        }

    def put(self, key, body):
        return self.s3.put_object(Bucket=self.name, Key=key, Body=body)["ETag"]

    def keys(self, prefix, bucket=None):
        pages = self.s3.get_paginator("list_objects_v2").paginate(Bucket=bucket or self.name, Prefix=prefix)
        return [found["Key"] for page in pages for found in page.get("Contents", [])]

    def at(self, key):
        return f"s3://{self.name}/{key}"

    def command(self, source, out, *flags):
        return [BINARY, "score", "--from", source, "--out", out, "--part-rows", "7", *flags]

    def score(self, source, out, *flags, **environment):
        """Runs the program to its end: exit status, figures, log."""
        command = self.command(source, out, *flags)
        ended = subprocess.run(
            command, capture_output=True, text=True, env=self.environment | environment, cwd=ROOT, timeout=300
        )
        return ended.returncode, json.loads(ended.stdout or "null"), ended.stderr

    def rows(self, prefix, word="part", bucket=None):
        """The rows of a result below this key, in the order of its files."""
        rows = []
        for key in self.keys(f"{prefix}/{word}-", bucket):
            body = self.s3.get_object(Bucket=bucket or self.name, Key=key)["Body"].read()
            if key.endswith(".parquet"):
                rows += pyarrow.parquet.read_table(io.BytesIO(body)).to_pylist()
            else:
                rows += [json.loads(line) for line in body.splitlines()]
        return rows

    @contextlib.contextmanager
    def failing(self, fault):
        self.faulty.fault = fault
        try:
            yield
        finally:
            self.faulty.fault = None


@pytest.fixture(scope="session")
def server():
    faulty = Faulty()
    server = make_server("127.0.0.1", 0, faulty, threaded=True, request_handler=Quiet)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", faulty
    server.shutdown()
    thread.join()


@pytest.fixture
def bucket(server, request):
    url, faulty = server
    requests.post(f"{url}/moto-api/reset", timeout=60)
    return Bucket(url, faulty, request.node.name.replace("_", "-").split("[")[0][:60].rstrip("-"))
