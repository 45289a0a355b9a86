"""KServe's own Python client (REST and gRPC) and the client that open-inference.github.io generates, unmodified from PyPI.

Not here, because their dependencies exclude these: MLServer's `mlserver infer` (1.7.1; REST, one by one and in batches) and
PyTriton's ModelClient (0.7.0; HTTP and gRPC), which are built on tritonclient (tests/clients has it) and gave /v1's logit when run
by hand on 2026-11-27. seldon-core's client speaks Seldon's own protocol.
"""

import asyncio
import base64
import os
import pathlib
import subprocess
import types

import httpx
import kserve
import numpy as np
import pytest
from kserve.protocol.infer_type import InferInput, InferRequest, RequestedOutput
from open_inference.openapi.client import OpenInferenceClient
from open_inference.openapi.core.api_error import ApiError
from open_inference.openapi.types import InferenceRequest, RequestInput

ROOT = pathlib.Path(__file__).parents[2]
JPEGS = [ROOT / "tests/golden/images" / name for name in ["orig_rocket.jpg", "coffee_444_q95.jpg"]]


@pytest.fixture(scope="module")
def server():
    binary = os.environ.get("LFM_TEST_BINARY", ROOT / "target/release/lfm-serve")
    command = [binary, "serve", "--listen", "127.0.0.1:0", "--grpc-listen", "127.0.0.1:0",
               "--sessions", "1", "--drain-delay", "0s", "--log-level", "warn"]  # fmt: skip
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    http = process.stdout.readline().removeprefix("listening on ").strip()
    grpc = process.stdout.readline().removeprefix("listening for gRPC on ").strip()
    assert http and grpc
    yield types.SimpleNamespace(http=http, grpc=grpc)
    process.terminate()
    assert process.wait(30) == 0


@pytest.fixture(scope="module")
def logits(server):
    """What /v1 says of the files."""
    answers = [httpx.post(f"{server.http}/v1/score", content=path.read_bytes(), timeout=60) for path in JPEGS]
    return [answer.json()["logit"] for answer in answers]


def request(binary):
    image = InferInput("image", [len(JPEGS)], "BYTES")
    image.set_data_from_numpy(np.array([path.read_bytes() for path in JPEGS], dtype=np.object_), binary_data=binary)
    outputs = [RequestedOutput("logit", {"binary_data": binary}), RequestedOutput("verdict", {"binary_data": binary})]
    return InferRequest("lfm", [image], request_id="mine", request_outputs=outputs)


def check(answer, logits):
    assert answer.id == "mine" and answer.model_name == "lfm"
    outputs = {output.name: output for output in answer.outputs}
    assert outputs["logit"].as_numpy().tolist() == pytest.approx(logits, abs=1e-6)
    assert outputs["verdict"].as_numpy().size == len(logits)


def rest(server, ask):
    """What an answer of KServe's REST client is."""

    async def asked():
        async with kserve.InferenceRESTClient(kserve.RESTConfig(protocol="v2")) as client:
            return await ask(client, server.http)

    return asyncio.run(asked())


def grpc(server, ask):
    async def asked():
        async with kserve.InferenceGRPCClient(server.grpc) as client:
            return await ask(client)

    return asyncio.run(asked())


def test_health_over_rest(server):
    assert rest(server, lambda client, url: client.is_server_live(url)) is True
    assert rest(server, lambda client, url: client.is_server_ready(url)) is True
    assert rest(server, lambda client, url: client.is_model_ready(url, "lfm")) is True
    assert rest(server, lambda client, url: client.is_model_ready(url, "another")) is False


def test_health_over_grpc(server):
    assert grpc(server, lambda client: client.is_server_live()) is True
    assert grpc(server, lambda client: client.is_server_ready()) is True
    assert grpc(server, lambda client: client.is_model_ready("lfm")) is True


def test_inference_over_rest(server, logits):
    check(rest(server, lambda client, url: client.infer(url, request(True), "lfm")), logits)
    data = [base64.b64encode(path.read_bytes()).decode() for path in JPEGS]
    written = {"id": "mine", "inputs": [{"name": "image", "shape": [len(data)], "datatype": "BYTES", "data": data}]}
    check(rest(server, lambda client, url: client.infer(url, written, "lfm")), logits)


def test_inference_over_grpc(server, logits):
    check(grpc(server, lambda client: client.infer(request(True))), logits)


def test_an_error_is_shown(server):
    bad = {"inputs": [{"name": "image", "shape": [1], "datatype": "BYTES", "data": ["AAAA"]}]}
    with pytest.raises(httpx.HTTPStatusError, match="[a-z]{3}.*, '400 Bad Request'"):
        rest(server, lambda client, url: client.infer(url, bad, "lfm"))


def test_the_generated_client(server, logits):
    client = OpenInferenceClient(base_url=server.http)
    client.check_server_liveness()
    client.check_server_readiness()
    client.check_model_readiness("lfm")
    assert client.read_server_metadata().name == "lfm-serve"
    assert client.read_model_metadata("lfm").name == "lfm"
    data = [base64.b64encode(path.read_bytes()).decode() for path in JPEGS]
    image = RequestInput(name="image", shape=[len(data)], datatype="BYTES", data=data)
    answer = client.model_infer("lfm", request=InferenceRequest(id="mine", inputs=[image]))
    found = next(output for output in answer.outputs if output.name == "logit")
    assert found.data.__root__ == pytest.approx(logits, abs=1e-6)
    with pytest.raises(ApiError) as refused:
        client.read_model_metadata("another")
    assert refused.value.status_code == 404 and "another" in refused.value.body["error"]
