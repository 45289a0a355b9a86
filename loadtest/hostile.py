"""What hostile clients do, against the release binary, with figures and thresholds: `make soak-hostile`. Exit status 1 when one
is not held. Needs curl; raises the limit on open files for itself.
"""

import argparse
import asyncio
import os
import pathlib
import re
import resource
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request

import attacks
from client import Connection, closed_loop, post
from scenarios import DEFAULT_IMAGE, Threshold
from server import BINARY, ROOT, Server, metrics

MIB = 1 << 20
SMALL = (ROOT / "tests/golden/images/x_coffee_64.png").read_bytes()


def score(server: Server, times: int, image: bytes = SMALL, path: str = "/v1/score") -> list[int]:
    """The statuses of so many requests in a row."""

    async def ask() -> list[int]:
        connection = Connection(server.address)
        statuses = [(await connection.ask(post(path, image)))[0] for _ in range(times)]
        connection.hang_up()
        return statuses

    return asyncio.run(ask())


def alive(server: Server) -> bool:
    try:
        with urllib.request.urlopen("http://{}:{}/livez".format(*server.address), timeout=5) as answer:
            return answer.status == 200
    except OSError:
        return False


def log_unread() -> list[Threshold]:
    """Nobody reads standard error, then it is closed: 600 requests each time, /livez, SIGTERM."""
    server = Server("--sessions", "1", stderr=subprocess.PIPE)
    unread = score(server, 600)
    dropped = metrics(server.address)["lfm_log_lines_dropped_total"]
    lives = [alive(server)]
    server.process.stderr.close()
    closed = score(server, 600)
    lives.append(alive(server))
    server.process.send_signal(signal.SIGTERM)
    ended = server.process.wait(60)
    return [
        Threshold("600 requests answered, standard error unread", unread == [200] * 600, f"{unread.count(200)} of 600"),
        Threshold("600 requests answered, standard error closed", closed == [200] * 600, f"{closed.count(200)} of 600"),
        Threshold("/livez both times", all(lives), f"{lives}, {dropped:.0f} lines dropped"),
        Threshold("SIGTERM drains", ended == 0, f"exit status {ended}"),
    ]


def small_and_huge() -> list[Threshold]:
    """Small requests that claim much: memory above that of a served photograph, time, answer; alone and sixteen at once."""
    held = []
    with Server("--sessions", "1", "--grpc-listen", "127.0.0.1:0") as server:
        line = server.process.stdout.readline()
        grpc = line.strip().rpartition(" ")[2]
        score(server, 20, DEFAULT_IMAGE.read_bytes())
        with tempfile.TemporaryDirectory() as folder:
            for name, expected, attack in attacks.small_and_huge("{}:{}".format(*server.address), grpc, folder):
                for at_once in (1, 16):
                    before = server.status("VmRSS") / 1024
                    # Resets the peak (proc_pid_clear_refs(5)).
                    pathlib.Path(f"/proc/{server.process.pid}/clear_refs").write_text("5")
                    asked = [attack.start() for _ in range(at_once)]
                    answers = [one.answer() for one in asked]
                    grown = server.peak_mib() - before
                    codes = sorted({code for code, _ in answers})
                    slowest = max(seconds for _, seconds in answers)
                    allowed = expected if at_once == 1 else expected | {"429", "503", "14"}
                    limits = (100, 1.0) if at_once == 1 else (640, 10.0)
                    right = set(codes) <= allowed and grown < limits[0] and slowest < limits[1]
                    figure = f"+{grown:.0f} MiB, {slowest:.2f} s, {' '.join(codes)}"
                    held.append(Threshold(f"{name}, {at_once} at once ({attack.size} bytes)", right, figure))
    return held


def silence(silent: int) -> list[Threshold]:
    """Silent connections, then sixteen bodies that are announced and not sent, while a normal client asks."""
    with Server("--sessions", "1", "--log-level", "warn") as server:
        sockets = attacks.connections(server.address, silent)
        sockets += attacks.connections(server.address, 16, attacks.announce(32 * MIB))
        lives, stop = [], threading.Event()

        def watch():
            while not stop.is_set():
                lives.append(alive(server))

        watching = threading.Thread(target=watch)
        watching.start()
        answers = asyncio.run(closed_loop(server.address, [post("/v1/score", SMALL)], 2, 12))
        stop.set()
        watching.join()
        closed = metrics(server.address)
        evicted = closed['lfm_connections_closed_total{reason="evicted"}']
        for one in sockets:
            one.close()
    good = sum(answer.status == 200 for answer in answers)
    slowest = max(answer.seconds for answer in answers)
    return [
        Threshold(f"{silent} silent connections, 16 announced bodies: a normal client's requests", good == len(answers),
                  f"{good} of {len(answers)}, slowest {slowest:.2f} s; {evicted:.0f} silent ones closed"),
        Threshold("/livez meanwhile", all(lives), f"{sum(lives)} of {len(lives)}"),
    ]  # fmt: skip


