"""Peak memory of a replica: from `lfm-serve doctor`, which has the only formula."""

import functools
import json
import subprocess

from server import BINARY, ROOT


@functools.cache
def replica_gib(cores: int) -> float:
    """With this many cores, so with as many sessions, and the default limits."""
    # The default of --max-connections where the limit on open files allows it.
    command = [BINARY, "doctor", "--json", "--sessions", str(cores), "--max-connections", "8192"]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    [memory] = [check["bytes"] for check in json.loads(ended.stdout)["checks"] if check["name"] == "memory"]
    return memory["most"] / 2**30
