"""Processing of a picture between its creation and the service: a camera's demosaicing, resampling,
sharpening, noise, rotation, lossy saves.

A history is sampled once and applied to both a real and a generated picture, so that the label does
not depend on it.
"""

import math
import random

import numpy as np
from PIL import Image, ImageFilter
from scipy.ndimage import convolve

from lfm.data import recompress

FILTERS = ("LANCZOS", "BICUBIC", "BILINEAR", "BOX")
Step = tuple  # its name, then its parameters
CHROMAS = ("4:2:0", "4:4:4")


def apply(pixels: np.ndarray, steps: list[Step]) -> np.ndarray:
    for name, *parameters in steps:
        pixels = STEPS[name](pixels, *parameters)
    return pixels


def needed(steps: list[Step], side: int) -> int:
    """The side of a square that is `side` after `steps`."""
    need = float(side)
    for name, *parameters in reversed(steps):
        if name == "scale":
            need = need / parameters[0] + 1
        elif name == "rotate":
            angle = math.radians(abs(parameters[0]))
            need = need * (math.cos(angle) + math.sin(angle)) + 2
    return math.ceil(need)


def draw(rng: random.Random, jpeg_first: float = 0.3) -> list[Step]:
    """A history of a picture: perhaps a JPEG, then one common operation. It ends lossless: a final
    lossy save would hide the traces to be learned."""
    steps: list[Step] = []
    if rng.random() < jpeg_first:
        steps.append(("jpeg", rng.randint(60, 98), rng.choice(CHROMAS)))
    filter = rng.choice(FILTERS)
    kind = rng.choices(list(KINDS), list(KINDS.values()))[0]
    if kind == "shrink":
        steps.append(("scale", rng.uniform(0.4, 1), filter))
    elif kind == "enlarge":
        steps.append(("scale", rng.uniform(1, 2), filter))
    elif kind == "screen":  # a page shown larger or smaller
        steps.append(("scale", rng.choice([0.5, 0.67, 0.75, 0.8, 0.9, 1.1, 1.25, 1.5, 2]), filter))
    elif kind == "again":  # shrunk once, then enlarged
        factor = rng.uniform(0.25, 0.8)
        steps += [("scale", factor, filter), ("scale", 1 / factor, rng.choice(FILTERS[:3]))]
    elif kind == "camera":
        # Shrunk first, which removes what the photograph's own camera and codec left.
        steps.append(("scale", rng.uniform(0.35, 0.6), filter))
        mosaic = rng.choice(list(DEMOSAICING)), rng.randrange(2), rng.randrange(2)
        steps.append(("demosaic", *mosaic, rng.uniform(0, 4), rng.getrandbits(32)))
    elif kind == "rotate":
        steps.append(("rotate", rng.choice([-1, 1]) * rng.uniform(0.5, 30)))
    elif kind == "denoise":
        steps.append(rng.choice([("median",), ("blur", rng.uniform(0.3, 0.9))]))
    if kind == "sharpen" or (kind != "denoise" and rng.random() < 0.2):
        steps.append(("sharpen", rng.uniform(0.5, 2), rng.randint(30, 150)))
    if kind == "noise":
        steps.append(("noise", rng.uniform(0.5, 6), rng.getrandbits(32)))
    return steps


KINDS = {"shrink": 6, "enlarge": 5, "screen": 3, "again": 3, "rotate": 1, "denoise": 2,
         "sharpen": 2, "noise": 2, "camera": 5}  # fmt: skip