def random_requests(count: int, seconds: float) -> list[Threshold]:
    """Random requests of the fuzzers' corpora on kept connections, pipelined, and random bytes between them."""
    with Server("--sessions", "1", "--log-level", "warn") as server:

        def figures() -> dict[str, int]:
            descriptors = len(os.listdir(f"/proc/{server.process.pid}/fd"))
            return {"MiB": server.status("VmRSS") // 1024, "threads": server.status("Threads"), "files": descriptors}

        corpus = attacks.Corpus(ROOT / "fuzz", SMALL)
        began = time.monotonic()
        warm = corpus.run(server.address, count // 10, seconds / 10)
        first = figures()
        asked, answered = corpus.run(server.address, count - warm[0], began + seconds - time.monotonic())
        spent = time.monotonic() - began
        # What is left of the last connections is closed by now or within the time for a head.
        deadline = time.monotonic() + 30
        while (last := figures())["files"] > first["files"] + 8 and time.monotonic() < deadline:
            time.sleep(0.2)  # polling: the server's process cannot notify us
        series = metrics(server.address)
        failed = sum(value for name, value in series.items() if 'status="500"' in name)
        held = series["lfm_images_in_flight"] + series["lfm_admitted_bytes"] + series["lfm_decode_bytes"]
        log = pathlib.Path(server.log.name).read_text()
        panics = log.count('"panic"')
        lives = alive(server)
    asked, answered = asked + warm[0], answered + warm[1]
    return [
        Threshold("random requests without a panic or a 500", panics + failed == 0 and lives,
                  f"{asked} asked, {answered} answered in {spent:.0f} s, {panics} panics, {failed:.0f} of 500"),
        Threshold("no growth after the first tenth", last["MiB"] < first["MiB"] + 32 and last["threads"] <= first["threads"] + 8
                  and last["files"] <= first["files"] + 8, f"{first} -> {last}"),
        Threshold("nothing is held afterwards", held == 0, f"{held:.0f}"),
    ]  # fmt: skip


def all_doors(seconds: float) -> list[Threshold]:
    """Every door at its limit at once, in a control group of the memory that doctor names."""
    flags = ("--sessions", "2")
    doctor = subprocess.run([BINARY, "doctor", *flags], capture_output=True, text=True, cwd=ROOT).stdout
    number, unit = re.search(r"([\d.]+) (MiB|GiB) under the heaviest load", doctor).groups()
    limit = int(float(number) * {"MiB": MIB, "GiB": 1024 * MIB}[unit])
    group = attacks.ControlGroup(limit)
    with group, Server(*flags, "--grpc-listen", "127.0.0.1:0", "--log-level", "error", within=group.enter) as server:
        grpc = server.process.stdout.readline().strip().rpartition(" ")[2]
        lives, codes = attacks.all_doors(server, grpc, seconds, lambda: alive(server))
        peak, killed = group.peak(), group.killed()
        ended = server.process.poll()
        again = score(server, 3) if ended is None else []
    counts = ", ".join(f"{code}: {times}" for code, times in sorted(codes.items()))
    return [
        Threshold(f"all doors for {seconds:.0f} s within {number} {unit}: it stays up", ended is None and not killed,
                  f"peak {peak / MIB:.0f} MiB of {limit / MIB:.0f}; {counts}"),
        Threshold("/livez meanwhile", lives[0] == lives[1], f"{lives[0]} of {lives[1]}"),
        Threshold("and serves afterwards", again == [200] * 3, f"{again}"),
    ]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", help="log, small, silence, random, doors; default: all")
    parser.add_argument("--silent", type=int, default=9000, help="silent connections")
    parser.add_argument("--requests", type=int, default=1_000_000, help="random requests")
    parser.add_argument("--seconds", type=float, default=300, help="the longest time for them")
    parser.add_argument("--doors-seconds", type=float, default=60, help="of all doors at once")
    given = parser.parse_args()
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    parts = {
        "log": log_unread,
        "small": small_and_huge,
        "silence": lambda: silence(given.silent),
        "random": lambda: random_requests(given.requests, given.seconds),
        "doors": lambda: all_doors(given.doors_seconds),
    }
    held = True
    for name in given.parts or parts:
        print(name, flush=True)
        for threshold in parts[name]():
            held &= threshold.held
            print(f"  {'held    ' if threshold.held else 'NOT HELD'}  {threshold.what}: {threshold.figure}", flush=True)
    sys.exit(not held)


if __name__ == "__main__":
    main()
