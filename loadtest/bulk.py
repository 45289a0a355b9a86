"""Archives in figures: images/s from an S3 server on loopback against local files, and a run that is killed five times.

The program has one core and the server (moto) the other where rates are compared. `make bench-bulk`, an idle machine.
"""

import collections
import json
import os
import pathlib
import random
import subprocess
import tempfile
import threading
import time

from moto.s3.models import s3_backends
from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import WSGIRequestHandler, make_server

ROOT = pathlib.Path(__file__).parents[1]
BINARY = ROOT / "target/release/lfm-serve"
PICTURE = (ROOT / "tests/golden/images/x_coffee_64.png").read_bytes()
ACCOUNT = "123456789012"
COMPARED, ALL, KILLS, ROUNDS = 3_000, 20_000, 5, 2


class Quiet(WSGIRequestHandler):
    protocol_version = "HTTP/1.1"

    def log(self, *_):
        pass


def picture(number):
    return PICTURE + number.to_bytes(8, "little")


def resident(pid, field):
    status = pathlib.Path(f"/proc/{pid}/status").read_text()
    return int(status.split(f"{field}:")[1].split()[0]) // 1024


def start(source, out, environment, cores):
    command = ["taskset", "-c", cores, BINARY, "score", "--from", source, "--out", out, "--part-time", "10s"]
    return subprocess.Popen(
        command, env=environment, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def whole(source, out, environment):
    """Images/s of a run from its start to its end, and its resident MiB at each part file."""
    begun = time.monotonic()
    process = start(source, out, environment, "0")
    memory = [resident(process.pid, "VmRSS") for _ in process.stderr]
    figures = json.loads(process.stdout.read())
    process.wait()
    return figures["scored"] / (time.monotonic() - begun), memory


def killed(source, out, environment):
    """Kills a run some seconds after each of its first part files, and lets the last one end."""
    memory, begun = [], time.monotonic()
    for _ in range(KILLS):
        process = start(source, out, environment, "0,1")
        process.stderr.readline()
        time.sleep(random.uniform(0, 15))  # the kill comes at any point of the work
        memory.append(resident(process.pid, "VmHWM"))
        process.kill()
        process.communicate()
    process = start(source, out, environment, "0,1")
    for _ in process.stderr:
        peak = resident(process.pid, "VmHWM")
    figures = json.loads(process.stdout.read())
    assert process.wait() == 0
    return figures, [*memory, peak], time.monotonic() - begun


def main():
    server = make_server(
        "127.0.0.1", 0, DomainDispatcherApplication(create_backend_app), threaded=True, request_handler=Quiet
    )
    threading.Thread(target=server.serve_forever, daemon=True).start()
    environment = os.environ | {
        "AWS_ENDPOINT": f"http://127.0.0.1:{server.server_port}",
        "AWS_ALLOW_HTTP": "true",
        "AWS_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": "k",
        "AWS_SECRET_ACCESS_KEY": "s",
    }
    store = s3_backends[ACCOUNT]["aws"]
    store.create_bucket("pictures", "us-east-1")
    rates = collections.defaultdict(list)
    with tempfile.TemporaryDirectory() as folder:
        local = pathlib.Path(folder, "in")
        local.mkdir()
        for number in range(ALL):
            store.put_object("pictures", f"all/{number:05}.png", picture(number))
            if number < COMPARED:
                store.put_object("pictures", f"some/{number:05}.png", picture(number))
                (local / f"{number:05}.png").write_bytes(picture(number))
        os.sched_setaffinity(0, {1})
        for turn in range(ROUNDS):
            for kind, source in [("local", str(local)), ("s3", "s3://pictures/some")]:
                rate, memory = whole(source, f"{folder}/{kind}{turn}.parquet", environment)
                rates[kind].append(rate)
                print(f"{kind}: {rate:.1f} images/s on one core, resident MiB {memory}", flush=True)
        print(f"s3 / local: {sum(rates['s3']) / sum(rates['local']):.3f}", flush=True)
        os.sched_setaffinity(0, {0, 1})
        out = pathlib.Path(folder, "all.jsonl")
        figures, memory, seconds = killed("s3://pictures/all", str(out), environment)
        paths = collections.Counter(
            json.loads(line)["path"] for part in sorted(out.glob("part-*")) for line in part.open()
        )
        print(f"{ALL} from S3, killed {KILLS} times: {seconds:.0f} s, {figures['scored']} scored, {len(paths)} paths, "
              f"{sum(times > 1 for times in paths.values())} of them twice; peak MiB of each run {memory}")  # fmt: skip
        assert len(paths) == figures["scored"] == ALL and set(paths.values()) == {1}


if __name__ == "__main__":
    main()
