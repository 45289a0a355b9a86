"""The versions of the compared software."""

import subprocess
import tomllib
from importlib import metadata

from systems import BINARY, FURNACE, OURS, PEERS, ROOT, System, venv

SHOWN = {
    "fastapi", "uvicorn", "nvidia-pytriton", "mosec", "openvino", "furnace-server", "ort", "litserve", "bentoml", "ray",
    "onnxruntime", "pillow", "numpy",
}  # fmt: skip


def versions(systems: list[System]) -> dict[str, dict[str, str]]:
    """Versions by system."""
    return {system.name: dict(sorted(of(system.name).items())) for system in systems}


def of(name: str) -> dict[str, str]:
    if name == OURS:
        told = subprocess.run([BINARY, "--version"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
        return {OURS: told.strip().removeprefix(f"{OURS} ")}
    if name == FURNACE:
        packages = tomllib.loads((PEERS / FURNACE / "Cargo.lock").read_text())["package"]
        installed = {package["name"]: package["version"] for package in packages}
    else:
        paths = [str(path) for path in venv(name).glob("lib/python*/site-packages")]
        installed = {one.name.lower(): one.version for one in metadata.distributions(path=paths)}
    return {package: version for package, version in installed.items() if package in SHOWN}
