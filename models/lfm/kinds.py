"""Verdicts of real pictures by how they were taken (low light, developed from raw, film, camera traps) or by class of file.

`make kinds DATA=DIR`, DIR with `web/MANIFEST.tsv`. The kind follows from the origin and from what the file's EXIF says. Of the
pictures of `make registry` those that neither the network nor the evidence has seen:

    python -m lfm.kinds runs/registry --except models/val2.txt --by class
"""

import argparse
import csv
import pathlib
import re

from lfm import halves
from lfm.reship import counts, score

# The first that fits: kind, and what it is told by in the row's origin or EXIF.
KINDS = [
    ("low light (the sets DICM and LIME)", r"DICM-LIME"),
    ("film scans (McMaster)", r"McMaster"),
    ("camera traps", r"cameratrapai"),
    ("developed from raw", r"darktable|Lightroom|Camera Ra|raw photos"),
    ("other cameras and phones, with EXIF", r"EXIF"),
]
OTHER = "others (photo sites, samples of data sets)"


def kind_of(row):
    text = f"{row['path'].split('/')[0]} {row['generator_or_camera']}"
    return next((kind for kind, sign in KINDS if re.search(sign, text)), OTHER)


def table(judged, kinds):
    """`judged`: (kind, what `lfm-serve score` says) of each picture."""
    lines = [
        "| real pictures | n | `fake` | `real` | `uncertain` | the network's own logit above 0 |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for kind in kinds:
        mine = [line for of, line in judged if of == kind]
        alone = sum(line["logit_raw"] > 0 for line in mine)
        lines.append(f"| {kind} | {len(mine)} | {counts(mine)} | {alone} |")
    return "\n".join(lines)


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=pathlib.Path, help="DIR with MANIFEST.tsv")
    parser.add_argument(
        "--except",
        dest="without",
        type=pathlib.Path,
        help="a list of sources to leave out, as models/val2.txt",
    )
    parser.add_argument("--by", choices=["kind", "class"], default="kind")
    parser.add_argument("--binary", default="target/release/lfm-serve")
    parser.add_argument("--model", help="model folder; default: the bundled one")
    given = parser.parse_args(arguments)
    with (given.folder / "MANIFEST.tsv").open() as file:
        rows = [row for row in csv.DictReader(file, delimiter="\t") if row["label"] == "0"]
    without = halves.kept_out(given.without) if given.without else set()
    rows = [row for row in rows if row["path"].split("/")[0] not in without]
    files = {str(given.folder / row["path"]): kind_of(row) for row in rows}
    scored = score(given.binary, given.model, list(files))
    judged = [(path, line) for path, line in scored.items() if "verdict" in line]
    if given.by == "class":
        by_class = [
            ((line["evidence"] or {}).get("class", "no evidence"), line) for _, line in judged
        ]
        print(table(by_class, sorted({name for name, _ in by_class})))
    else:
        by_kind = [(files[path], line) for path, line in judged]
        print(table(by_kind, [*(kind for kind, _ in KINDS), OTHER]))


if __name__ == "__main__":
    main()
