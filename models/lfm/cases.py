"""Writes test cases that compare the service's judgement with the reference (`lfm.judge`).

python -m lfm.cases MODEL FILE.json
"""

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path

from lfm.judge import CLASSES, COUNTS, judge, opens, regions, table

SIZES = [(256, 256), (256, 300), (384, 384), (512, 512), (513, 767), (640, 400), (1001, 1503)]


def make(manifest: dict) -> dict:
    """Logits around every threshold of a class's verdicts, with one region and five, and the
    positions of the regions for several sizes."""
    cases = []
    for file_class in CLASSES:
        found = table(manifest, file_class, 1)
        a, b = found["a"], found["b"]
        turns = [-20.0, 0.0, 20.0]
        if a:
            at = [found["real"][-1], found["real"][len(found["real"]) * 95 // 100]]
            at += [found["fake"][0], found["fake"][len(found["fake"]) // 10]]
            turns += [round((t - b) / a + d, 3) for t in at for d in (-0.5, -0.01, 0.01, 0.5)]
        for raw in turns:
            cases.append(_case(manifest, file_class, [raw]))
        for raw in turns[2:6]:
            cases.append(_case(manifest, file_class, [raw, raw + 1, raw - 1, raw + 0.5, raw]))
            cases.append(_case(manifest, file_class, [raw, raw, -raw, -8.0, raw]))
        for raw in turns[-8:] if a else []:  # around what is called real
            cases.append(_case(manifest, file_class, [raw - 1, raw + 0.5, raw]))
    places = [
        {"height": h, "width": w, "count": n, "offsets": regions(h, w, n)}
        for h, w in SIZES
        for n in COUNTS
    ]
    return {"digest": manifest["digest"], "cases": cases, "regions": places}


def _case(manifest: dict, file_class: str, raw: list[float]) -> dict:
    found = asdict(judge(manifest, file_class, raw))
    return {"class": file_class, "raw": raw, **found, "opens": opens(manifest, file_class, raw)}


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="lfm.cases", description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path, help="a model folder of format 2")
    parser.add_argument("file", type=Path, help="the cases")
    args = parser.parse_args(argv)
    made = make(json.loads((args.model / "manifest.json").read_text()))
    args.file.parent.mkdir(parents=True, exist_ok=True)
    lines = [f' "{key}": [\n  ' + ",\n  ".join(json.dumps(row) for row in made[key]) + "\n ]"
             for key in ("cases", "regions")]  # fmt: skip
    text = "{\n" + ",\n".join([f' "digest": {json.dumps(made["digest"])}', *lines]) + "\n}\n"
    args.file.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
