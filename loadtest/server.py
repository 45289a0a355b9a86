"""Our server, started for a measurement. Standard library only."""

import json
import os
import pathlib
import re
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Callable

ROOT = pathlib.Path(__file__).resolve().parents[1]
BINARY = ROOT / "target/release/lfm-serve"


def cpu_seconds(pid: int) -> float:
    """CPU time of all threads of a process so far."""
    # CPUCLOCK_SCHED of the process, as by clock_getcpuclockid(3): nanoseconds; /proc has only hundredths of a second.
    return time.clock_gettime_ns(~pid << 3 | 2) / 1e9


def bare_sessions(*flags: str, cores: list[int] | None = None) -> list[dict]:
    """`lfm-serve bench` on sessions without a server: a row per layout and batch size, interleaved. On these cores, or
    on all."""
    ended = subprocess.run(
        [BINARY, "bench", "--only", "session", "--json", *flags], cwd=ROOT, check=True, capture_output=True, text=True,
        preexec_fn=(lambda: os.sched_setaffinity(0, cores)) if cores else None,
    )  # fmt: skip
    return json.loads(ended.stdout)["sessions"]["rows"]


class Server:
    """`lfm-serve serve` on a free port, its access log in a file, or in the pipe `process.stderr` for `stderr=PIPE`. `within` is
    called in the new process before the program is."""

    def __init__(self, *flags: str, stderr: int | None = None, within: Callable[[], None] | None = None):
        self.log = tempfile.NamedTemporaryFile(suffix=".jsonl")
        command = [BINARY, "serve", "--listen", "127.0.0.1:0", "--drain-delay", "0s", "--log-format", "json", *flags]
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=stderr or self.log, text=True, cwd=ROOT, preexec_fn=within
        )
        line = self.process.stdout.readline()
        assert line.startswith("listening on "), line
        self.address = ("127.0.0.1", int(line.rsplit(":", 1)[1]))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.terminate()
        assert self.process.wait(60) == 0, "the server did not stop well"

    def cpu_seconds(self) -> float:
        return cpu_seconds(self.process.pid)

    def processes(self) -> int:
        """Processes that it has started and that have not ended: each decodes an AVIF picture."""
        tasks = pathlib.Path(f"/proc/{self.process.pid}/task").glob("*/children")
        return sum(len(children.read_text().split()) for children in tasks)

    def peak_mib(self) -> float:
        return self.status("VmHWM") / 1024

    def status(self, name: str) -> int:
        """A number of /proc/PID/status."""
        status = pathlib.Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.split(f"{name}:")[1].split()[0])

    def access_lines(self) -> list[dict]:
        lines = (json.loads(line) for line in pathlib.Path(self.log.name).read_text().splitlines())
        return [line for line in lines if line.get("route") == "/v1/score"]


def metrics(address: tuple[str, int]) -> dict[str, float]:
    """Every series of /metrics, by name with labels."""
    with urllib.request.urlopen("http://{}:{}/metrics".format(*address), timeout=30) as answer:
        text = answer.read().decode()
    return {name: float(value) for name, value in re.findall(r"^(\w.*) (\S+)$", text, re.MULTILINE)}
