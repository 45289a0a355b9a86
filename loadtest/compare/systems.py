"""The compared systems: how each is started, requested, parsed and counted."""

import json
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from client import Address, post
from server import BINARY, ROOT, metrics

PEERS = Path(__file__).parent / "peers"
DEADLINE_MS = 2000  # of every client; peers/detector.py has the same for the peers that have a setting for it


@dataclass(frozen=True)
class System:
    name: str
    command: Callable[[int, int], list]  # port, cores
    request: Callable[[bytes], bytes]
    logit: Callable[[bytes], float]
    # Images run so far, by address, if the system counts them itself; else peers/detector.py does.
    executed: Callable[[Address], int] | None = None

    @property
    def installed_by(self) -> str | None:
        """The make target; our own is built by `make build`."""
        if self.name == OURS:
            return None
        return "peer-furnace" if self.name == FURNACE else f"{venv(self.name).name}/.installed"


OURS, FURNACE = "lfm-serve", "furnace"


def venv(name: str) -> Path:
    """The virtual environment of a Python peer."""
    return ROOT / f".venv-peer-{name}"


def ours(port: int, cores: int) -> list:
    # One region: the crop at the centre, which is all that the peers judge. The drain delay only matters behind a load balancer.
    flags = {"listen": f"127.0.0.1:{port}", "regions": "1", "log-level": "warn", "drain-delay": "0s"}
    return [BINARY, "serve", *(f"--{name}={value}" for name, value in flags.items())]


def ours_executed(address: Address) -> int:
    return int(metrics(address)["lfm_batch_size_sum"])


def app(name: str) -> Callable[[int, int], list]:
    """A peer's program in its own virtual environment; it reads port and cores from the environment."""
    return lambda port, cores: [venv(name) / "bin/python", PEERS / f"{name}_app.py"]


def furnace(port: int, cores: int) -> list:
    return [ROOT / "target/peers/release/furnace-peer"]


def bentoml(port: int, cores: int) -> list:
    program = venv("bentoml") / "bin/bentoml"
    return [program, "serve", "bentoml_app:Score", "--working-dir", PEERS, "--host", "127.0.0.1", "--port", str(port)]


def raw(path: str, *headers: str) -> Callable[[bytes], bytes]:
    return lambda image: post(path, image, "content-type: application/octet-stream", *headers)


def multipart(path: str) -> Callable[[bytes], bytes]:
    def request(image: bytes) -> bytes:
        head = b'--x\r\ncontent-disposition: form-data; name="image"; filename="image"\r\n\r\n'
        return post(path, head + image + b"\r\n--x--\r\n", "content-type: multipart/form-data; boundary=x")

    return request


def triton(image: bytes) -> bytes:
    """Its binary tensor extension: a JSON head, then the file as one BYTES element after its length."""
    tensor = struct.pack("<I", len(image)) + image
    inputs = [{"name": "image", "datatype": "BYTES", "shape": [1, 1], "parameters": {"binary_data_size": len(tensor)}}]
    head = json.dumps({"inputs": inputs, "outputs": [{"name": "logit"}]}).encode()
    length = f"inference-header-content-length: {len(head)}"
    return post("/v2/models/lfm/infer", head + tensor, "content-type: application/octet-stream", length)


def field(body: bytes) -> float:
    return json.loads(body)["logit"]


def own_logit(body: bytes) -> float:
    """The network's own: `logit` is calibrated for the class of file, which the peers do not do."""
    return json.loads(body)["logit_raw"]


SYSTEMS = [
    System(OURS, ours, raw("/v1/score", f"x-request-timeout-ms: {DEADLINE_MS}"), own_logit, ours_executed),
    System("fastapi", app("fastapi"), raw("/score"), field),
    System("triton", app("triton"), triton, lambda body: json.loads(body)["outputs"][0]["data"][0]),
    System("mosec", app("mosec"), raw("/inference"), field),
    System("openvino", app("openvino"), raw("/inference"), field),
    System(FURNACE, furnace, raw("/score"), lambda body: json.loads(body)["output"][0]),
    System("litserve", app("litserve"), multipart("/predict"), field),
    System("bentoml", bentoml, lambda image: post("/score", image, "content-type: image/jpeg"), field),
    System("ray", app("ray"), raw("/score"), field),
]
FIRST = [OURS, "fastapi", "triton", "mosec"]  # of `make compare`; `make compare-all` takes all
