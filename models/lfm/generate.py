"""Trains the zoo: the autoencoders that generate fakes of photographs for the detector's training.

    python -m lfm.generate --data DIR [--web DIR,DIR] --out runs/zoo

writes one checkpoint for each of `generators.ZOO`, trained on the real images of `--data` and
`--web` (without the sources kept for validation). Existing ones are kept.
"""

import argparse
import importlib.util
import sys
import time
import zlib
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import torch

from lfm import generators, restyle, translate, upscaler, web
from lfm.data import SIDE, Source, crop, load

# Excluded from training, for validation.
HELD_OUT = (*generators.HELD_OUT, *upscaler.HELD_OUT, restyle.NAME)


@dataclass
class Maker:
    """A generator, and the block size of which its images' sides must be multiples."""

    block: int
    make: generators.Generator


def load_zoo(
    folder: Path, names: Collection[str] | None = None, device: str = "cpu"
) -> dict[str, Maker]:
    """The available generators that are not held out, or those of `names`: the decoders and the upscalers
    in `folder` (run on `device`) and, if their packages are installed (`make made`), the super-resolution
    and style transfer networks and the CycleGAN."""

    def wanted(name: str) -> bool:
        return name in names if names is not None else name not in HELD_OUT

    zoo = {}
    for name, decoder in generators.ZOO.items():
        path = folder / f"{name}.pth"
        if wanted(name) and path.exists():
            model = generators.Autoencoder(decoder)
            model.load_state_dict(torch.load(path, map_location="cpu"))
            zoo[name] = Maker(decoder.block, generators.generator(model, device))
    for name, network in generators.SUPER_RESOLUTIONS.items():
        packages = map(importlib.util.find_spec, ("ncnn", network.package))
        if wanted(name) and all(packages):
            zoo[name] = Maker(network.block * network.step, generators.super_resolution(network))
    for name, u in upscaler.UPSCALERS.items():
        if wanted(name) and (folder / name).exists():
            zoo[name] = Maker(u.block, upscaler.upscaler(u, folder / name, device))
    if wanted(restyle.NAME) and importlib.util.find_spec(restyle.PACKAGE):
        zoo[restyle.NAME] = Maker(restyle.BLOCK, restyle.restyler())
    affordable = names or device != "cpu"  # 0.5 s for 160x160 pixels on one thread
    if wanted(translate.NAME) and affordable and importlib.util.find_spec(translate.PACKAGE):
        made = generators.generator(translate.pretrained(), device)
        zoo[translate.NAME] = Maker(translate.BLOCK, made)
    return zoo


def held_out(folder: Path, sources: list[Source], most: int) -> list[Source]:
    """For each generator that is held out, at most `most` photographs of `sources` and what it makes of them."""
    photographs = [image for source in sources for image in source.images[0]]
    photographs = [crop(image) for image in photographs if min(image.shape[:2]) >= SIDE]
    photographs = photographs[:: max(1, len(photographs) // most)][:most]
    made = []
    for name, maker in load_zoo(folder, HELD_OUT).items():
        side = SIDE // maker.block * maker.block
        given = [photograph[:side, :side] for photograph in photographs]
        made.append(Source(name, (given, [maker.make(one) for one in given])))
    return made


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="lfm.generate", description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="<source>/{0_real,1_fake}/...")
    parser.add_argument("--web", type=web.folders, default=[], help="folders with a MANIFEST.tsv")
    parser.add_argument("--out", type=Path, default=Path("runs/zoo"))
    parser.add_argument("--steps", type=int, default=700, help="of training, an up-sampling")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--only", nargs="*", help="of the zoo")
    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads)

    photographs = [image for source in load(args.data) for image in source.images[0]]
    pictures = web.pictures(args.web, held_out=False)
    photographs += [p.pixels for p in pictures if p.label == 0]
    photographs = [p for p in photographs if min(p.shape[:2]) >= 128]
    args.out.mkdir(parents=True, exist_ok=True)
    for name in args.only or generators.ZOO:
        decoder, path = generators.ZOO[name], args.out / f"{name}.pth"
        if path.exists():
            continue
        began = time.monotonic()
        steps = args.steps * (1 + len(decoder.factors)) // 2
        model = generators.train(
            decoder, photographs, steps, zlib.crc32(name.encode()), args.device
        )
        scratch = path.with_suffix(".tmp")
        torch.save(model.state_dict(), scratch)
        scratch.rename(path)
        print(f"{name}: {steps} steps, {time.monotonic() - began:.0f} s", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
