"""Measures the scheduler's guarantees on the real server with the bundled model: `make bench-scheduler`.

1. One client: the server's overhead over a bare session's run, without decoding.
2. Saturated, closed loop: throughput against the best bare-session layout, decoding included on both sides.
3. Twice the capacity, open loop: goodput, answers against their deadlines, latency of refusals, memory.
4. Idle: the CPU use of a server without work.

Server-side times are from the answers and the access log. Bare sessions (`lfm-serve bench`) and the server run
alternately, and the figures are medians over the rounds. Standard library only.
"""

import argparse
import asyncio
import json
import pathlib
import statistics
import time
from collections import Counter

from client import Address, closed_loop, evenly, open_loop, post, quantile
from server import ROOT, Server, bare_sessions

DEADLINE_MS = 2000


def score(image: bytes) -> list[bytes]:
    return [post("/v1/score", image, f"x-request-timeout-ms: {DEADLINE_MS}")]


def saturate(address: Address, image: bytes, clients: int, seconds: float) -> list[dict]:
    """The answers of a closed loop."""
    answers = asyncio.run(closed_loop(address, score(image), clients, seconds))
    assert all(answer.status == 200 for answer in answers), answers
    return [json.loads(answer.body) for answer in answers]


def layouts(*flags: str) -> dict:
    """Images per second on decoded pixels by layout of bare sessions, (sessions, threads per session)."""
    rows = bare_sessions("--rounds", "100", "--batch-sizes", "1", *flags)
    return {(row["sessions"], row["intra_threads"]): row["images_per_second"]["median"] for row in rows}


def one_client(image: bytes, rounds: int) -> dict:
    added, runs = [], []
    with Server("--sessions", "1") as server:
        for _ in range(rounds):
            answers = saturate(server.address, image, 1, 3)
            times = [answer["timings_ms"] for answer in answers[5:]]
            added.append(statistics.median(t["total"] - t["decode"] - t["inference"] for t in times))
            runs.append(statistics.median(t["inference"] for t in times))
            runs[-1] -= 1000 / layouts("--sessions", "1", "--intra-threads", "1")[1, 1]
    return {"beside_decode_and_run_ms": statistics.median(added), "run_over_bare_run_ms": statistics.median(runs)}


def saturated(image: bytes, rounds: int) -> dict:
    ratios, rates = [], []
    for _ in range(rounds):
        (sessions, threads), bare = max(layouts().items(), key=lambda layout: layout[1])
        with Server() as server:
            saturate(server.address, image, 8, 2)
            began = time.monotonic()
            answers = saturate(server.address, image, 8, 8)
            rate = len(answers) / (time.monotonic() - began)
        # The bare layout decodes too, on the same cores.
        decode = statistics.median(answer["timings_ms"]["decode"] for answer in answers) / 1000
        both = 1 / (1 / bare + decode / (sessions * threads))
        ratios.append(rate / both)
        rates.append(rate)
    return {
        "images_per_second": statistics.median(rates),
        "of_bare_sessions": statistics.median(ratios),
        "rounds": ratios,
    }


def overload(image: bytes, seconds: float) -> dict:
    with Server() as server:
        own = [time.process_time()]
        before = len(saturate(server.address, image, 8, 10)) / 10
        own.append(time.process_time())
        known = len(server.access_lines())
        results = asyncio.run(open_loop(server.address, score(image), evenly(2 * before, seconds)))
        own.append(time.process_time())
        lines, peak = server.access_lines()[known:], server.peak_mib()
        after = len(saturate(server.address, image, 8, 10)) / 10
    # Shared machines change their speed within a minute.
    capacity = (before + after) / 2
    good = [line for line in lines if line["status"] == 200]
    late = [line["duration_ms"] - DEADLINE_MS for line in lines if line["status"] == 504]
    refused = [line["duration_ms"] for line in lines if line["status"] == 429]
    return {
        "capacity_images_per_second": {"before": before, "after": after},
        "offered_images_per_second": 2 * before,
        "goodput_of_capacity": len(good) / seconds / capacity,
        # It runs on the same cores, and offering twice as much takes it more of them.
        "cores_of_this_client": {"capacity": (own[1] - own[0]) / 10, "overload": (own[2] - own[1]) / seconds},
        "statuses": Counter(str(answer.status) for answer in results),
        "answered_after_deadline": sum(1 for line in good if line["duration_ms"] > DEADLINE_MS),
        "worst_504_after_deadline_ms": max(late, default=None),
        "refusal_p50_ms": quantile(refused, 0.5),
        "refusal_p99_ms": quantile(refused, 0.99),
        "good_p50_ms": quantile([line["duration_ms"] for line in good], 0.5),
        "good_p99_ms": quantile([line["duration_ms"] for line in good], 0.99),
        "timer_jitter_p99_ms": timer_jitter(),
        "peak_resident_mib": peak,
    }


def timer_jitter() -> float:
    """Timer latency of this machine when idle: a p99 below it is meaningless."""
    late = []
    for _ in range(500):
        began = time.monotonic()
        time.sleep(0.002)
        late.append((time.monotonic() - began - 0.002) * 1000)
    return quantile(late, 0.99)


def idle(seconds: float) -> dict:
    with Server() as server:
        before = server.cpu_seconds()
        time.sleep(seconds)
        return {"share_of_a_core": (server.cpu_seconds() - before) / seconds}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--image", type=pathlib.Path, default=ROOT / "tests/golden/images/x_coffee_256.png")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--overload-seconds", type=float, default=30)
    arguments = parser.parse_args()
    image = arguments.image.read_bytes()
    parts = {
        "one_client": lambda: one_client(image, arguments.rounds),
        "saturated": lambda: saturated(image, arguments.rounds),
        "overload": lambda: overload(image, arguments.overload_seconds),
        "idle": lambda: idle(20),
    }
    for name, part in parts.items():
        print(json.dumps({name: part()}, indent=1), flush=True)


if __name__ == "__main__":
    main()
