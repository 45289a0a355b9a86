"""Images of many sizes and formats, made from a golden photograph."""

import io
import random

from PIL import Image

from server import ROOT

PHOTO = ROOT / "tests/golden/images/orig_china.jpg"
# Sizes and their frequencies: most pictures are small, few come directly from a camera.
SIZES = [((256, 256), 4), ((1024, 768), 4), ((2000, 1500), 2), ((4000, 3000), 1)]
FORMATS = [("JPEG", {"quality": 90}), ("PNG", {"compress_level": 1}), ("WEBP", {"quality": 90, "method": 0})]


def encoded(size: tuple[int, int], format: str, options: dict) -> bytes:
    file = io.BytesIO()
    with Image.open(PHOTO) as photo:
        photo.convert("RGB").resize(size, Image.Resampling.BICUBIC).save(file, format, **options)
    return file.getvalue()


def mixed() -> list[bytes]:
    """256 px to 12 MP; JPEG, PNG and WebP; in a fixed order."""
    files = [encoded(size, *how) for size, weight in SIZES for how in FORMATS for _ in range(weight)]
    random.Random(1).shuffle(files)
    return files
