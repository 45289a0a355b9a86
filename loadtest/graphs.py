"""The end-to-end gain of lfm.cpu.onnx: the same server with and without it, interleaved: `make bench-graphs`.

Saturated by a closed loop with one picture; both servers run all the time, one of them idle. Standard library only.
"""

import argparse
import json
import pathlib
import shutil
import statistics
import tempfile
import time

from client import Address
from scheduler import saturate
from server import ROOT, Server

GRAPH = "lfm.cpu.onnx"
CLIENTS = 8


def without_the_graph(target: pathlib.Path) -> pathlib.Path:
    """A copy of the bundled model without the graph: the server runs lfm.onnx."""
    shutil.copytree(
        ROOT / "models", target, ignore=shutil.ignore_patterns("*.pth", GRAPH, "lfm", "tests", "__pycache__")
    )
    manifest = json.loads((target / "manifest.json").read_text())
    del manifest["files"][GRAPH]
    (target / "manifest.json").write_text(json.dumps(manifest))
    return target


def images_per_second(address: Address, image: bytes, seconds: float) -> float:
    began = time.monotonic()
    answers = saturate(address, image, CLIENTS, seconds)
    return len(answers) / (time.monotonic() - began)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--image", type=pathlib.Path, default=ROOT / "tests/golden/images/x_coffee_256.png")
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=4)
    arguments = parser.parse_args()
    image = arguments.image.read_bytes()
    with tempfile.TemporaryDirectory() as folder:
        model = without_the_graph(pathlib.Path(folder) / "model")
        with Server("--log-level", "warn") as ours, Server("--log-level", "warn", "--model", str(model)) as standard:
            rounds = []
            for _ in range(arguments.rounds + 1):
                rates = [images_per_second(server.address, image, arguments.seconds) for server in (ours, standard)]
                rounds.append((*rates, rates[0] / rates[1]))
    names = ("ours", "standard", "ours_over_standard")
    # The first round only warms up.
    for name, values in zip(names, zip(*rounds[1:], strict=True), strict=True):
        print(f"{name}: {statistics.median(values):.2f} ({min(values):.2f}-{max(values):.2f})")


if __name__ == "__main__":
    main()
