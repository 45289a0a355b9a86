"""A load on `lfm-serve serve`, with thresholds: `make load SCENARIO=name DURATION=60`. Exit status 1 if one is not met.

Starts its own server unless --url names one. Text on standard output; JSON and a page with plots in --out.
"""

import argparse
import asyncio
import json
import sys
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from urllib.parse import urlsplit

import page
from client import quantile
from scenarios import ALL, DEFAULT_IMAGE, Phase, Setting
from server import ROOT, Server


def figures(phase: Phase) -> dict:
    waits = phase.waits()
    statuses = sorted({answer.status for answer in phase.answers})
    return {
        "phase": phase.name,
        "seconds": phase.seconds,
        "asked": len(phase.answers),
        "statuses": {str(one): sum(answer.status == one for answer in phase.answers) for one in statuses},
        "scores_per_second": phase.scores_per_second(),
        "p50_ms": quantile(waits, 0.5),
        "p99_ms": quantile(waits, 0.99),
        "worst_ms": max(waits, default=None),
        **phase.notes,
    }


def text(rows: list[dict]) -> str:
    lines = []
    for row in rows:
        statuses = "  ".join(f"{status}: {count}" for status, count in row["statuses"].items())
        lines.append(f"  {row['phase']}: {row['scores_per_second']:.1f} images/s; {statuses}  (0: no answer)")
        if row["worst_ms"] is not None:
            lines.append(
                f"    scores after {row['p50_ms']:.1f} ms (p50), {row['p99_ms']:.1f} (p99), {row['worst_ms']:.1f} (worst)"
            )
        notes = {
            name: value
            for name, value in row.items()
            if name in ("memory_mib", "left", "run_for_nobody", "megabytes_per_image")
        }
        lines += [f"    {name.replace('_', ' ')}: {value:g}" for name, value in notes.items()]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "scenario", nargs="?", default="short", choices=list(ALL), metavar="SCENARIO", help=", ".join(ALL)
    )
    parser.add_argument("--seconds", type=float, default=10, help="of each part")
    parser.add_argument("--image", type=Path, default=DEFAULT_IMAGE)
    parser.add_argument("--p99-ms", type=float, default=1000, help="threshold below capacity")
    parser.add_argument("--url", help="a server that runs: http://HOST:PORT")
    parser.add_argument("--header", action="append", default=[], help='e.g. "authorization: Bearer KEY"')
    parser.add_argument("--out", type=Path, help="default: target/load/SCENARIO")
    given = parser.parse_args()

    scenario = ALL[given.scenario]
    print(f"{given.scenario}: {scenario.__doc__}", flush=True)
    with ExitStack() as stack:
        if given.url:
            url = urlsplit(given.url)
            address = (url.hostname, url.port or 80)
        else:
            address = stack.enter_context(Server("--log-level", "warn")).address
        setting = Setting(address, given.header, given.seconds, given.p99_ms, given.image.read_bytes())
        phases, thresholds = asyncio.run(scenario(setting))
    rows = [figures(phase) for phase in phases]
    print(text(rows))
    for threshold in thresholds:
        print(f"  {'held    ' if threshold.held else 'NOT HELD'}  {threshold.what}: {threshold.figure}")
    out = given.out or ROOT / "target/load" / given.scenario
    out.mkdir(parents=True, exist_ok=True)
    summary = {"scenario": given.scenario, "phases": rows, "thresholds": [asdict(one) for one in thresholds]}
    (out / "summary.json").write_text(json.dumps(summary, indent=1))
    (out / "index.html").write_text(page.html(given.scenario, scenario.__doc__, phases, rows, thresholds))
    print(f"  {out / 'index.html'}")
    sys.exit(not all(threshold.held for threshold in thresholds))


if __name__ == "__main__":
    main()
