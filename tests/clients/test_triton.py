"""Triton's own clients, unmodified from PyPI, sync and asyncio, over HTTP and gRPC."""

import base64
import gzip
import queue
import struct
import zlib

import numpy as np
import pytest
import requests
from conftest import GOLDEN
from tritonclient.utils import InferenceServerException

JPEGS = [GOLDEN / name for name in ["orig_rocket.jpg", "coffee_444_q95.jpg", "chelsea_exif6.jpg", "camera_gray_q88.jpg"]]
OUTPUTS = ["score", "logit", "verdict", "warnings", "topk_values", "topk_indices", "logit_raw", "declared"]


def files(client, paths):
    data = np.array([path.read_bytes() for path in paths], dtype=np.object_)
    return tensor(client, "image", data, "BYTES")


def tensor(client, name, data, datatype, **how):
    given = client.tensors.InferInput(name, list(data.shape), datatype)
    return given.set_data_from_numpy(data, **how)


def wanted(client, *names, **how):
    return [client.tensors.InferRequestedOutput(name, **how) for name in names]


def number(value):
    """Over gRPC, 64-bit numbers are strings in JSON, and zeros are omitted."""
    return int(value or 0)


def test_probes_and_metadata(client):
    assert client.is_server_live() and client.is_server_ready()
    assert client.is_model_ready("lfm") and client.is_model_ready("lfm", "3")
    server = client.message("get_server_metadata")
    assert server["name"] == "lfm-serve" and "statistics" in server["extensions"]
    for version in ["", "3"]:
        model = client.message("get_model_metadata", "lfm", version)
        assert (model["name"], model["versions"]) == ("lfm", ["3"])
        shapes = {t["name"]: (t["datatype"], [int(n) for n in t["shape"]]) for t in model["inputs"] + model["outputs"]}
        assert shapes["image"] == ("BYTES", [-1]) and shapes["pixels"] == ("UINT8", [-1, 256, 256, 3])
        assert shapes["logit"] == ("FP32", [-1]) and shapes["verdict"] == ("BYTES", [-1])
        assert shapes["topk_indices"] == ("INT64", [-1, 64, 16])


def test_config(client):
    config = client.message("get_model_config", "lfm")
    config = config if client.is_http else config["config"]
    assert (config["name"], number(config.get("max_batch_size"))) == ("lfm", 0)
    inputs = {given["name"]: given for given in config["input"]}
    assert inputs["image"]["data_type"] == "TYPE_STRING" and inputs["pixels"]["data_type"] == "TYPE_UINT8"
    assert [int(n) for n in inputs["pixels"]["dims"]] == [-1, 256, 256, 3]
    assert all(given["optional"] for given in config["input"])
    assert [given["name"] for given in config["output"]] == OUTPUTS


def test_statistics(client):
    def stats():
        model = client.message("get_inference_statistics", "lfm")["model_stats"][0]
        times = {part: number(model["inference_stats"][part].get("count")) for part in ["success", "compute_infer"]}
        batches = model.get("batch_stats", [])
        return times, sum(number(b["batch_size"]) * number(b["compute_infer"]["count"]) for b in batches)

    def pixels(count):
        # One region an image: of a file the server may run more.
        return tensor(client, "pixels", np.random.default_rng(0).integers(0, 256, (count, 256, 256, 3), np.uint8), "UINT8")

    client.infer("lfm", [pixels(1)])
    times, images = stats()
    client.infer("lfm", [pixels(3)])
    later, more = stats()
    assert later == {part: count + 3 for part, count in times.items()} and more == images + 3


