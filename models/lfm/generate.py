"""Makes training images: photographs against the same photographs through a generator.

    python -m lfm.generate --data DIR --pool DIR --out DIR

`--data` is the training data, of which the real images are taken. `OUT/train/<generator>/` holds
pairs to train on. `OUT/unseen/` is for a check on what the training never saw: other generators, on
photographs of `--pool` (`real_imagenet/` and, for one set, the faces of `fake_faces_jpeg512/`).

A pair shares everything but the generator: its photograph is scaled or recompressed first, or left
alone, and both images are stored alike. A set that is complete is not made again.
"""

import argparse
import random
import sys
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from lfm import generators
from lfm.data import FILTERS, LABELS, SIDE, decode, load, recompress, shrink
from lfm.data import crop as centre

UNSEEN = ("shuffle_k3_x4", "shuffle_k3_x2", "realcugan_x2", "realesrgan_video_x4")


def history(pixels: np.ndarray, rng: random.Random) -> np.ndarray:
    """A photograph as it might be met: 256x256 of it, some shrunk before, some once a JPEG."""
    if rng.random() < 0.6:
        smallest = SIDE / min(pixels.shape[:2])
        pixels = shrink(pixels, rng.uniform(smallest, 1), rng.choice(FILTERS), least=SIDE)
    if rng.random() < 0.4:
        pixels = recompress(pixels, "JPEG", rng.randint(60, 98), rng.choice(["4:2:0", "4:4:4"]))
    y, x = (2 * rng.randint(0, (n - SIDE) // 2) for n in pixels.shape[:2])
    return pixels[y : y + SIDE, x : x + SIDE]


def make(name: str, learnt_from: np.ndarray, steps: int) -> generators.Generator:
    if name in generators.SUPER_RESOLUTIONS:
        return generators.super_resolution(generators.SUPER_RESOLUTIONS[name])
    decoder = generators.AUTOENCODERS[name]
    seed = zlib.crc32(name.encode())
    model = generators.train(decoder, learnt_from, steps * decoder.stages, seed)
    return generators.autoencoder(model)


@contextmanager
def whole(folder: Path) -> Iterator[Path]:
    """Another name to write the folder under, until it is whole."""
    scratch = folder.with_name(f".{folder.name}") / folder.name
    yield scratch
    scratch.rename(folder)
    scratch.parent.rmdir()


def write_pairs(
    folder: Path, photographs: list[np.ndarray], generate: generators.Generator, pairs: int
) -> None:
    rng = random.Random(folder.name)
    chosen = rng.sample(photographs, min(pairs, len(photographs)))
    for i, photograph in enumerate(chosen):
        real = history(photograph, rng)
        for label, pixels in zip(LABELS, (real, generate(real)), strict=True):
            (folder / label).mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(folder / label / f"{i:04}.png")


def large(folder: Path) -> list[np.ndarray]:
    images = [decode(path) for path in sorted(folder.glob("*"))]
    return [pixels for pixels in images if min(pixels.shape[:2]) >= SIDE]


def write_faces(folder: Path, photographs: list[np.ndarray], faces: list[np.ndarray]) -> None:
    """Photographs and generated faces, neither seen in training: their centres as equal JPEGs."""
    for label, images in zip(LABELS, (photographs, faces), strict=True):
        (folder / label).mkdir(parents=True, exist_ok=True)
        for i, pixels in enumerate(images[: min(len(photographs), len(faces))]):
            image = Image.fromarray(centre(pixels))
            image.save(folder / label / f"{i:04}.jpg", quality=90, subsampling="4:2:0")


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="lfm.generate", description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="<source>/{0_real,1_fake}/...")
    parser.add_argument("--pool", type=Path, help="photographs for the check; without: no check")
    parser.add_argument("--out", type=Path, default=Path("runs/made"))
    parser.add_argument("--pairs", type=int, default=120, help="of every set")
    parser.add_argument("--steps", type=int, default=2000, help="of an autoencoder, a doubling")
    parser.add_argument("--only", nargs="*", help="of the generators")
    args = parser.parse_args(argv)

    photographs = [image for source in load(args.data) for image in source.images[0]]
    photographs = [p for p in photographs if min(p.shape[:2]) >= SIDE]
    learnt_from = np.stack([centre(p) for p in photographs])
    unseen = []
    if args.pool:
        unseen = large(args.pool / "real_imagenet")
        folder = args.out / "unseen" / "faces"
        if not folder.exists():
            with whole(folder) as scratch:
                write_faces(scratch, unseen, large(args.pool / "fake_faces_jpeg512"))
    for name in tqdm([*generators.AUTOENCODERS, *generators.SUPER_RESOLUTIONS]):
        kept_out = name in UNSEEN
        folder = args.out / ("unseen" if kept_out else "train") / name
        if folder.exists() or (kept_out and not unseen) or (args.only and name not in args.only):
            continue
        generate = make(name, learnt_from, args.steps)
        with whole(folder) as scratch:
            write_pairs(scratch, unseen if kept_out else photographs, generate, args.pairs)
    return 0


if __name__ == "__main__":
    sys.exit(main())
