"""Measures what the model takes in, and the curve that it is held against."""

import asyncio
import json
import os
import statistics
import subprocess
from contextlib import contextmanager

import images
from client import Answer, closed_loop, independent, open_loop, post, quantile
from model import Stages, line
from server import BINARY, ROOT, Server

SIZES = [(256, 256), (1024, 768), (2000, 1500), (4000, 3000)]
TYPICAL = (1024, 768)  # what a web page shows


def jpeg(size: tuple[int, int]) -> bytes:
    return images.encoded(size, "JPEG", {"quality": 90})


def megapixels(size: tuple[int, int]) -> float:
    return size[0] * size[1] / 1e6


def score(image: bytes) -> list[bytes]:
    return [post("/v1/score", image)]


@contextmanager
def pinned(cores: list[int]):
    """A server that runs on these cores alone; it takes them as it would take a smaller machine."""
    own = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        server = Server("--log-level", "warn")
    finally:
        os.sched_setaffinity(0, own)
    with server:
        yield server


def answers(found: list[Answer]) -> list[dict]:
    bad = [answer for answer in found if answer.status != 200]
    assert not bad, bad[:1]
    return [json.loads(answer.body) for answer in found]


def decode_times(server: Server, seconds: float) -> list[tuple[float, float]]:
    """(megapixels, seconds) by size: one client, so that the decoder has a core for itself."""
    points = []
    for size in SIZES:
        found = answers(asyncio.run(closed_loop(server.address, score(jpeg(size)), 1, seconds)))
        points.append((megapixels(size), statistics.median(one["timings_ms"]["decode"] for one in found) / 1000))
    return points


def batch_costs(core: int, rounds: int) -> dict[int, float]:
    """A run of so many images in runs of one, in turns."""
    command = [BINARY, "bench", "--only", "session", "--json", "--sessions", "1", "--batch-sizes", "1,2,4,8"]
    ended = subprocess.run(
        [*command, "--rounds", str(rounds)], cwd=ROOT, check=True, capture_output=True, text=True,
        preexec_fn=lambda: os.sched_setaffinity(0, [core]),
    )  # fmt: skip
    rows = json.loads(ended.stdout)["sessions"]["rows"]
    pace = {row["batch_size"]: row["images_per_second"]["median"] for row in rows}
    return {size: size * pace[1] / images_per_second for size, images_per_second in pace.items()}


def measure(seconds: float) -> tuple[Stages, dict]:
    """The stages, on one core with the client on another; and what else the document tells."""
    first, second = sorted(os.sched_getaffinity(0))[:2]
    batches = batch_costs(first, 3 if seconds < 3 else 20)
    own = os.sched_getaffinity(0)
    os.sched_setaffinity(0, [second])
    try:
        with pinned([first]) as server:
            points = decode_times(server, seconds / 2)
            image = jpeg(TYPICAL)
            asyncio.run(closed_loop(server.address, score(image), 1, 1))
            before = server.cpu_seconds()
            found = asyncio.run(closed_loop(server.address, score(image), 1, 3 * seconds))
            spent = server.cpu_seconds() - before
            memory = server.peak_mib()
    finally:
        os.sched_setaffinity(0, own)
    times = [one["timings_ms"] for one in answers(found)]
    runs = tuple(one["inference"] / 1000 for one in times)
    decode = statistics.median(one["decode"] for one in times) / 1000
    base, slope = line(points)
    overhead = max(0.0, spent / len(found) - decode - statistics.mean(runs))
    wait = statistics.median(answer.seconds for answer in found)
    transfer = max(0.0, wait - decode - statistics.median(runs) - overhead)
    stages = Stages(max(0.0, base), slope, overhead, runs, batches, transfer)
    return stages, {"decode_points": points, "image_bytes": len(image), "memory_mib": memory}


def curve(cores: list[int], client: list[int], rates: list[float], seconds: float) -> list[dict]:
    """Measured waits by load."""
    rows, own = [], os.sched_getaffinity(0)
    request = score(jpeg(TYPICAL))
    os.sched_setaffinity(0, client)
    try:
        with pinned(cores) as server:
            asyncio.run(closed_loop(server.address, request, 2 * len(cores), 1))
            for rate in rates:
                found = asyncio.run(open_loop(server.address, request, independent(rate, seconds)))
                waits = [answer.seconds for answer in found if answer.status == 200]
                rows.append({
                    "rate": rate, "images": len(found), "scored": len(waits),
                    "p50": quantile(waits, 0.5), "p99": quantile(waits, 0.99),
                })  # fmt: skip
    finally:
        os.sched_setaffinity(0, own)
    return rows
