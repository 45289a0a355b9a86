"""Fairness: one client's expensive files against another client's small photographs: `make bench-fair`.

The victim sends one small photograph after another. Concurrently another client sends

1. 8 connections of arithmetic-coded progressive JPEGs of 64 megapixels (some hundred bytes each),
2. 64 connections of photographs of 12 megapixels.

The victim alone and the victim under attack run alternately, on one server each; the figures are medians over the
rounds. Times are the server's own, from its access log. Clients differ by X-Forwarded-For. Needs cjpeg (libjpeg-turbo).
"""

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import time
from collections import Counter

from client import Connection, post, quantile
from images import encoded
from server import ROOT, Server

PHOTO = ROOT / "tests/golden/images/orig_china.jpg"
SIDE = 8000  # 64 megapixels


def arithmetic_progressive() -> bytes:
    """A flat picture: all of its cost is in the coding."""
    ppm = b"P6 %d %d 255\n" % (SIDE, SIDE) + b"\x80" * (3 * SIDE * SIDE)
    return subprocess.run(["cjpeg", "-arithmetic", "-progressive"], input=ppm, check=True, capture_output=True).stdout


async def loop(server: Server, image: bytes, who: str, address: str, end: float):
    """Sends the image repeatedly. Waits a little after a refusal, so that the client does not load the machine."""
    request = post("/v1/score", image, f"x-forwarded-for: {address}", f"x-request-id: {who}")
    connection = Connection(server.address)
    while (now := time.monotonic()) < end:
        answer = await connection.answer(request, now, 30)
        if answer.status != 200:
            await asyncio.sleep(0.2)
    connection.hang_up()


def run(server: Server, seconds: float, beside: tuple[int, bytes] | None) -> dict:
    """The victim for `seconds`, alone or with concurrent connections that send a file."""
    before, busy_before = len(server.access_lines()), server.cpu_seconds()

    async def all_of_them():
        end = time.monotonic() + seconds
        clients = [loop(server, PHOTO.read_bytes(), "victim", "192.0.2.1", end)]
        if beside:
            connections, image = beside
            clients += [loop(server, image, "attacker", "192.0.2.2", end) for _ in range(connections)]
        await asyncio.gather(*clients)

    began = time.monotonic()
    asyncio.run(all_of_them())
    took, busy = time.monotonic() - began, server.cpu_seconds() - busy_before
    lines = server.access_lines()[before:]
    victim = [line for line in lines if line["request_id"] == "victim"]
    times = [line["duration_ms"] for line in victim if line["status"] == 200]
    return {
        "p50_ms": quantile(times, 0.5),
        "p99_ms": quantile(times, 0.99),
        "statuses": Counter(str(line["status"]) for line in victim),
        "attacker_statuses": Counter(str(line["status"]) for line in lines if line["request_id"] == "attacker"),
        "images": len(times),
        "cpu_seconds": busy,
        "of_the_machine": busy / took / len(os.sched_getaffinity(0)),
    }


def compare(beside: tuple[int, bytes], rounds: int, seconds: float) -> dict:
    median, tail, shares, runs = [], [], [], []
    for _ in range(rounds):
        with Server("--trusted-proxies", "1") as server:
            run(server, 2, None)
            alone = run(server, seconds, None)
            together = run(server, seconds, beside)
        median.append(together["p50_ms"] / alone["p50_ms"])
        tail.append(together["p99_ms"] / alone["p50_ms"])
        # The victim's CPU time per image is taken from its run alone.
        own = together["images"] * alone["cpu_seconds"] / alone["images"]
        shares.append(1 - own / together["cpu_seconds"])
        runs.append({"alone": alone, "beside": together})
    return {
        "median_over_alone": statistics.median(median),
        "p99_over_median_alone": statistics.median(tail),
        "attacker_share_of_cpu_time": statistics.median(shares),
        "victim_refused": sum(
            count for run in runs for status, count in run["beside"]["statuses"].items() if status != "200"
        ),
        "rounds": runs,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=15)
    arguments = parser.parse_args()
    parts = {
        "arithmetic_progressive_64_mp": lambda: (8, arithmetic_progressive()),
        "photographs_12_mp": lambda: (64, encoded((4000, 3000), "JPEG", {"quality": 90})),
    }
    for name, beside in parts.items():
        print(json.dumps({name: compare(beside(), arguments.rounds, arguments.seconds)}, indent=1), flush=True)


if __name__ == "__main__":
    main()
