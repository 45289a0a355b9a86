"""Recomputes the hashes of golden.json with the reference: Pillow 11.3.0, as torchvision's Resize calls it.

    python3 -m venv .venv-pillow && .venv-pillow/bin/pip install pillow==11.3.0
    .venv-pillow/bin/python tests/golden/check_with_pillow.py
"""

import hashlib
import json
import pathlib
import sys

import PIL
from PIL import Image

HERE = pathlib.Path(__file__).parent
SIZE = (256, 256)


def sha256(data):
    return hashlib.sha256(data).hexdigest()


def reference(path):
    """The full-size and the resized RGB pixels; None if Pillow refuses the file."""
    try:
        with path.open("rb") as file, Image.open(file) as image:
            rgb = image.convert("RGB")
    except Exception:
        return None
    return rgb, rgb if rgb.size == SIZE else rgb.resize(SIZE, Image.BILINEAR)


def differences():
    golden = json.loads((HERE / "golden.json").read_text())
    for folder, entries in golden.items():
        for entry in entries:
            path = HERE / folder / entry["file"]
            pixels = reference(path)
            if "code" in entry:
                if "reference" in entry and entry["reference"] != ("refuses" if pixels is None else "opens"):
                    yield path, "the reference " + entry["reference"]
                continue
            if pixels is None:
                yield path, "the reference refuses it"
                continue
            for key, image in zip(("rgb_sha256", "rgb256_sha256"), pixels):
                if key in entry and sha256(image.tobytes()) != entry[key]:
                    yield path, key


if __name__ == "__main__":
    assert PIL.__version__ == "11.3.0", PIL.__version__
    wrong = list(differences())
    for path, what in wrong:
        print(f"{path.relative_to(HERE)}: {what}")
    sys.exit(bool(wrong))
