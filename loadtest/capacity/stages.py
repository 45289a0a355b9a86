"""Measures the model's inputs, and the curve that it is compared with."""

import asyncio
import json
import os
import statistics
import time
from collections import Counter
from contextlib import contextmanager

import images
from client import Answer, closed_loop, independent, open_loop, post, quantile
from model import Stages, line, waits
from server import Server, bare_sessions

SIZES = [(256, 256), (1024, 768), (2000, 1500), (4000, 3000)]
TYPICAL = (1024, 768)  # as on a web page


def jpeg(size: tuple[int, int]) -> bytes:
    return images.encoded(size, "JPEG", {"quality": 90})


def megapixels(size: tuple[int, int]) -> float:
    return size[0] * size[1] / 1e6


def score(image: bytes) -> list[bytes]:
    return [post("/v1/score", image)]


@contextmanager
def pinned(cores: list[int]):
    """A server that runs on these cores only, as on a smaller machine."""
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


ONE_THREAD = ["--sessions", "1", "--intra-threads", "1"]


def batch_costs(core: int, rounds: int) -> dict[int, float]:
    """Cost of a run by its images, relative to a run of one."""
    rows = bare_sessions(*ONE_THREAD, "--batch-sizes", "1,2,4,8", "--rounds", str(rounds), cores=[core])
    rates = {row["batch_size"]: row["images_per_second"]["median"] for row in rows}
    return {size: size * rates[1] / rate for size, rate in rates.items()}


def pace_beside_another(cores: list[int], rounds: int) -> float:
    """Pace of a session on one of these two cores while the other runs one too, relative to a session alone."""
    rows = bare_sessions(*ONE_THREAD, "--batch-sizes", "1", "--rounds", str(rounds), cores=cores)
    rates = {row["sessions"]: row["images_per_second"]["median"] for row in rows if row["intra_threads"] == 1}
    return min(1.0, rates[2] / (2 * rates[1]))


def measure(seconds: float) -> tuple[Stages, dict]:
    """The stages, on one core with the client on another; and further figures of the document."""
    first, second = sorted(os.sched_getaffinity(0))[:2]
    rounds = 3 if seconds < 3 else 20
    batches, pace = batch_costs(first, rounds), pace_beside_another([first, second], rounds)
    own = os.sched_getaffinity(0)
    os.sched_setaffinity(0, [second])
    try:
        with pinned([first]) as server:
            points = decode_times(server, seconds / 2)
            image = jpeg(TYPICAL)
            asyncio.run(closed_loop(server.address, score(image), 1, 1))
            before, own_before = server.cpu_seconds(), time.process_time()
            found = asyncio.run(closed_loop(server.address, score(image), 1, 3 * seconds))
            spent, own_spent = server.cpu_seconds() - before, time.process_time() - own_before
    finally:
        os.sched_setaffinity(0, own)
    times = [one["timings_ms"] for one in answers(found)]
    runs = tuple(one["inference"] / 1000 for one in times)
    decode = statistics.median(one["decode"] for one in times) / 1000
    base, slope = line(points)
    overhead = max(0.0, spent / len(found) - decode - statistics.mean(runs))
    wait = statistics.median(answer.seconds for answer in found)
    transfer = max(0.0, wait - decode - statistics.median(runs) - overhead)
    stages = Stages(max(0.0, base), slope, overhead, runs, batches, transfer, own_spent / len(found), pace)
    return stages, {"decode_points": points, "image_bytes": len(image)}


def curve(
    cores: list[int], client: list[int], shares: list[float], stages: Stages, rounds: int, seconds: float
) -> list:
    """Waits by load, measured and predicted for the same arrivals: a p99 over seconds depends on how the arrivals
    cluster."""
    image, size, own = score(jpeg(TYPICAL)), megapixels(TYPICAL), os.sched_getaffinity(0)
    shared = set(cores) == set(client)
    capacity = stages.capacity(len(cores), size, with_client=shared)
    rows = [
        {"share": share, "rate": share * capacity, "measured": [], "predicted": [], "statuses": Counter(), "stolen": []}
        for share in shares
    ]
    os.sched_setaffinity(0, client)
    try:
        with pinned(cores) as server:
            asyncio.run(closed_loop(server.address, image, 2 * len(cores), 1))
            for seed in range(1, rounds + 1):
                for row in rows:
                    arrivals = independent(row["rate"], seconds, seed)
                    before, began = stolen(), time.monotonic()
                    found = asyncio.run(open_loop(server.address, image, arrivals))
                    row["stolen"].append((stolen() - before) / (time.monotonic() - began))
                    row["statuses"].update(str(answer.status) for answer in found)
                    row["measured"] += [answer.seconds for answer in found if answer.status == 200]
                    row["predicted"] += waits(stages, len(cores), arrivals, size, seed, with_client=shared)
    finally:
        os.sched_setaffinity(0, own)
    return [
        {
            "share": row["share"], "rate": row["rate"], "images": len(row["predicted"]), "statuses": row["statuses"],
            "stolen": statistics.mean(row["stolen"]),
            "p50": quantile(row["measured"], 0.5), "p99": quantile(row["measured"], 0.99),
            "predicted_p50": quantile(row["predicted"], 0.5), "predicted_p99": quantile(row["predicted"], 0.99),
        }
        for row in rows
    ]  # fmt: skip


def stolen() -> float:
    """Seconds of steal time: the hypervisor ran something else on this machine's cores."""
    with open("/proc/stat") as stat:
        return int(stat.readline().split()[8]) / os.sysconf("SC_CLK_TCK")
