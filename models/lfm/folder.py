"""Writes a model folder: `manifest.json` and its graphs. models/README.md describes the manifest."""

import hashlib
import json
import os
import re
import shutil
import tempfile
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np

from lfm import graph
from lfm.weights import digest, top_k

PREPROCESSING = ("resize", "crop")


@dataclass
class Metadata:
    """The manifest's fields that do not follow from the weights."""

    name: str
    version: str = "1"
    preprocessing: str = "resize"
    threshold: float = 0.5  # score above which an image is fake
    band: list[float] | None = None  # [low, high] scores between which it is uncertain
    voiding: list[str] = field(default_factory=list)  # warnings that make a verdict uncertain
    lossy_below_quality: int | None = None  # JPEG quality under which `lossy_source` is given
    regions: dict | None = None  # format 2: how many regions of a picture are judged
    evidence: dict | None = None  # format 2: calibration and distributions by class of file
    val_score_histogram: dict | None = None
    licence_class: str = "unknown"
    provenance: dict = field(default_factory=dict)
    metrics: dict | None = None


# Lists of numbers are written on one line: the distributions have thousands.
NUMBERS = re.compile(r"\[[-+\d.eE,\s]+\]")


def dumped(manifest: dict) -> str:
    return json.dumps(manifest, indent=2, allow_nan=False) + "\n"


def write(target: Path, weights: dict[str, np.ndarray], meta: Metadata) -> dict:
    """Writes the folder `target` and returns its manifest. `weights` are canonical and are written
    unchanged: the service calibrates by class of file. Equal arguments write equal bytes.

    A new folder is created by one atomic rename. In an existing one each file is replaced by a
    rename, the manifest last: until then its hashes do not match the new graphs.
    """
    facts = asdict(meta)
    if meta.evidence is None:
        facts = {k: v for k, v in facts.items() if k not in ("regions", "evidence")}
    graphs = {
        "lfm.onnx": graph.build(weights, standard=False),
        "lfm.std.onnx": graph.build(weights, standard=True),
        "lfm.cpu.onnx": graph.build_for_cpu(weights),
    }
    manifest = {
        "format_version": 1 if meta.evidence is None else 2,
        "name": facts.pop("name"),
        "version": facts.pop("version"),
        "digest": digest(weights),
        "files": {
            name: {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
            for name, data in graphs.items()
        },
        "k": top_k(weights),
        "calibration": {"a": 1.0, "b": 0.0},  # no calibration is folded into the weights
        **facts,
    }
    text = re.sub(NUMBERS, lambda found: " ".join(found[0].split()), dumped(manifest))
    files = {**graphs, "manifest.json": text.encode()}

    new = not target.exists()
    place = target.parent if new else target  # on the file system of the target
    place.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=place))
    try:
        scratch.chmod(0o755)  # mkdtemp's 0700 would deny access to the service's user
        for name, data in files.items():
            (scratch / name).write_bytes(data)
        if new:
            os.rename(scratch, target)
        else:
            for name in files:
                os.replace(scratch / name, target / name)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return manifest
