"""Triton's perf_analyzer on a dedicated server: a concurrency sweep over HTTP and gRPC, with each of the two inputs;
each level is compared with the server's own metrics of the same time.

python perf_analyzer.py, from the virtual environment of `make perf-analyzer`.
"""

import base64
import itertools
import json
import os
import pathlib
import re
import struct
import subprocess
import sys
import sysconfig
import tempfile
import threading
import time
import urllib.request

ROOT = pathlib.Path(__file__).parents[1]
LEVELS = [1, 2, 4]
ROUTES = {"http": "/v2/models/{name}/infer", "grpc": "/inference.GRPCInferenceService/ModelInfer"}
# perf_analyzer is always linked with CUDA's runtime, and with libb64 (Debian: libb64-0d).
CUDA = pathlib.Path(sysconfig.get_paths()["purelib"], "nvidia/cuda_runtime/lib")
ENVIRONMENT = {**os.environ, "LD_LIBRARY_PATH": str(CUDA)}
PERF_ANALYZER = pathlib.Path(sys.executable).with_name("perf_analyzer")


def inputs(folder):
    """--input-data for each input: raw contents in base64, a BYTES element preceded by its length."""
    image = (ROOT / "tests/golden/images/orig_rocket.jpg").read_bytes()
    contents = {"image": (struct.pack("<I", len(image)) + image, [1]), "pixels": (os.urandom(196608), [1, 256, 256, 3])}
    for name, (raw, shape) in contents.items():
        tensor = {"content": {"b64": base64.b64encode(raw).decode()}, "shape": shape}
        (folder / f"{name}.json").write_text(json.dumps({"data": [{name: tensor}]}))


class Watch(threading.Thread):
    """Reads the server's metrics while perf_analyzer runs."""

    def __init__(self, address, route):
        super().__init__()
        self.url = f"http://{address}/metrics"
        labels = re.escape(f'{{route="{route}"}}')
        self.wanted = re.compile(rf"^lfm_http_request_duration_seconds_(sum|count){labels} (\S+)$", re.M)
        self.samples = []
        self.over = threading.Event()

    def run(self):
        while not self.over.wait(0.1):
            values = dict(self.wanted.findall(urllib.request.urlopen(self.url).read().decode()))
            self.samples.append((time.monotonic(), float(values["count"]), float(values["sum"])))

    def end(self):
        """Requests per second and milliseconds per request, without the first and last half second of the load."""
        self.over.set()
        self.join()
        busy = [now for before, now in itertools.pairwise(self.samples) if now[1] > before[1]]
        (began, first, spent), (ended, last, more) = busy[5], busy[-5]
        return (last - first) / (ended - began), (more - spent) / (last - first) * 1e3


def measure(protocol, address, metrics, name, level, folder):
    # A machine with other work is never stable: three windows are accepted as they are.
    command = [PERF_ANALYZER, "-m", "lfm", "-i", protocol, "-u", address, "--input-data", folder / f"{name}.json",
               "--concurrency-range", f"{level}:{level}", "-p", "1500", "-s", "200"]  # fmt: skip
    watch = Watch(metrics, ROUTES[protocol])
    watch.start()
    ended = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=120)
    ours = watch.end()
    assert ended.returncode == 0, ended.stdout + ended.stderr
    rate = re.search(r"Throughput: (\S+) infer/sec", ended.stdout)
    latency = re.search(r"Avg latency: (\S+) usec", ended.stdout)
    return (float(rate[1]), float(latency[1]) / 1e3), ours


def main():
    if b"libb64.so.0d" not in subprocess.check_output(["/sbin/ldconfig", "-p"]):
        subprocess.run([ROOT / "deploy/apt.sh", "libb64.so.0d:libb64-0d"], check=True)
    command = [ROOT / "target/release/lfm-serve", "serve", "--listen", "127.0.0.1:0", "--grpc-listen", "127.0.0.1:0",
               "--drain-delay", "0s", "--log-level", "warn"]  # fmt: skip
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    http = server.stdout.readline().removeprefix("listening on http://").strip()
    grpc = server.stdout.readline().removeprefix("listening for gRPC on ").strip()
    print("                        perf_analyzer            the server's metrics")
    print("                    images/s   latency ms      images/s   latency ms")
    try:
        with tempfile.TemporaryDirectory() as folder:
            folder = pathlib.Path(folder)
            inputs(folder)
            for name in ["image", "pixels"]:
                for protocol, address in [("http", http), ("grpc", grpc)]:
                    for level in LEVELS:
                        theirs, ours = measure(protocol, address, http, name, level, folder)
                        label = f"{name} {protocol} x{level}"
                        print(f"{label:18}{theirs[0]:10.1f}{theirs[1]:13.2f}{ours[0]:14.1f}{ours[1]:13.2f}", flush=True)
    finally:
        server.terminate()
        server.wait()


if __name__ == "__main__":
    main()