@pytest.mark.parametrize("count", [1, 2, 4])
def test_files(client, triton, count):
    """JPEG inputs: every output equals /v1's answer, one by one or in a batch."""
    expected = [triton.score(path) for path in JPEGS[:count]]
    result = client.infer("lfm", [files(client, JPEGS[:count])], request_id="mine-1")
    answer = result.get_response()
    id = answer["id"] if client.is_http else answer.id
    assert id == "mine-1"
    logits = result.as_numpy("logit")
    assert logits.dtype == np.float32 and logits.shape == (count,)
    assert np.array_equal(logits, np.array([one["logit"] for one in expected], np.float32))
    assert np.array_equal(result.as_numpy("score"), np.array([one["score"] for one in expected], np.float32))
    assert [word.decode() for word in result.as_numpy("verdict")] == [one["verdict"] for one in expected]
    assert [words.decode() for words in result.as_numpy("warnings")] == [",".join(one["warnings"]) for one in expected]
    values, places = result.as_numpy("topk_values"), result.as_numpy("topk_indices")
    assert values.shape == places.shape == (count, 64, 16) and places.dtype == np.int64
    assert (np.diff(values, axis=2) <= 0).all() and places.min() >= 0 and places.max() < 900


@pytest.fixture(scope="module")
def picture(tmp_path_factory):
    """Pixels of the network's input size, and a PNG of them."""
    image = np.random.default_rng(8).integers(0, 256, (256, 256, 3), np.uint8)
    rows = b"".join(b"\0" + row.tobytes() for row in image)
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", 256, 256, 8, 2, 0, 0, 0)), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    framed = (struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks)
    path = tmp_path_factory.mktemp("picture") / "picture.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(framed))
    return path, image


def test_pixels(client, triton, picture):
    path, image = picture
    batch = np.stack([image, image[::-1], image])
    logits = client.infer("lfm", [tensor(client, "pixels", batch, "UINT8")]).as_numpy("logit")
    assert logits[0] == logits[2] == np.float32(triton.score(path)["logit"])
    assert logits[1] != logits[0]


def test_outputs_by_name(client):
    result = client.infer("lfm", [files(client, JPEGS[:1])], outputs=wanted(client, "verdict", "logit"))
    assert result.as_numpy("logit").shape == (1,) and result.as_numpy("score") is None


def test_json_tensors(client, triton, picture):
    if not client.is_http:
        pytest.skip("JSON is HTTP's")
    text = base64.b64encode(JPEGS[0].read_bytes())
    given = tensor(client, "image", np.array([text], dtype=np.object_), "BYTES", binary_data=False)
    result = client.infer("lfm", [given], outputs=wanted(client, *OUTPUTS, binary_data=False))
    assert result.as_numpy("logit")[0] == np.float32(triton.score(JPEGS[0])["logit"])
    assert result.as_numpy("topk_values").shape == (1, 64, 16)
    path, image = picture
    given = tensor(client, "pixels", image[None], "UINT8", binary_data=False)
    result = client.infer("lfm", [given], outputs=wanted(client, "logit"))
    assert result.as_numpy("logit")[0] == np.float32(triton.score(path)["logit"])


@pytest.mark.parametrize("algorithm", ["gzip", "deflate"])
def test_compression(client, triton, algorithm):
    how = {"compression_algorithm": algorithm}
    if client.is_http:
        how = {"request_compression_algorithm": algorithm, "response_compression_algorithm": algorithm}
    logits = client.infer("lfm", [files(client, JPEGS[:2])], **how).as_numpy("logit")
    assert np.array_equal(logits, np.array([triton.score(path)["logit"] for path in JPEGS[:2]], np.float32))
    with pytest.raises(InferenceServerException, match="unexpected inference input"):
        client.infer("lfm", [tensor(client, "x", np.array([b"x"], dtype=np.object_), "BYTES")], **how)