# Filters of 1/16 or 1/4 over the mosaic: the colour missing at a pixel. Malvar, He and Cutler, "High-quality linear
# interpolation for demosaicing of Bayer-patterned color images" (2004), figure 2; bilinear interpolation.
# fmt: off
CROSS = np.float32([
    [0, 0, -2, 0, 0], [0, 0, 4, 0, 0], [-2, 4, 8, 4, -2], [0, 0, 4, 0, 0], [0, 0, -2, 0, 0],
]) / 16
ROW = np.float32([
    [0, 0, 1, 0, 0], [0, -2, 0, -2, 0], [-2, 8, 10, 8, -2], [0, -2, 0, -2, 0], [0, 0, 1, 0, 0],
]) / 16
CORNERS = np.float32([
    [0, 0, -3, 0, 0], [0, 4, 0, 4, 0], [-3, 0, 12, 0, -3], [0, 4, 0, 4, 0], [0, 0, -3, 0, 0],
]) / 16
# fmt: on
DEMOSAICING = {
    # green at red and blue; red and blue at green in their row, in their column; red at blue and blue at red
    "malvar": (CROSS, ROW, ROW.T, CORNERS),
    "bilinear": (
        np.float32([[0, 1, 0], [1, 0, 1], [0, 1, 0]]) / 4,
        np.float32([[0, 0, 0], [1, 0, 1], [0, 0, 0]]) / 2,
        np.float32([[0, 1, 0], [0, 0, 0], [0, 1, 0]]) / 2,
        np.float32([[1, 0, 1], [0, 0, 0], [1, 0, 1]]) / 4,
    ),
}


def scale(pixels: np.ndarray, factor: float, filter: str) -> np.ndarray:
    size = [max(1, round(n * factor)) for n in pixels.shape[1::-1]]
    return np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling[filter]))


def rotate(pixels: np.ndarray, degrees: float) -> np.ndarray:
    """Rotates, and crops to the largest upright rectangle of the same shape within the picture."""
    turned = np.asarray(Image.fromarray(pixels).rotate(degrees, Image.Resampling.BICUBIC))
    angle = math.radians(abs(degrees))
    share = 1 / (math.cos(angle) + math.sin(angle) * max(pixels.shape[:2]) / min(pixels.shape[:2]))
    height, width = (int(n * share) for n in pixels.shape[:2])
    y, x = (pixels.shape[0] - height) // 2, (pixels.shape[1] - width) // 2
    return turned[y : y + height, x : x + width]


def noise(pixels: np.ndarray, deviation: float, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    noisy = pixels + rng.normal(0, deviation, pixels.shape).astype(np.float32)
    return np.uint8(np.clip(np.round(noisy), 0, 255))


def demosaic(
    pixels: np.ndarray, method: str, y: int, x: int, deviation: float, seed: int
) -> np.ndarray:
    """What a sensor behind a Bayer mosaic (red at `y`, `x` of each 2x2 block) makes of a picture: one colour
    a pixel, with its noise, and the other two interpolated."""
    rows, columns = (np.arange(n) % 2 for n in pixels.shape[:2])
    red, blue = (np.ix_(rows == (y ^ i), columns == (x ^ i)) for i in (0, 1))
    own = np.ones(pixels.shape[:2], int)  # the colour that a pixel has
    own[red], own[blue] = 0, 2
    mosaic = np.take_along_axis(pixels, own[..., None], 2)[..., 0].astype(np.float32)
    mosaic += np.random.default_rng(seed).normal(0, deviation, mosaic.shape)
    cross, in_row, in_column, corners = (
        convolve(mosaic, kernel, mode="mirror") for kernel in DEMOSAICING[method]
    )
    made = np.empty(pixels.shape, np.float32)
    made[..., 1] = np.where(own == 1, mosaic, cross)
    for colour, row in ((0, y), (2, 1 - y)):
        at_green = np.where((rows == row)[:, None], in_row, in_column)
        made[..., colour] = np.where(own == colour, mosaic, np.where(own == 1, at_green, corners))
    return np.uint8(np.clip(np.round(made), 0, 255))


def filtered(pixels: np.ndarray, filter: ImageFilter.Filter) -> np.ndarray:
    return np.asarray(Image.fromarray(pixels).filter(filter))


STEPS = {
    "scale": scale,
    "rotate": rotate,
    "noise": noise,
    "demosaic": demosaic,
    "jpeg": lambda pixels, quality, chroma: recompress(pixels, "JPEG", quality, chroma),
    "webp": lambda pixels, quality: recompress(pixels, "WEBP", quality, "4:2:0"),
    "median": lambda pixels: filtered(pixels, ImageFilter.MedianFilter(3)),
    "blur": lambda pixels, radius: filtered(pixels, ImageFilter.GaussianBlur(radius)),
    "sharpen": lambda pixels, radius, percent: filtered(
        pixels, ImageFilter.UnsharpMask(radius, percent, 0)
    ),
}
