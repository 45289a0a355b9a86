"""One system on its cores: start, load, counters, monitoring and stop."""

import asyncio
import os
import select
import signal
import socket
import subprocess
import tempfile
import time
from contextlib import suppress
from pathlib import Path

from client import Connection
from server import ROOT, cpu_seconds
from systems import PEERS, System

READY_WITHIN = 60


class Failed(Exception):
    """A system that does not run: its last output."""


class Visit:
    """A running system. As a context manager it is ready inside; all its processes have ended afterwards."""

    def __init__(self, system: System, cores: list[int], image: bytes):
        self.system, self.cores = system, cores
        self.request = system.request(image)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.address = probe.getsockname()
        self.counter, self.log = tempfile.NamedTemporaryFile(), tempfile.NamedTemporaryFile()
        self.scratch = tempfile.TemporaryDirectory()  # some leave files behind

    def __enter__(self):
        environment = {
            **os.environ,
            "PYTHONPATH": f"{PEERS}:{ROOT / 'models'}",
            "TMPDIR": self.scratch.name,
            "PEER_PORT": str(self.address[1]),
            "PEER_CORES": str(len(self.cores)),
            "PEER_COUNTER": self.counter.name,
            "ORT_DISABLE_TELEMETRY": "1",
        }
        began = time.monotonic()
        self.process = subprocess.Popen(
            [str(part) for part in self.system.command(self.address[1], len(self.cores))],
            cwd=ROOT,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=self.log,
            stderr=self.log,
            start_new_session=True,  # so that all of its processes can be ended together
            preexec_fn=lambda: os.sched_setaffinity(0, self.cores),
        )
        try:
            asyncio.run(self.first_answer(began + READY_WITHIN))
        except BaseException:
            self.__exit__()
            raise
        self.start_seconds = time.monotonic() - began
        return self

    def __exit__(self, *_):
        # Handles (pidfd), not process ids: an id may be reused once its process has ended.
        processes = []
        for pid in tree(self.process.pid):
            with suppress(ProcessLookupError):
                processes.append(os.pidfd_open(pid))
        self.process.terminate()
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(20)
        for process in processes:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(process, signal.SIGKILL)
            select.select([process], [], [], 10)  # readable once it has ended
            os.close(process)
        # And processes started since.
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self.scratch.cleanup()

    async def first_answer(self, end: float):
        """Sends requests until there is a score: a user's wait after a start."""
        connection = Connection(self.address)
        last = ""
        while time.monotonic() < end:
            if self.process.poll() is not None:
                raise Failed(f"ended with {self.process.returncode}: {self.last_words()}")
            answer = await connection.answer(self.request, time.monotonic(), 10)
            if answer.status == 200:
                self.system.logit(answer.body)
                return connection.hang_up()
            last = f"status {answer.status}: {answer.body[:200].decode(errors='replace')}"
            # Polling: another process cannot notify us.
            await asyncio.sleep(0.02)
        raise Failed(f"not ready within {READY_WITHIN} s: {last}; {self.last_words()}")

    def last_words(self) -> str:
        lines = Path(self.log.name).read_text(errors="replace").strip().splitlines()
        return " / ".join(lines[-3:])[-500:] or "no output"

    def executed(self) -> int:
        """Images run so far."""
        return self.system.executed(self.address) if self.system.executed else os.path.getsize(self.counter.name)

    def settled(self) -> int:
        """Images run, once none has been run for a second: all admitted work has ended."""
        count, since = self.executed(), time.monotonic()
        while time.monotonic() < since + 1:
            time.sleep(0.05)  # polling: a peer in another process cannot notify us
            if (now := self.executed()) != count:
                count, since = now, time.monotonic()
        return count

    def cpu_seconds(self) -> float:
        """CPU time of all its processes so far."""
        total = 0.0
        for pid in tree(self.process.pid):
            with suppress(OSError):
                total += cpu_seconds(pid)
        return total

    def memory_mib(self) -> float:
        """Memory of all its processes now; shared memory counts once (PSS)."""
        total = 0
        for pid in tree(self.process.pid):
            with suppress(OSError):
                text = Path(f"/proc/{pid}/smaps_rollup").read_text()
                total += int(text.split("\nPss:")[1].split()[0])
        return total / 1024


def tree(root: int) -> list[int]:
    """A process and all its descendants."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError):
                # The state and the parent follow the name, which may contain any character.
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                children.setdefault(parent, []).append(int(entry.name))
    found = [root]
    for pid in found:
        found += children.get(pid, [])
    return found
