"""Images in the paper's layout, `<source>/{0_real,1_fake}/*`, and the service's preprocessing."""

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from lfm import halves

SIDE = 256  # of the network's input
LABELS = {"0_real": 0, "1_fake": 1}


@dataclass
class Source:
    """The decoded images of one source: `images[label]` are uint8 (H, W, 3), sorted by name, so
    that the i-th real and the i-th fake form a pair if the data has pairs."""

    name: str
    images: tuple[list[np.ndarray], list[np.ndarray]]

    def half(self, part: str, seed: int = 0) -> "Source":
        """A fixed random half of the pairs: "fit" for selection, "report" for reporting. If the
        classes differ in number there are no pairs: then half of each class."""
        if len({len(images) for images in self.images}) > 1:
            alone = [Source(self.name, (images, images)).half(part, seed) for images in self.images]
            return Source(self.name, tuple(source.images[0] for source in alone))
        return self._pairs(halves.half(self.name, len(self.images[0]), part, seed))

    def share(self, share: float, seed: int = 0) -> "Source":
        """A fixed random part of the pairs, at least one; a smaller share is a subset of a larger."""
        order = halves.shuffled(self.name, min(map(len, self.images)), seed)
        return self._pairs(order[: max(1, round(share * len(order)))])

    def _pairs(self, chosen: list[int]) -> "Source":
        images = tuple([images[i] for i in sorted(chosen)] for images in self.images)
        return Source(self.name, images)


def load(root: Path) -> list[Source]:
    """Every source under `root`, one level of sets above allowed. Raises `ValueError` for none."""
    sources = []
    for real in sorted([*root.glob("*/0_real"), *root.glob("*/*/0_real")]):
        folder = real.parent
        images = tuple(
            [decode(path) for path in sorted((folder / name).glob("*")) if path.is_file()]
            for name in LABELS
        )
        sources.append(Source(folder.relative_to(root).as_posix(), images))
    if not sources or not all(a and b for a, b in (source.images for source in sources)):
        raise ValueError(f"{root}: want images under <source>/0_real and <source>/1_fake")
    return sources


def decode(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def resize(pixels: np.ndarray) -> np.ndarray:
    """Preprocessing `resize`: both sides to 256, without the aspect ratio, as the official code."""
    return np.asarray(Image.fromarray(pixels).resize((SIDE, SIDE), Image.Resampling.BILINEAR))


def crop(pixels: np.ndarray) -> np.ndarray:
    """Preprocessing `crop`: the 256x256 pixels at the centre, rounded down to an even offset (the
    2x2 blocks of NPR start at even positions); a smaller image is resized."""
    height, width = pixels.shape[:2]
    if min(height, width) < SIDE:
        return resize(pixels)
    y, x = ((n - SIDE) // 2 // 2 * 2 for n in (height, width))
    return pixels[y : y + SIDE, x : x + SIDE]


PREPROCESS = {"resize": resize, "crop": crop}


def recompress(pixels: np.ndarray, format: str, quality: int, chroma: str) -> np.ndarray:
    """Encodes lossily and decodes again. `format` is JPEG or WEBP; WebP is always 4:2:0."""
    file = io.BytesIO()
    options = {"subsampling": chroma} if format == "JPEG" else {}
    Image.fromarray(pixels).save(file, format, quality=quality, **options)
    with Image.open(file) as image:
        return np.asarray(image.convert("RGB"))
