"""How verdicts change when pictures are re-shared: a fixed set of operations on labelled pictures.

`make reship DATA=DIR`, DIR in the layout of `lfm-serve evaluate`. Every picture is scored unchanged and after every
operation; one table counts the verdicts that flip, by operation, another the accuracy and coverage by the class of file
that a picture ends as, and the heat map shows the flips by operation and source.
"""

import argparse
import concurrent.futures
import html
import io
import json
import os
import pathlib
import subprocess
import sys
import tempfile

from PIL import Image, ImageEnhance, ImageFilter, ImageOps

from lfm import halves

Image.MAX_IMAGE_PIXELS = None
BICUBIC, BILINEAR, LANCZOS = (
    Image.Resampling.BICUBIC,
    Image.Resampling.BILINEAR,
    Image.Resampling.LANCZOS,
)
CLASSES = {"0_real": "real", "1_fake": "fake"}


def encoded(image, form, **settings):
    file = io.BytesIO()
    image.save(file, form, **settings)
    return file.getvalue()


def png(image):
    # Fast compression: the file's size does not matter.
    return encoded(image, "PNG", compress_level=1)


def jpeg(image, quality):
    return encoded(image, "JPEG", quality=quality)


def scaled(image, factor, how=BICUBIC):
    return image.resize([max(1, round(side * factor)) for side in image.size], how)


def from_64(image):
    """A thumbnail with a shorter side of 64 pixels, enlarged to the original size."""
    return scaled(image, 64 / min(image.size), LANCZOS).resize(image.size, BICUBIC)


def screenshot(image):
    """A viewer's window at a display scaling of 125 %, cropped with part of its frame."""
    shown = scaled(image, 1.25, BILINEAR)
    window = Image.new("RGB", (shown.width + 16, shown.height + 48), (43, 43, 43))
    window.paste(shown, (8, 40))
    return window


def corner(image):
    return image.crop((0, 0, min(200, image.width), min(200, image.height)))


def to_512(image):
    small = image.copy()
    small.thumbnail((512, 512), LANCZOS)
    return small


def turned(image):
    """Rotated by 2 degrees; the empty corners are cropped."""
    width, height = image.size
    edge = round(max(image.size) * 0.04)
    return image.rotate(2, BICUBIC).crop(
        (edge, edge, max(edge + 1, width - edge), max(edge + 1, height - edge))
    )


def reopened(data):
    return Image.open(io.BytesIO(data)).convert("RGB")


# Name: RGB picture to the bytes of a file. The first is the baseline of the others.
OPERATIONS = {
    "saved as PNG": png,
    "mirrored": lambda image: png(ImageOps.mirror(image)),
    "rotated by 90 degrees": lambda image: png(image.transpose(Image.Transpose.ROTATE_90)),
    "rotated by 2 degrees": lambda image: png(turned(image)),
    "enlarged from 64 pixels": lambda image: png(from_64(image)),
    "enlarged twice": lambda image: png(scaled(image, 2)),
    "enlarged by 1.5": lambda image: png(scaled(image, 1.5)),
    "enlarged by 1.25": lambda image: png(scaled(image, 1.25)),
    "shrunk to 0.8": lambda image: png(scaled(image, 0.8, LANCZOS)),
    "shrunk to 0.5": lambda image: png(scaled(image, 0.5, LANCZOS)),
    "screenshot at 125 %": lambda image: png(screenshot(image)),
    "corner of 200 pixels": lambda image: png(corner(image)),
    "to 512 pixels, JPEG 90": lambda image: jpeg(to_512(image), 90),
    "JPEG 95": lambda image: jpeg(image, 95),
    "JPEG 90": lambda image: jpeg(image, 90),
    "JPEG 85": lambda image: jpeg(image, 85),
    "JPEG 75": lambda image: jpeg(image, 75),
    "JPEG 70": lambda image: jpeg(image, 70),
    "JPEG 40": lambda image: jpeg(image, 40),
    "JPEG 90, then 75": lambda image: jpeg(reopened(jpeg(image, 90)), 75),
    "WebP 80": lambda image: encoded(image, "WEBP", quality=80),
    "median filter 3": lambda image: png(image.filter(ImageFilter.MedianFilter(3))),
    "sharpened": lambda image: png(image.filter(ImageFilter.UnsharpMask(1.5, 80, 2))),
    "brighter by a fifth": lambda image: png(ImageEnhance.Brightness(image).enhance(1.2)),
}


