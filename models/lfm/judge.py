"""Reference implementation of the service's judgement with a manifest of format 2: regions, class
of file, calibrated logit, evidence, verdict. The service's own code is src/judge/;
tests/data/judge/cases.json compares the two.
"""

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from lfm.data import SIDE, resize

CLASSES = (
    "lossless",
    "jpeg_95",
    "jpeg_90_95",
    "jpeg_80_90",
    "jpeg_70_80",
    "jpeg_below_70",
    "webp_lossy",
    "small",
)
APART = 128  # regions nearer than this in both directions are one
COUNTS = (1, 5, 9, 16)

# Luma quantisation at quality 50, ITU-T T.81 table K.1, row by row.
LUMA = np.array([
    16, 11, 10, 16, 24, 40, 51, 61, 12, 12, 14, 19, 26, 58, 60, 55,
    14, 13, 16, 24, 40, 57, 69, 56, 14, 17, 22, 29, 51, 87, 80, 62,
    18, 22, 37, 56, 68, 109, 103, 77, 24, 35, 55, 64, 81, 104, 113, 92,
    49, 64, 78, 87, 103, 121, 120, 101, 72, 92, 95, 98, 112, 100, 103, 99,
])  # fmt: skip


def quality(table: list[int]) -> int:
    """The JPEG quality whose scaled table is nearest to this one of 64 values (in the same order as
    `LUMA`), the highest of equals: as src/image/jpeg/quality.rs."""
    best = {}
    for q in range(100, 0, -1):
        scale = 5000 // q if q < 50 else 200 - 2 * q
        scaled = np.clip((LUMA * scale + 50) // 100, 1, 255)
        best[q] = int(((np.array(table) - scaled) ** 2).sum())
    return min(best, key=best.__getitem__)


def class_of(path: Path) -> str:
    with Image.open(path) as image:
        if min(image.size) < SIDE:
            return "small"
        if image.format == "JPEG":
            return jpeg_class(quality(image.quantization[image.layer[0][3]]))
    file = path.read_bytes()
    # No AVIF was validated.
    return "webp_lossy" if is_lossy_webp(file) or file[4:8] == b"ftyp" else "lossless"


def is_lossy_webp(file: bytes) -> bool:
    """Whether the picture, or the first frame of an animation, is in a chunk of lossy data."""
    at = 12
    while file[8:12] == b"WEBP" and at + 8 <= len(file):
        name, size = file[at : at + 4], int.from_bytes(file[at + 4 : at + 8], "little")
        if name in (b"VP8 ", b"VP8L"):
            return name == b"VP8 "
        # The chunks of a frame follow its 16 bytes.
        at += 8 + (16 if name == b"ANMF" else size + size % 2)
    return False


def jpeg_class(quality: int) -> str:
    for least, name in (
        (95, "jpeg_95"),
        (90, "jpeg_90_95"),
        (80, "jpeg_80_90"),
        (70, "jpeg_70_80"),
    ):
        if quality >= least:
            return name
    return "jpeg_below_70"


def regions(height: int, width: int, count: int) -> list[tuple[int, int]]:
    """The offsets (y, x) of the regions of a picture, both sides at least 256: the centre first.
    A region that nearly coincides with an earlier one is omitted, so a small picture has fewer."""
    spans = height - SIDE, width - SIDE

    def at(t: float, span: int) -> int:  # t in 0..1 of the way that a region can go
        return math.floor(span * t / 2) * 2

    def about(q: float, n: int) -> int:  # centred on the place q of the side
        return min(max(math.floor((n * q - SIDE // 2) / 2) * 2, 0), (n - SIDE) // 2 * 2)

    centre = [tuple((n - SIDE) // 2 // 2 * 2 for n in (height, width))]
    quadrants = [(about(q, height), about(p, width)) for q in (0.25, 0.75) for p in (0.25, 0.75)]
    steps = {9: (0, 0.5, 1), 16: (0, 1 / 3, 2 / 3, 1)}.get(count, ())
    places = [(i, j) for i in range(len(steps)) for j in range(len(steps)) if (i, j) != (1, 1)]
    grid = [(at(steps[i], spans[0]), at(steps[j], spans[1])) for i, j in places]
    wanted = centre + {1: [], 5: quadrants, 9: grid, 16: grid}[count]
    kept: list[tuple[int, int]] = []
    for y, x in wanted:
        if all(abs(y - a) >= APART or abs(x - b) >= APART for a, b in kept):
            kept.append((y, x))
    return kept


def cut(pixels: np.ndarray, count: int) -> np.ndarray:
    """The regions of a picture, uint8 (n, 256, 256, 3); a smaller picture is resized."""
    if min(pixels.shape[:2]) < SIDE:
        return resize(pixels)[None]
    places = regions(*pixels.shape[:2], count)
    return np.stack([pixels[y : y + SIDE, x : x + SIDE] for y, x in places])


@dataclass
class Judgement:
    logit: float
    score: float
    real_at_or_above: float  # share of real pictures of this class that score as high
    fake_at_or_below: float  # share of generated ones that score as low
    verdict: str  # real, fake or uncertain
    regions_disagree: bool


def table(manifest: dict, file_class: str, count: int) -> dict:
    """The evidence for `count` regions: that of the largest number, up to it, that has any."""
    tables = manifest["evidence"]["classes"][file_class]["regions"]
    return tables[str(max(int(n) for n in tables if int(n) <= count))]


def opens(manifest: dict, file_class: str, raw: list[float], share: float = 1.0) -> bool:
    """Whether `auto` runs more regions after those of `raw`, which cover `share` of the picture:
    while the sign is open, and to confirm a verdict that rests on little; never if they carry no
    information."""
    found, rule = table(manifest, file_class, len(raw)), manifest["regions"]["auto"]
    logit = found["a"] * float(np.mean(raw)) + found["b"]
    below = {
        "real": max(rule.get("confirm_below", 0.0), rule.get("confirm_real_below", 0.0)),
        "fake": rule.get("confirm_below", 0.0),
    }
    unconfirmed = share < below.get(judge(manifest, file_class, raw).verdict, 0.0)
    return found["a"] > 0 and (unconfirmed or abs(logit) < rule["open_below"])


def judge(manifest: dict, file_class: str, raw: list[float]) -> Judgement:
    """`raw` are the network's logits of the regions, none of which is without signal."""
    found, point = table(manifest, file_class, len(raw)), manifest["evidence"]["operating_point"]
    logits = found["a"] * np.array(raw) + found["b"]
    logit = found["a"] * float(np.mean(raw)) + found["b"]
    above, below, verdict = _verdict(found, point, logit)
    side = 1 if logit >= 0 else -1
    rule = manifest["regions"]["disagree"]
    apart = any(side * one <= -rule["margin"] for one in logits)
    if verdict == "real" and rule.get("real_below") is not None:
        doubted = [one for one in logits if _verdict(found, point, one)[2] != "real"]
        apart = apart or any(one >= rule["real_below"] for one in doubted)
    if apart and rule["voids"]:
        verdict = "uncertain"
    score = 1 / (1 + math.exp(-logit)) if logit > -700 else 0.0
    return Judgement(logit, score, above, below, verdict, apart)


def _verdict(found: dict, point: dict, logit: float) -> tuple[float, float, str]:
    """The shares of real and generated pictures that score beyond a logit, and what they say."""
    real, fake = np.array(found["real"]), np.array(found["fake"])
    above = float(((real >= logit).sum() + 1) / (len(real) + 1))
    below = float(((fake <= logit).sum() + 1) / (len(fake) + 1))
    called_fake, called_real = above <= point["false_alarms"], below <= point["misses"]
    if called_fake and (not called_real or above < below):
        return above, below, "fake"
    if called_real and (not called_fake or below < above):
        return above, below, "real"
    return above, below, "uncertain"
