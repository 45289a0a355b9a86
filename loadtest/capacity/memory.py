"""Peak memory of a replica: from `lfm-serve doctor`, which has the only formula, run for one core and for two."""

import functools
import json
import os
import re
import subprocess

from server import BINARY, ROOT

# The defaults of --max-pixels (64 MP) and --max-admitted-bytes (512 MiB).
MEGAPIXELS, ADMITTED_MIB = 64, 512
SMALL_MEGAPIXELS = (1, 5)


@functools.cache
def said(cores: int, megapixels: int) -> float:
    """MiB with this many cores, this largest image and 1 MiB admitted: small enough to be printed in MiB."""
    allowed = sorted(os.sched_getaffinity(0))[:cores]
    settings = ["--max-pixels", f"{megapixels}MP", "--max-admitted-bytes", "1MiB"]
    ended = subprocess.run(
        [BINARY, "doctor", "--json", *settings], cwd=ROOT, capture_output=True, text=True,
        preexec_fn=lambda: os.sched_setaffinity(0, allowed),
    )  # fmt: skip
    [memory] = [check["detail"] for check in json.loads(ended.stdout)["checks"] if check["name"] == "memory"]
    return float(re.search(r"([\d.]+) MiB under the heaviest load", memory).group(1))


def default_mib(cores: int) -> float:
    """With the default limits: linear in pixels and in admitted bytes."""
    small, larger = SMALL_MEGAPIXELS
    pixel = (said(cores, larger) - said(cores, small)) / (larger - small)
    return said(cores, small) + (MEGAPIXELS - small) * pixel + ADMITTED_MIB - 1


def replica_gib(cores: int) -> float:
    """Memory of a replica with this many cores: a session and a decoder for each, plus the shared part."""
    one, two = default_mib(1), default_mib(2)
    return (one + (cores - 1) * (two - one)) / 1024
