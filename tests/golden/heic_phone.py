"""Makes heic/phone.heic and, from the pixels that pillow-heif reads in it, heic/phone.png.

    .venv-heif/bin/python tests/golden/heic_phone.py

A small picture as a phone stores its large ones: a grid, turned in the container, EXIF that would turn it once more, a second
picture. Its XMP says that it is generated.
"""

import pathlib

import pillow_heif
from PIL import Image

HERE = pathlib.Path(__file__).parent
XMP = b"""<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
<rdf:Description rdf:about="" xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/"
 Iptc4xmpExt:DigitalSourceType="http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"/></rdf:RDF></x:xmpmeta>"""


def main():
    photo = Image.open(HERE / "images/orig_rocket.jpg").convert("RGB").resize((160, 106), Image.Resampling.LANCZOS)
    del photo.info["icc_profile"]
    exif = Image.Exif()
    exif[0x112] = 6
    heif = pillow_heif.from_pillow(photo)
    heif.add_from_pillow(photo.resize((64, 64)))
    file = HERE / "heic/phone.heic"
    file.parent.mkdir(exist_ok=True)
    heif.save(file, quality=35, tile_size=64, exif=exif.tobytes(), xmp=XMP)
    pillow_heif.register_heif_opener()
    with Image.open(file) as image:
        image.convert("RGB").save(HERE / "heic/phone.png", optimize=True)


if __name__ == "__main__":
    main()
