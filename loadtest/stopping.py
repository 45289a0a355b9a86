"""How soon a decode ends that nobody waits for any more: `make bench-stopping`.

The files are those of `lfm-serve bench --only cost`: every format and variant as a photograph, and the files of few bytes that
take the most to decode, of 64 megapixels. Each is sent to one server twice:

1. with `X-Request-Timeout-Ms: 500`: when the answer came,
2. with no deadline, and the client hangs up after 250 ms.

Both times: the CPU time that the server used from 20 ms to 220 ms after that moment. Needs an idle machine.
"""

import argparse
import json
import pathlib
import socket
import subprocess
import tempfile
import time
from collections import defaultdict

from client import post
from server import BINARY, ROOT, Server

TIMEOUT_MS = 500
HANG_UP_AFTER = 0.25  # seconds
GRACE = 0.02
WATCHED = 0.2


def used_after(server: Server) -> dict:
    """What still runs after the grace: milliseconds of CPU, and processes (AVIF is decoded in one of its own)."""
    time.sleep(GRACE)  # what is measured is the CPU time of a span of time
    before, processes = server.cpu_seconds(), server.processes()
    time.sleep(WATCHED)  # likewise
    return {"cpu_ms_after": (server.cpu_seconds() - before) * 1e3, "processes_after": processes}


def with_deadline(server: Server, image: bytes) -> dict:
    with socket.create_connection(server.address) as connection:
        request = post("/v1/score", image, f"x-request-timeout-ms: {TIMEOUT_MS}", "connection: close")
        began = time.monotonic()
        connection.sendall(request)
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
        took = time.monotonic() - began
    return {"status": int(answer[9:12]), "ms": took * 1e3, **used_after(server)}


def with_hang_up(server: Server, image: bytes) -> dict:
    with socket.create_connection(server.address) as connection:
        connection.sendall(post("/v1/score", image))
        connection.settimeout(HANG_UP_AFTER)
        try:
            answered = bool(connection.recv(1))
        except TimeoutError:
            answered = False
    return {"answered": answered, **used_after(server)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--all", action="store_true", help="a line for every file, not the worst of a format")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        making = [BINARY, "bench", "--only", "cost", "--rounds", "1", "--files", folder]
        subprocess.run(making, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
        rows = defaultdict(list)
        with Server("--max-body-bytes", "512MiB", "--max-admitted-bytes", "2GiB") as server:
            idle = used_after(server)
            for file in sorted(pathlib.Path(folder).iterdir()):
                image = file.read_bytes()
                row = {"file": file.name, "deadline": with_deadline(server, image)}
                row["hang_up"] = with_hang_up(server, image)
                rows[file.name.split("_")[0]].append(row)
                if arguments.all:
                    print(json.dumps(row), flush=True)
    summary = {
        kind: {
            "files": len(of_kind),
            "refused_before_it_began": sum(
                r["deadline"]["status"] == 504 and r["deadline"]["ms"] < 100 for r in of_kind
            ),
            "longest_answer_ms": round(max(r["deadline"]["ms"] for r in of_kind), 1),
            "most_cpu_ms_after_the_answer": round(max(r["deadline"]["cpu_ms_after"] for r in of_kind), 1),
            "hung_up": sum(not r["hang_up"]["answered"] for r in of_kind),
            "most_cpu_ms_after_the_hang_up": round(max(r["hang_up"]["cpu_ms_after"] for r in of_kind), 1),
            "most_processes_after": max(r[way]["processes_after"] for r in of_kind for way in ("deadline", "hang_up")),
        }
        for kind, of_kind in rows.items()
    }
    print(json.dumps({"idle_cpu_ms": round(idle["cpu_ms_after"], 1), "formats": summary}, indent=1))


if __name__ == "__main__":
    main()
