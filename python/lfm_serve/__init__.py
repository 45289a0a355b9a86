"""Is this picture real or generated? The LFM detector in Python, with the answers of the service `lfm-serve`.

>>> import lfm_serve
>>> scorer = lfm_serve.Scorer()
>>> result = scorer.score("photo.jpg")
>>> result.verdict, round(result.score, 3)
('real', 0.06)

A file is judged as it was stored: give its bytes or its path, not its pixels, where you have it. docs/python.md of the
project is a tour.
"""

import atexit
import os

# ONNX Runtime's builds for Linux send an event to Microsoft at every start, unless this is set before.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

from lfm_serve import _native
from lfm_serve._answer import (
    Attribution,
    Cell,
    Claim,
    Declared,
    Evidence,
    Explanation,
    ImageInfo,
    Judged,
    ModelInfo,
    OperatingPoint,
    Region,
    RegionMap,
    Result,
    ScoreError,
)
from lfm_serve._scorer import Image, Scorer

__version__ = _native.VERSION

__all__ = [
    "Attribution",
    "Cell",
    "Claim",
    "Declared",
    "Evidence",
    "Explanation",
    "Image",
    "ImageInfo",
    "Judged",
    "ModelInfo",
    "OperatingPoint",
    "Region",
    "RegionMap",
    "Result",
    "ScoreError",
    "Scorer",
]

# What a traceback, a repr and a pickle call them.
for _name in __all__:
    if isinstance(globals()[_name], type):
        globals()[_name].__module__ = __name__

atexit.register(_native.at_exit)
os.register_at_fork(
    before=_native.before_fork,
    after_in_parent=_native.after_fork_in_parent,
    after_in_child=_native.after_fork_in_child,
)
