"""Figures of the wheel in `.venv-wheel`: the time of the import, and images/s of `score_many` against the server's.

    python python/benches/wheel.py [--seconds 6] [--rounds 5] [PICTURE...]

Both score the same pictures on all CPUs that the process may use, in turns; the server's clients keep twice as many
requests in flight as it has sessions, on a loopback socket of the same machine. Nothing is asserted.
"""

import argparse
import contextlib
import http.client
import itertools
import statistics
import subprocess
import sys
import threading
import time
import urllib.parse
from pathlib import Path

import lfm_serve

ROOT = Path(__file__).parents[2]
NAMES = ["orig_rocket.jpg", "coffee_rgb.png", "astro_420_q95.jpg", "chelsea_lossless.webp"]
IMPORT = "import time; t = time.perf_counter(); import {}; print(time.perf_counter() - t)"


def import_time(module: str) -> float:
    """Seconds, the median of 20 processes."""
    command = [sys.executable, "-c", IMPORT.format(module)]
    runs = [subprocess.run(command, capture_output=True, text=True, check=True) for _ in range(20)]
    return statistics.median(float(run.stdout) for run in runs)


@contextlib.contextmanager
def serving():
    command = [ROOT / "target/release/lfm-serve", "serve", "--listen", "127.0.0.1:0"]
    command += ["--drain-delay", "0s", "--log-level", "warn", "--provider", "cpu"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        yield urllib.parse.urlsplit(process.stdout.readline().removeprefix("listening on ").strip())
    finally:
        process.terminate()
        process.wait()


def rate_of_server(place, pictures: list[bytes], seconds: float, clients: int) -> float:
    counts = [0] * clients
    until = time.perf_counter() + seconds

    def client(number: int) -> None:
        connection = http.client.HTTPConnection(place.hostname, place.port)
        for picture in itertools.cycle(pictures):
            if time.perf_counter() > until:
                return
            connection.request("POST", "/v1/score", picture)
            answer = connection.getresponse()
            answer.read()
            assert answer.status == 200
            counts[number] += 1

    threads = [threading.Thread(target=client, args=(number,)) for number in range(clients)]
    began = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(counts) / (time.perf_counter() - began)


def rate_of_module(scorer: lfm_serve.Scorer, pictures: list[bytes], seconds: float) -> float:
    began = time.perf_counter()
    source = itertools.takewhile(
        lambda _: time.perf_counter() < began + seconds, itertools.cycle(pictures)
    )
    count = sum(1 for _ in scorer.score_many(source, progress=False))
    return count / (time.perf_counter() - began)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=6)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("pictures", nargs="*", type=Path)
    args = parser.parse_args()
    paths = args.pictures or [ROOT / "tests/golden/images" / name for name in NAMES]
    pictures = [path.read_bytes() for path in paths]

    print(
        f"import lfm_serve: {1e3 * import_time('lfm_serve'):.0f} ms; of it json and dataclasses:",
        end=" ",
    )
    print(f"{1e3 * import_time('dataclasses, json'):.0f} ms", flush=True)
    all_threads, one_thread = lfm_serve.Scorer(), lfm_serve.Scorer(threads=1)
    rates: dict[str, list[float]] = {"server": [], "module": [], "one thread": []}
    with serving() as place:
        for _ in range(args.rounds):
            clients = 2 * all_threads.threads
            rates["server"].append(rate_of_server(place, pictures, args.seconds, clients))
            rates["module"].append(rate_of_module(all_threads, pictures, args.seconds))
            rates["one thread"].append(rate_of_module(one_thread, pictures, args.seconds))
    server, module, one = (rates[name] for name in rates)

    def ratio(ours: list[float], theirs: list[float]) -> str:
        pairs = [a / b for a, b in zip(ours, theirs, strict=True)]
        return f"{statistics.median(pairs):.2f} ({min(pairs):.2f} to {max(pairs):.2f})"

    print(
        f"images/s, medians: server {statistics.median(server):.1f}, score_many {statistics.median(module):.1f}"
    )
    print(
        f"score_many on {all_threads.threads} threads against the server: {ratio(module, server)}"
    )
    print(f"against one thread: {ratio(module, one)}")


if __name__ == "__main__":
    main()
