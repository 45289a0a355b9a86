"""The memory that a replica needs at most: `lfm-serve doctor` has the one formula, and is asked for one core and for two."""

import functools
import json
import os
import re
import subprocess

from server import BINARY, ROOT

# The defaults of --max-pixels (64 MP), --max-admitted-bytes (512 MiB) and --max-connections.
MEGAPIXELS, ADMITTED_MIB, CONNECTIONS = 64, 512, 8192
SMALL_MEGAPIXELS = (1, 5)


@functools.cache
def said(cores: int, megapixels: int, connections: int = 1) -> float:
    """MiB with this many cores, images of this size at most, 1 MiB admitted and so many connections: small enough to be printed
    in MiB."""
    allowed = sorted(os.sched_getaffinity(0))[:cores]
    settings = [
        "--max-pixels",
        f"{megapixels}MP",
        "--max-admitted-bytes",
        "1MiB",
        "--max-connections",
        str(connections),
    ]
    ended = subprocess.run(
        [BINARY, "doctor", "--json", *settings], cwd=ROOT, capture_output=True, text=True,
        preexec_fn=lambda: os.sched_setaffinity(0, allowed),
    )  # fmt: skip
    [memory] = [check["detail"] for check in json.loads(ended.stdout)["checks"] if check["name"] == "memory"]
    return float(re.search(r"([\d.]+) MiB under the heaviest load", memory).group(1))


def default_mib(cores: int) -> float:
    """With the default limits: linear in pixels, in admitted bytes and in connections."""
    small, larger = SMALL_MEGAPIXELS
    pixel = (said(cores, larger) - said(cores, small)) / (larger - small)
    connections = (said(cores, small, 1 + CONNECTIONS // 8) - said(cores, small)) * 8
    return said(cores, small) + (MEGAPIXELS - small) * pixel + ADMITTED_MIB - 1 + connections


def replica_gib(cores: int) -> float:
    """Of a replica with this many cores: a session and a decoder each, beside what all share."""
    one, two = default_mib(1), default_mib(2)
    return (one + (cores - 1) * (two - one)) / 1024
