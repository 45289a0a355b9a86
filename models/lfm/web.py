"""Single pictures of both classes as stored on the web, listed in the `MANIFEST.tsv` of a folder or several.

They are not pairs. So that the label does not depend on format, quality or chroma, a real and a
generated one are sampled together from one bucket of files that are stored alike.
"""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lfm import halves
from lfm.data import Source, decode

LEAST = 256  # pixels of the shorter side, for training
QUALITIES = (80, 90, 95)  # boundaries of the JPEG buckets
LARGEST = 640  # pixels of a side: of a larger picture the middle is kept, which saves memory


@dataclass
class Picture:
    origin: str
    path: Path
    label: int  # 1: generated
    stored: str  # bucket: lossless, lossless_once_lossy, jpeg_0, jpeg_80_420 ...
    pixels: np.ndarray


def bucket(row: dict[str, str]) -> str:
    """How the file was stored before it was collected."""
    if row["orig_format"] == "JPEG":
        quality = float(row["jpeg_q"])
        low = max([0, *(q for q in QUALITIES if quality >= q)])
        chroma = "444" if row["chroma"] == "4:4:4" else "420"
        return f"jpeg_{low}_{chroma}" if low in (80, 90) else f"jpeg_{low}"
    once_lossy = row["orig_format"] == "WEBP-lossy" or "grid trace" in row["stored"]
    return "lossless_once_lossy" if once_lossy else "lossless"


def folders(text: str) -> list[Path]:
    """Of an option: folders by commas."""
    return [Path(part) for part in text.split(",") if part]


def pictures(roots: Sequence[Path], held_out: bool) -> list[Picture]:
    """The pictures of every root's MANIFEST.tsv: those excluded from training, or all others."""
    out, found = halves.kept_out(), []
    for root in roots:
        for row in rows(root):
            origin = origin_of(row)
            if (origin in out) == held_out:
                path = root / row["path"]
                pixels = middle(decode(path))
                found.append(Picture(origin, path, int(row["label"]), bucket(row), pixels))
    return found


def rows(root: Path) -> list[dict[str, str]]:
    with (root / "MANIFEST.tsv").open() as file:
        return list(csv.DictReader(file, delimiter="\t"))


def origin_of(row: dict[str, str]) -> str:
    return row["path"].split("/")[0]


def absent(roots: Sequence[Path]) -> list[str]:
    """The sources of `val2.txt` of which no root has pictures."""
    return sorted(halves.kept_out() - {origin_of(row) for root in roots for row in rows(root)})


def middle(pixels: np.ndarray) -> np.ndarray:
    """At most `LARGEST` pixels a side, at offsets that keep the 16x16 blocks of a JPEG in place."""
    height, width = (min(n, LARGEST) for n in pixels.shape[:2])
    y, x = ((n - m) // 32 * 16 for n, m in zip(pixels.shape[:2], (height, width), strict=True))
    return pixels[y : y + height, x : x + width].copy()


def buckets(found: list[Picture]) -> dict[str, tuple[list[Picture], list[Picture]]]:
    """Pictures by bucket, real and generated; only buckets that have both."""
    by: dict[str, tuple[list[Picture], list[Picture]]] = {}
    for picture in found:
        if min(picture.pixels.shape[:2]) >= LEAST:
            by.setdefault(picture.stored, ([], []))[picture.label].append(picture)
    return {name: pair for name, pair in sorted(by.items()) if all(pair)}


def val2(roots: Sequence[Path]) -> list[Source]:
    """The excluded pictures, as the two sources `web_jpeg` and `web_lossless`."""
    sources = {name: Source(name, ([], [])) for name in ("web_jpeg", "web_lossless")}
    for picture in pictures(roots, held_out=True):
        name = "web_jpeg" if picture.stored.startswith("jpeg") else "web_lossless"
        sources[name].images[picture.label].append(picture.pixels)
    return list(sources.values())
