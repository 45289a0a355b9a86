"""HEIC files over the parameters of pillow-heif's encoder, with the pixels that it reads back. For tests/suite/heic.rs.

    .venv-heif/bin/python tests/golden/heic.py FOLDER COUNT

`digests.tsv` has a line a file: name, SHA-256 of the RGB pixels, whether it has to be refused (turned, its chroma samples would lie
between its pixels), width, height.
"""

import array
import hashlib
import io
import pathlib
import random
import struct
import sys

import pillow_heif
from avif import SIZES, picture
from PIL import Image

MATRICES = (1, 2, 4, 5, 6, 7, 9)


def deep(choose, image):
    """The same picture with more bits."""
    samples = array.array("H", (value << 8 | choose.randrange(256) for value in image.tobytes()))
    return pillow_heif.from_bytes(f"{image.mode};16", image.size, samples.tobytes())


def recoloured(choose, file):
    """Other code points for the same samples, or none: the colours are wrong, and known."""
    file = bytearray(file)
    at = file.find(b"colrnclx")
    if at < 0:
        return bytes(file)
    if choose.random() < 0.2:
        file[at : at + 4] = b"skip"
    else:
        points = choose.choice((1, 2, 9, 12)), choose.choice((1, 2, 13)), choose.choice(MATRICES), choose.choice((0, 128))
        struct.pack_into(">HHHB", file, at + 8, *points)
    return bytes(file)


def encode(choose, size):
    """A file, and whether it has to be refused."""
    mode = choose.choice(("RGB", "RGB", "RGB", "RGBA", "L", "LA"))
    chosen = {
        "quality": choose.choice((-1, 0, 20, 50, 75, 90, 100)),
        "chroma": choose.choice(("420", "420", "422", "444")),
        "enc_params": {"x265:pools": "none", "x265:frame-threads": "1"},
    }
    if choose.random() < 0.2:
        chosen["tile_size"] = choose.choice((64, 128))
    orientation, exif = choose.randrange(1, 9) if choose.random() < 0.4 else 1, Image.Exif()
    exif[0x112] = orientation
    if choose.random() < 0.2:
        chosen["save_nclx_profile"] = False
    image, file = picture(choose, size, mode), io.BytesIO()
    coloured = mode in ("RGB", "RGBA")
    if choose.random() < 0.3:
        # The orientation stays in EXIF alone, which is not heeded.
        image.save(file, "HEIF", exif=exif, **chosen)
        orientation = 1
    else:
        # The orientation becomes rotation and mirroring in the container.
        pillow_heif.options.SAVE_HDR_TO_12_BIT = choose.random() < 0.5
        heif = deep(choose, image) if coloured and choose.random() < 0.4 else pillow_heif.from_pillow(image)
        heif.save(file, exif=exif.tobytes(), **chosen)
    across, down = {"420": (2, 2), "422": (2, 1), "444": (1, 1)}[chosen["chroma"] if coloured else "444"]
    split = orientation > 1 and (size[0] % across or size[1] % down or (orientation > 4 and across != down))
    return recoloured(choose, file.getvalue()), bool(split)


def main(folder, count):
    pillow_heif.register_heif_opener()
    choose = random.Random(13)
    with (folder / "digests.tsv").open("w") as digests:
        for number in range(count):
            file = folder / f"{number:03}.heic"
            data, refused = encode(choose, choose.choice(SIZES))
            file.write_bytes(data)
            with Image.open(file) as image:
                rgb = image.convert("RGB")
            digest = hashlib.sha256(rgb.tobytes()).hexdigest()
            print(file.name, digest, int(refused), *rgb.size, sep="\t", file=digests)


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]), int(sys.argv[2]))
