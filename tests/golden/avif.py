"""AVIF files over the parameters of Pillow's encoder, with the pixels that Pillow reads back. For tests/suite/avif.rs.

    .venv-pillow/bin/python tests/golden/avif.py FOLDER COUNT

`digests.tsv` has a line a file: name, SHA-256 of the RGB pixels, orientation, whether colours are premultiplied.
"""

import hashlib
import pathlib
import random
import sys

from PIL import Image, ImageChops, ImageDraw

SIZES = [(1, 1), (2, 2), (1, 7), (7, 1), (3, 5), (16, 16), (17, 33), (64, 64), (65, 63), (128, 97), (255, 200), (301, 300)]


def picture(choose, size, mode):
    """Shapes of many sizes over a gradient, with grain."""
    bands = []
    for _ in range(4):
        band = Image.linear_gradient("L").rotate(90 * choose.randrange(4)).resize(size)
        draw = ImageDraw.Draw(band)
        for _ in range(8):
            (x0, x1), (y0, y1) = (sorted(choose.randrange(side) for _ in range(2)) for side in size)
            draw.ellipse((x0, y0, x1, y1), fill=choose.randrange(256))
        grain = Image.new("L", size)
        # Pillow's own noise has no seed.
        grain.putdata([choose.randrange(choose.choice((1, 4, 30))) for _ in range(size[0] * size[1])])
        bands.append(ImageChops.add(band, grain))
    return Image.merge("RGBA", bands).convert(mode)


def options(choose, mode):
    chosen = {
        "quality": choose.choice((0, 5, 20, 40, 60, 75, 85, 95, 100)),
        "subsampling": choose.choice(("4:4:4", "4:2:2", "4:2:0", "4:0:0")),
        "range": choose.choice(("full", "limited")),
        "speed": choose.choice((5, 6, 7, 8, 9, 10)),
    }
    if choose.random() < 0.3:
        chosen |= {"tile_rows": choose.randrange(4), "tile_cols": choose.randrange(4), "autotiling": False}
    if mode in ("RGBA", "LA") and choose.random() < 0.15:
        chosen["alpha_premultiplied"] = True
    if choose.random() < 0.2:
        chosen["icc_profile"] = bytes(200)
    if choose.random() < 0.2:
        chosen["xmp"] = b"<x:xmpmeta/>"
    if choose.random() < 0.3:
        exif = Image.Exif()
        exif[0x112] = choose.randrange(1, 9)
        chosen["exif"] = exif
    if choose.random() < 0.3:
        choices = ({"film-grain-test": "3"}, {"enable-cdef": "0"}, {"tune": "ssim"}, {"color:sharpness": "2"})
        chosen["advanced"] = choose.choice(choices)
    return chosen


def main(folder, count):
    choose = random.Random(11)
    with (folder / "digests.tsv").open("w") as digests:
        for number in range(count):
            mode = choose.choice(("RGB", "RGB", "RGB", "RGBA", "RGBA", "L", "LA"))
            file = folder / f"{number:03}.avif"
            chosen = options(choose, mode)
            picture(choose, choose.choice(SIZES), mode).save(file, **chosen)
            with Image.open(file) as image:
                orientation = image.getexif().get(0x112, 1)
                digest = hashlib.sha256(image.convert("RGB").tobytes()).hexdigest()
            premultiplied = "alpha_premultiplied" in chosen
            print(file.name, digest, int(premultiplied), orientation, sep="\t", file=digests)


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]), int(sys.argv[2]))