def labelled(folder):
    """(file, source, class) of every picture, one level of sets above the sources allowed."""
    found = []
    for place in sorted(
        {*folder.glob("[01]_*"), *folder.glob("*/[01]_*"), *folder.glob("*/*/[01]_*")}
    ):
        source = place.parent.relative_to(folder).as_posix()
        files = sorted(
            path for path in place.rglob("*") if path.is_file() and not path.name.startswith(".")
        )
        found += [(path, source, CLASSES[place.name]) for path in files if place.name in CLASSES]
    return found


def half_of(images, part):
    """A fixed random half of every source's pairs, as `lfm.data` has it."""
    groups = {}
    for image in images:
        groups.setdefault(image[1:], []).append(image)
    return [
        image
        for (source, _), own in groups.items()
        for image in (own[index] for index in halves.half(source, len(own), part))
    ]


def make(job):
    """Applies an operation to a file; false if it is not a picture."""
    source, name, target = job
    try:
        with Image.open(source) as image:
            target.write_bytes(OPERATIONS[name](image.convert("RGB")))
    except (OSError, ValueError) as error:
        print(f"{source}: {error}", file=sys.stderr)
        return False
    return True


def score(binary, model, files):
    """Results of `lfm-serve score`, by file."""
    said = {}
    # The command line's length is limited.
    for start in range(0, len(files), 500):
        command = [binary, "score", "--json", *(["--model", model] if model else [])]
        command += files[start : start + 500]
        done = subprocess.run(command, check=False, stdout=subprocess.PIPE, text=True)
        if done.returncode not in (0, 2):
            sys.exit(f"{binary} score ended with status {done.returncode}")
        said |= {line["path"]: line for line in map(json.loads, done.stdout.splitlines())}
    return said


def counts(lines):
    """Cells of a table: how many lines of `score` say fake, real and uncertain."""
    verdicts = [line["verdict"] for line in lines]
    return " | ".join(str(verdicts.count(verdict)) for verdict in ("fake", "real", "uncertain"))


def outcome(line):
    """Verdict and class of file of a line of `score`: none without a score."""
    return line.get("verdict"), (line.get("evidence") or {}).get("class")


def judge(binary, model, images, operations, workers):
    """Verdict and class of file of every image, unchanged and by operation:
    {operation: [(verdict, class)]}, both none where there is no score."""
    judged = {}
    with (
        tempfile.TemporaryDirectory() as folder,
        concurrent.futures.ProcessPoolExecutor(workers) as pool,
    ):
        for name in [None, *operations]:
            if name is None:
                files = [path for path, _, _ in images]
            else:
                files = [pathlib.Path(folder, f"{index:06}") for index in range(len(images))]
                jobs = [(image[0], name, file) for image, file in zip(images, files, strict=True)]
                list(pool.map(make, jobs, chunksize=4))
            made = [str(file) for file in files if file.is_file()]
            scored = score(binary, model, made)
            judged[name or "as stored"] = [outcome(scored.get(str(file), {})) for file in files]
            if name:
                for file in made:
                    os.unlink(file)
    return judged


def by_class(images, judged):
    """What verdicts are worth by class of file, all operations together."""
    groups = {}
    for found in judged.values():
        for image, (verdict, name) in zip(images, found, strict=True):
            if verdict is not None:
                groups.setdefault(name, []).append((image[2], verdict))
    rows = []
    for name, pairs in sorted(groups.items(), key=lambda group: str(group[0])):
        row = {"class": name, "coverage": sum(v != "uncertain" for _, v in pairs) / len(pairs)}
        for side in ("real", "fake"):
            called = [label for label, verdict in pairs if verdict == side]
            row[side] = {
                "n": sum(label == side for label, _ in pairs),
                "called": len(called),
                "right": called.count(side) / len(called) if called else None,
            }
        rows.append(row)
    return rows


def class_table(rows):
    lines = [
        "| class of file | files, real / generated | decided | called real, right | called fake, right |",
        "|---|---:|---:|---:|---:|",
    ]
    for row in rows:
        sides = [row["real"], row["fake"]]
        shares = ["-" if side["right"] is None else f"{side['right']:.0%}" for side in sides]
        called = [f"{side['called']}, {share}" for side, share in zip(sides, shares, strict=True)]
        files = " / ".join(str(side["n"]) for side in sides)
        cells = [row["class"] or "no evidence", files, f"{row['coverage']:.0%}", *called]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def summary(images, verdicts):
    """Counts by operation. A flip is a verdict that changes between real and fake."""
    before = verdicts["as stored"]
    other = {"real": "fake", "fake": "real"}
    rows = []
    for name, after in verdicts.items():
        row = {"operation": name, "n": sum(verdict is not None for verdict in after)}
        for label, opposite in other.items():
            mine = [
                index
                for index, image in enumerate(images)
                if image[2] == label and after[index] is not None
            ]
            row[label] = {
                "n": len(mine),
                "flipped": sum(after[i] == opposite and before[i] == label for i in mine),
                "wrong": sum(after[i] == opposite for i in mine),
                "undecided": sum(after[i] == "uncertain" for i in mine),
            }
        decided = sum(verdict in other for verdict in after)
        row["coverage"] = decided / row["n"] if row["n"] else None
        rows.append(row)
    return rows