def test_errors_are_specific(client):
    bad = "400" if client.is_http else "StatusCode.INVALID_ARGUMENT"
    unknown = "404" if client.is_http else "StatusCode.NOT_FOUND"
    objects = lambda *items: np.array(items, dtype=np.object_)
    image = files(client, JPEGS[:1])
    short = client.tensors.InferInput("pixels", [1, 256, 256, 3], "UINT8")
    short._raw_data = short._raw_content = b"short"
    short._parameters = {"binary_data_size": 5} if client.is_http else {}
    cases = [
        ("lfm", [], {}, bad, "exactly one input"),
        ("lfm", [image, image], {}, bad, "exactly one input"),
        ("lfm", [tensor(client, "picture", objects(b"x"), "BYTES")], {}, bad, "unexpected inference input 'picture'"),
        ("lfm", [tensor(client, "image", np.zeros([1], np.uint8), "UINT8")], {}, bad, "expected BYTES"),
        ("lfm", [tensor(client, "pixels", np.zeros([1, 256, 256, 3], np.float32), "FP32")], {}, bad, "expected UINT8"),
        ("lfm", [tensor(client, "pixels", np.zeros([1, 3, 256, 256], np.uint8), "UINT8")], {}, bad, "shape"),
        ("lfm", [tensor(client, "pixels", np.zeros([256, 256, 3], np.uint8), "UINT8")], {}, bad, "shape"),
        ("lfm", [tensor(client, "image", objects(*[b"x"] * 65), "BYTES")], {}, bad, "limit of 64"),
        ("lfm", [tensor(client, "image", objects(), "BYTES")], {}, bad, "shape"),
        ("lfm", [tensor(client, "image", objects(b""), "BYTES")], {}, bad, "empty"),
        ("lfm", [tensor(client, "image", objects(b"no image"), "BYTES")], {}, bad, "This is text"),
        ("lfm", [short], {}, bad, "size of its shape"),
        ("lfm", [image], {"outputs": wanted(client, "nothing")}, bad, "unexpected inference output"),
        ("lfm", [image], {"outputs": wanted(client, "logit", class_count=2)}, bad, "classification"),
        ("lfm", [image], {"priority": 1}, bad, "priority"),
        ("resnet", [image], {}, unknown, "unknown model"),
        ("lfm", [image], {"model_version": "9"}, unknown, "unknown model"),
    ]
    for model, inputs, how, status, says in cases:
        with pytest.raises(InferenceServerException, match=says) as raised:
            client.infer(model, inputs, **how)
        assert raised.value.status() == status, says
    assert not client.is_http or not client.is_model_ready("resnet")
    for question in ["get_model_metadata", "get_model_config", "get_inference_statistics"]:
        with pytest.raises(InferenceServerException, match="unknown model"):
            getattr(client, question)("resnet")


def test_timeout(client):
    """A microsecond passes before the image is decoded."""
    late = "504" if client.is_http else "StatusCode.DEADLINE_EXCEEDED"
    with pytest.raises(InferenceServerException) as raised:
        client.infer("lfm", [files(client, JPEGS[:1])], timeout=1)
    assert raised.value.status() == late
    client.infer("lfm", [files(client, JPEGS[:1])], timeout=10_000_000)


def test_a_message_over_the_limit(client):
    """The server's limit is 8 MiB here."""
    with pytest.raises(InferenceServerException) as raised:
        client.infer("lfm", [tensor(client, "image", np.array([bytes(9 << 20)], dtype=np.object_), "BYTES")])
    assert raised.value.status() == ("413" if client.is_http else "StatusCode.RESOURCE_EXHAUSTED")


def test_a_compressed_message_over_the_limit(triton):
    packed = gzip.compress(bytes(100_000_000))
    answer = requests.post(
        f"http://{triton.http}/v2/models/lfm/infer", data=packed, headers={"Content-Encoding": "gzip"}, timeout=60
    )
    assert answer.status_code == 413 and "limit" in answer.json()["error"]


def test_async_infer(client, triton):
    """The sync clients' own API for concurrent calls."""
    if client.loop:
        pytest.skip("the asyncio clients await")
    expected = np.float32(triton.score(JPEGS[0])["logit"])
    given = [files(client, JPEGS[:1])]
    if client.is_http:
        results = [pending.get_result() for pending in [client.async_infer("lfm", given) for _ in range(4)]]
    else:
        done = queue.Queue()
        for _ in range(4):
            client.async_infer("lfm", given, callback=lambda result, error: done.put((result, error)))
        answers = [done.get(timeout=60) for _ in range(4)]
        assert all(error is None for _, error in answers)
        results = [result for result, _ in answers]
    assert all(result.as_numpy("logit")[0] == expected for result in results)
