"""Measures the stages, predicts waits by load, compares them with a measured curve, and writes the figures into
docs/scaling.md: `make capacity`, on an idle machine.
"""

import argparse
import datetime
import json
import os
import sys
from dataclasses import asdict
from pathlib import Path

import machine
import tables
from chart import draw
from markdown import refreshed
from memory import replica_gib
from server import ROOT
from stages import TYPICAL, curve, measure, megapixels

SHARES = [0.1, 0.3, 0.5, 0.7, 0.8, 0.9]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=15, help="of each load of the curve in a round")
    parser.add_argument("--rounds", type=int, default=3, help="of the curve")
    parser.add_argument("--quick", action="store_true", help="a test of this program: its figures mean nothing")
    parser.add_argument("--out", type=Path, help="default: loadtest/results/DATE")
    given = parser.parse_args()
    rounds, seconds = (1, 1.5) if given.quick else (given.rounds, given.seconds)
    today = datetime.date.today()
    out = given.out or ROOT / "loadtest/results" / f"{today}{'-quick' if given.quick else ''}"
    allowed = sorted(os.sched_getaffinity(0))
    if len(allowed) < 2:
        sys.exit("two cores are needed")
    described = machine.describe()

    print("stages", flush=True)
    stages, found = measure(seconds / 3)
    typical, curves = megapixels(TYPICAL), []
    for cores, client in ((allowed[:1], allowed[1:2]), (allowed[:2], allowed[:2])):
        print(f"{len(cores)} cores", flush=True)
        rows = curve(cores, client, SHARES, stages, rounds, seconds)
        curves.append({"cores": len(cores), "rows": rows})

    fleets = [
        tables.fleet(stages, rate, cores, typical, found["image_bytes"], replica_gib(cores))
        for rate, cores in tables.EXAMPLES
    ]
    about = f"{described['Model name']}, {today}" + (
        " (a quick run: these figures mean nothing)" if given.quick else ""
    )
    blocks = {
        "where": f"Measured on {about}; images of {TYPICAL[0]} x {TYPICAL[1]} pixels, {found['image_bytes'] / 1000:.0f} kB.",
        "stages": tables.stages_block(stages, typical, found["decode_points"]),
        "curve": tables.curve_block(curves),
        "cores": tables.cores_block(stages, typical),
        "fleet": tables.fleet_block(fleets),
    }
    out.mkdir(parents=True, exist_ok=True)
    result = {"machine": described, "stages": asdict(stages), "found": found, "curves": curves, "fleets": fleets}
    (out / "capacity.json").write_text(json.dumps(result, indent=1))
    draw(curves, out / "capacity.svg")
    document = ROOT / "docs/scaling.md"
    written = out / "scaling.md" if given.quick else document
    written.write_text(refreshed(document.read_text(), blocks))
    print(f"{written}, {out}/capacity.json, {out}/capacity.svg")


if __name__ == "__main__":
    main()