def table(rows):
    lines = [
        "| operation | real turned fake | fake turned real | false alarms | misses | decided |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for row in rows:
        real, fake = row["real"], row["fake"]
        share = "" if row["coverage"] is None else f"{row['coverage']:.0%}"
        cells = [row["operation"], *(f"{part['flipped']}" for part in (real, fake)),
                 *(f"{part['wrong']} of {part['n']}" for part in (real, fake)), share]  # fmt: skip
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def heat_map(images, verdicts):
    """Flips by operation and by source and class, as SVG: white is none, the darkest is all."""
    before = verdicts["as stored"]
    other = {"real": "fake", "fake": "real"}
    columns = sorted(
        {(source, label) for _, source, label in images}, key=lambda column: (column[1], column[0])
    )
    names = [name for name in verdicts if name != "as stored"]
    left, top, width, height = 190, 150, 64, 22
    parts = [
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{left + width * len(columns) + 20}" '
            f'height="{top + height * len(names) + 40}" font-family="sans-serif" font-size="12">'
        ),
        '<rect width="100%" height="100%" fill="#fff"/>',
        f'<text x="{left}" y="20" font-size="14">Verdicts that turned, of those that were right as stored</text>',
    ]
    for place, (source, label) in enumerate(columns):
        x = left + width * place + width // 2
        title = html.escape(f"{source} {label}")
        parts.append(f'<text transform="translate({x},{top - 8}) rotate(-35)">{title}</text>')
    for line, name in enumerate(names):
        y = top + height * line
        parts.append(
            f'<text x="{left - 8}" y="{y + 15}" text-anchor="end">{html.escape(name)}</text>'
        )
        for place, column in enumerate(columns):
            mine = [
                i
                for i, image in enumerate(images)
                if image[1:] == column and before[i] == column[1]
            ]
            turned = sum(verdicts[name][i] == other[column[1]] for i in mine)
            share = turned / len(mine) if mine else 0
            # Vermilion for real ones called fake, blue for fakes called real: Okabe and Ito's pair.
            full = (213, 94, 0) if column[1] == "real" else (0, 114, 178)
            colour = ",".join(str(round(255 + (part - 255) * share)) for part in full)
            x, ink = left + width * place, "#fff" if share > 0.5 else "#222"
            text = f"{turned}/{len(mine)}" if mine else "-"
            parts.append(
                f'<rect x="{x}" y="{y}" width="{width - 2}" height="{height - 2}" fill="rgb({colour})" stroke="#ddd"/>'
                f'<text x="{x + width // 2}" y="{y + 15}" text-anchor="middle" fill="{ink}">{text}</text>'
            )
    return "\n".join([*parts, "</svg>\n"])


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=pathlib.Path, help="DIR/<source>/{0_real,1_fake}/...")
    parser.add_argument("--binary", default="target/release/lfm-serve")
    parser.add_argument("--model", help="model folder; default: the bundled one")
    parser.add_argument("--svg", type=pathlib.Path, help="where to draw the heat map")
    parser.add_argument("--json", type=pathlib.Path, help="where to write the counts")
    parser.add_argument("--half", choices=["fit", "report"], help="only this half of the pairs")
    parser.add_argument("--only", help="only these operations, e.g. 'JPEG 90,WebP 80'")
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    given = parser.parse_args(arguments)
    images = labelled(given.folder)
    if not images:
        sys.exit(f"{given.folder} holds no <source>/{{0_real,1_fake}} folders with pictures")
    if given.half:
        images = half_of(images, given.half)
    operations = given.only.split(",") if given.only else list(OPERATIONS)
    if unknown := set(operations) - set(OPERATIONS):
        sys.exit(f"no operation is called {', '.join(sorted(unknown))}: {', '.join(OPERATIONS)}")
    judged = judge(given.binary, given.model, images, operations, given.workers)
    verdicts = {name: [verdict for verdict, _ in found] for name, found in judged.items()}
    rows, classes = summary(images, verdicts), by_class(images, judged)
    for path, text in [
        (given.svg, heat_map(images, verdicts)),
        (given.json, json.dumps({"operations": rows, "classes": classes}, indent=1) + "\n"),
    ]:
        if path:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
    print(f"{table(rows)}\n\n{class_table(classes)}")


if __name__ == "__main__":
    main()
