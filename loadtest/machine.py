"""The machine on which the figures were measured."""

import os
import subprocess
from pathlib import Path

WANTED = ["Model name", "CPU(s)", "Thread(s) per core", "Hypervisor vendor", "L2 cache", "L3 cache"]


def describe() -> dict[str, str]:
    lines = subprocess.run(["lscpu"], check=True, capture_output=True, text=True).stdout.splitlines()
    told = dict(map(str.strip, line.split(":", 1)) for line in lines if ":" in line)
    memory = next(line for line in Path("/proc/meminfo").read_text().splitlines() if line.startswith("MemTotal"))
    release = Path("/etc/os-release").read_text().splitlines()
    system = next(line.split("=")[1].strip('"') for line in release if line.startswith("PRETTY_NAME"))
    return {
        **{name: told[name] for name in WANTED if name in told},
        "AVX-512": "yes" if "avx512f" in told.get("Flags", "") else "no",
        "Memory": memory.split(":")[1].strip(),
        "System": f"{system}, Linux {os.uname().release}",
        "Load average before": " ".join(f"{load:.2f}" for load in os.getloadavg()),
    }
