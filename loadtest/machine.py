"""What the figures come from: the machine and the versions."""

import os
import subprocess
from importlib import metadata
from pathlib import Path

from server import BINARY, ROOT

WANTED = ["Model name", "CPU(s)", "Thread(s) per core", "Hypervisor vendor", "L2 cache", "L3 cache"]
SHOWN = {
    "fastapi", "uvicorn", "nvidia-pytriton", "mosec", "litserve", "bentoml", "ray", "onnxruntime", "pillow", "numpy"
}  # fmt: skip


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


def versions(venvs: list[Path]) -> dict[str, dict[str, str]]:
    """Of what was run, by whom it belongs to."""
    own = subprocess.run([BINARY, "--version"], cwd=ROOT, check=True, capture_output=True, text=True).stdout.strip()
    found = {"lfm-serve": {"lfm-serve": own}}
    for venv in venvs:
        paths = [str(path) for path in venv.glob("lib/python*/site-packages")]
        installed = {one.name.lower(): one.version for one in metadata.distributions(path=paths)}
        found[venv.name] = {name: version for name, version in sorted(installed.items()) if name in SHOWN}
    return found
