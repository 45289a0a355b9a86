"""Peak memory of a replica: from `lfm-serve doctor`, which has the only formula."""

import functools
import json
import subprocess

from server import BINARY, ROOT


@functools.cache
def replica_gib(cores: int) -> float:
    """With this many cores, so with as many sessions, and the default limits."""
    command = [BINARY, "doctor", "--json", "--sessions", str(cores)]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    [memory] = [check["bytes"] for check in json.loads(ended.stdout)["checks"] if check["name"] == "memory"]
    return memory["most"] / 2**30
