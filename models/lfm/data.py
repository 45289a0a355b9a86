"""Images in the paper's layout, `<source>/{0_real,1_fake}/*`, and the crops cut from them.

Whatever is done to an image of one class is done, with the same parameters, to one of the other
class of the same source: the label must never follow from size, format or quality.
"""

import io
import random
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

SIDE = 256  # of the network's input
MARGIN = 16  # of a recompression, so that the 8x8 grid lies at any even offset in the crop
FILTERS = [Image.Resampling[name] for name in ("LANCZOS", "BICUBIC", "BILINEAR", "BOX")]
LABELS = {"0_real": 0, "1_fake": 1}


@dataclass
class Source:
    """The decoded images of one source: `images[label]` are uint8 (H, W, 3), sorted by name, so
    that the i-th real and the i-th fake form a pair where the data has pairs."""

    name: str
    images: tuple[list[np.ndarray], list[np.ndarray]]

    def half(self, part: str, seed: int = 0) -> "Source":
        """A fixed random half of the pairs: "fit" to choose by, "report" to report on."""
        order = self._shuffled(seed)
        cut = (len(order) + 1) // 2
        return self._pairs(order[:cut] if part == "fit" else order[cut:])

    def share(self, share: float, seed: int = 0) -> "Source":
        """A fixed random part of the pairs, at least one: a smaller share is within a larger."""
        order = self._shuffled(seed)
        return self._pairs(order[: max(1, round(share * len(order)))])

    def _shuffled(self, seed: int) -> list[int]:
        order = list(range(min(map(len, self.images))))
        random.Random(f"{seed}/{self.name}").shuffle(order)
        return order

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
    """Preprocessing `resize`: both sides to 256 whatever the aspect, as the official code."""
    return np.asarray(Image.fromarray(pixels).resize((SIDE, SIDE), Image.Resampling.BILINEAR))


def crop(pixels: np.ndarray) -> np.ndarray:
    """Preprocessing `crop`: the 256x256 pixels at the centre, rounded down to an even offset (the
    2x2 blocks of NPR start at even places); a smaller image is resized."""
    height, width = pixels.shape[:2]
    if min(height, width) < SIDE:
        return resize(pixels)
    y, x = ((n - SIDE) // 2 // 2 * 2 for n in (height, width))
    return pixels[y : y + SIDE, x : x + SIDE]


PREPROCESS = {"resize": resize, "crop": crop}


def shrink(pixels: np.ndarray, factor: float, filter: int, least: int) -> np.ndarray:
    """Both sides by `factor`, the shorter one to no less than `least`."""
    factor = min(1.0, max(factor, least / min(pixels.shape[:2])))
    size = [round(n * factor) for n in pixels.shape[1::-1]]
    return np.asarray(Image.fromarray(pixels).resize(size, filter))


def recompress(pixels: np.ndarray, format: str, quality: int, chroma: str) -> np.ndarray:
    """Through a lossy file and back. `format` is JPEG or WEBP; WebP is always 4:2:0."""
    file = io.BytesIO()
    options = {"subsampling": chroma} if format == "JPEG" else {}
    Image.fromarray(pixels).save(file, format, quality=quality, **options)
    with Image.open(file) as image:
        return np.asarray(image.convert("RGB"))


@dataclass
class Augmentation:
    """How crops are drawn. `lossy` is the chance of a recompression, of quality `quality`..100;
    `resized` the chance that an image is resized to the input first (one smaller than the input
    always is); `scaled` that of being shrunk by any factor, down to half and what the crop needs."""

    crop: int = 128
    lossy: float = 0.0
    quality: int = 80
    resized: float = 0.5
    scaled: float = 0.0


def batch(
    sources: list[Source], size: int, how: Augmentation, rng: random.Random
) -> tuple[np.ndarray, np.ndarray]:
    """`size` crops, half of them real: uint8 (size, crop, crop, 3) and labels float32 (size,).

    A source is drawn with a chance that grows as the root of its size, so that a small one is
    seen often enough without its few images being learnt by heart. Both crops of a pair come from
    the same place of the same pair of images, where the source has pairs.
    """
    weights = [len(source.images[0]) ** 0.5 for source in sources]
    crops, labels = [], []
    for source in rng.choices(sources, weights, k=size // 2):
        resized = rng.random() < how.resized
        lossy = None
        if rng.random() < how.lossy:
            format = rng.choices(["JPEG", "WEBP"], [4, 1])[0]
            lossy = format, rng.randint(how.quality, 100), rng.choice(["4:2:0", "4:4:4"])
        scaled = None
        if rng.random() < how.scaled:
            scaled = rng.uniform(0.5, 1), rng.choice(FILTERS)
        which, place = rng.random(), rng.random()
        for label, images in enumerate(source.images):
            pixels = images[int(which * len(images))]
            if resized or min(pixels.shape[:2]) < SIDE:
                pixels = resize(pixels)
            if scaled:
                pixels = shrink(pixels, *scaled, least=how.crop + MARGIN)
            crops.append(_crop(pixels, how.crop, lossy, random.Random(place)))
            labels.append(label)
    return np.stack(crops), np.array(labels, np.float32)


def _crop(pixels: np.ndarray, side: int, lossy: tuple | None, rng: random.Random) -> np.ndarray:
    margin = MARGIN if lossy else 0
    pixels = _cut(pixels, side + margin, rng)
    if lossy:
        pixels = _cut(recompress(pixels, *lossy), side, rng)
    return pixels[:, ::-1] if rng.random() < 0.5 else pixels


def _cut(pixels: np.ndarray, side: int, rng: random.Random) -> np.ndarray:
    """A square at a random even offset, smaller only where the image is."""
    y, x = (2 * rng.randint(0, max(0, n - side) // 2) for n in pixels.shape[:2])
    return pixels[y : y + side, x : x + side]
