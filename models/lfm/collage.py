"""Verdicts of pictures put together at random: a real centre among generated pictures, the reverse, and all real.

`make collages DATA=DIR`, DIR in the layout of `lfm-serve evaluate`, with pictures of 256 x 256 and more.
"""

import argparse
import pathlib
import random
import tempfile

from PIL import Image

from lfm.reship import counts, png, score

SIDE = 256


def centre(path):
    """The central 256 x 256 pixels, from even ones on."""
    with Image.open(path) as image:
        left, top = ((side - SIDE) // 4 * 2 for side in image.size)
        return image.convert("RGB").crop((left, top, left + SIDE, top + SIDE))


def collage(tiles, middle, count):
    """`count` x `count` of the pictures in random order, another one in the middle."""
    whole = Image.new("RGB", (SIDE * count, SIDE * count))
    places = [(SIDE * x, SIDE * y) for y in range(count) for x in range(count)]
    for tile, place in zip(tiles, places, strict=True):
        whole.paste(centre(tile), place)
    at = SIDE * (count - 1) // 2
    whole.paste(centre(middle), (at, at))
    return whole


def table(judged):
    """`judged`: (width, label of the centre, of the rest, what `lfm-serve score` says) of each collage."""
    lines = [
        "| pixels | centre | among | n | `fake` | `real` | `uncertain` |",
        "|---|---|---|---:|---:|---:|---:|",
    ]
    for of in dict.fromkeys(tuple(kind) for *kind, _ in judged):
        mine = [line for *kind, line in judged if tuple(kind) == of]
        width, inner, outer = of
        lines.append(f"| {width} x {width} | {inner} | {outer} | {len(mine)} | {counts(mine)} |")
    return "\n".join(lines)


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=pathlib.Path, help="SOURCE/0_real and SOURCE/1_fake")
    parser.add_argument("--binary", default="target/release/lfm-serve")
    parser.add_argument("--model", help="model folder; default: the bundled one")
    parser.add_argument("--count", type=int, default=40, help="collages of a size and kind")
    given = parser.parse_args(arguments)
    labels = {"real": "0_real", "generated": "1_fake"}
    pictures = {
        label: sorted(given.folder.glob(f"*/{name}/*.png")) for label, name in labels.items()
    }
    for label, files in pictures.items():
        pictures[label] = [file for file in files if min(Image.open(file).size) >= SIDE]
        if not pictures[label]:
            parser.error(f"{given.folder} has no {label} PNG of {SIDE} x {SIDE} or more")
    draw = random.Random(0)
    with tempfile.TemporaryDirectory() as folder:
        made = {}
        for count in (2, 3, 4):
            for inner, outer in [("real", "generated"), ("generated", "real"), ("real", "real")]:
                for number in range(given.count):
                    tiles = draw.choices(pictures[outer], k=count * count)
                    file = pathlib.Path(folder, f"{count}_{inner}_{outer}_{number}.png")
                    file.write_bytes(png(collage(tiles, draw.choice(pictures[inner]), count)))
                    made[str(file)] = (SIDE * count, inner, outer)
        scored = score(given.binary, given.model, list(made))
    print(table([(*of, scored[path]) for path, of in made.items()]))


if __name__ == "__main__":
    main()
