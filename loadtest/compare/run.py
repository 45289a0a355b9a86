"""Us and others on the same cores, with the same files, in turns: `make compare`, `make compare-all`.

Every round visits every system in each placement: start, golden scores, saturation, half and four fifths of what it gave,
twice that, clients that leave, idleness. Results so far are in results.json after every visit.
"""

import argparse
import datetime
import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import machine
import plots
import report
from measure import QUICK, Durations, measure
from systems import BINARY, FIRST, OURS, PEERS, ROOT, SYSTEMS, System
from visit import Failed, Visit

HERE = Path(__file__).parent
GOLDEN = ROOT / "tests/golden/images"
# What is sent in turn: photographs of 640 x 427 and 600 x 400, as JPEG and WebP.
LOAD = ["orig_rocket.jpg", "orig_china.jpg", "orig_flower.jpg", "coffee_420_q75.jpg", "coffee_q80.webp"]


@dataclass(frozen=True)
class Placement:
    name: str
    server: list[int]
    client: list[int]


def placements() -> list[Placement]:
    allowed = sorted(os.sched_getaffinity(0))
    if len(allowed) < 2:
        sys.exit("two cores are needed: one for the server, one for its client")
    a, b = allowed[:2]
    return [
        Placement("server and client on one core each", [a], [b]),
        Placement("both sharing two cores", [a, b], [a, b]),
    ]


def say(began: float, text: str) -> None:
    print(f"[{(time.monotonic() - began) / 60:5.1f} min] {text}", flush=True)


def install(systems: list[System], began: float) -> dict[str, str]:
    """Makes the peers' virtual environments; returns the errors of those that cannot be had."""
    errors = {}
    for system in systems:
        if system.venv:
            ended = subprocess.run(["make", f"{system.venv.name}/.installed"], cwd=ROOT, capture_output=True, text=True)
            if ended.returncode:
                lines = [line for line in (ended.stdout + ended.stderr).splitlines() if line.strip()]
                errors[system.name] = "cannot be installed: " + " / ".join(lines[-4:])[-500:]
                say(began, f"{system.name}: {errors[system.name]}")
    return errors


def helper(program: str, cores: list[int], *arguments) -> dict:
    """One of the programs beside this one that run the detector without a server."""
    environment = {**os.environ, "PYTHONPATH": f"{ROOT / 'models'}:{PEERS}", "ORT_DISABLE_TELEMETRY": "1"}
    ended = subprocess.run(
        [sys.executable, HERE / program, *map(str, arguments)],
        env=environment,
        check=True,
        capture_output=True,
        text=True,
        preexec_fn=lambda: os.sched_setaffinity(0, cores),
    )
    return json.loads(ended.stdout)


def own_session(cores: list[int], quick: bool) -> float:
    """Images a second of our own session on decoded pixels, in the layout that the server takes."""
    command = [BINARY, "bench", "--only", "session", "--json", "--batch-sizes", "1", "--rounds", "2" if quick else "20"]
    ended = subprocess.run(
        command, cwd=ROOT, check=True, capture_output=True, text=True,
        preexec_fn=lambda: os.sched_setaffinity(0, cores),
    )  # fmt: skip
    rows = json.loads(ended.stdout)["sessions"]["rows"]
    return max(row["images_per_second"]["median"] for row in rows if row["intra_threads"] == 1)


def golden() -> dict[str, tuple[bytes, float]]:
    paths = sorted(str(path) for path in GOLDEN.iterdir())
    logits = helper("reference.py", sorted(os.sched_getaffinity(0)), *paths)
    return {Path(path).name: (Path(path).read_bytes(), logit) for path, logit in logits.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--all", action="store_true", help="all systems; without it: " + ", ".join(FIRST))
    parser.add_argument("--only", help="these systems, by commas")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--minutes", type=float, default=36, help="no round begins that would end later (not with --all)"
    )
    parser.add_argument("--quick", action="store_true", help="a test of this program: its figures mean nothing")
    parser.add_argument("--out", type=Path, help="default: loadtest/results/DATE")
    given = parser.parse_args()

    began = time.monotonic()
    names = given.only.split(",") if given.only else [s.name for s in SYSTEMS] if given.all else FIRST
    systems = [system for system in SYSTEMS if system.name in names]
    kind = "-quick" if given.quick else "-all" if given.all else ""
    out = given.out or ROOT / "loadtest/results" / f"{datetime.date.today()}{kind}"
    out.mkdir(parents=True, exist_ok=True)
    rounds, times = (min(given.rounds, 2), QUICK) if given.quick else (given.rounds, Durations())
    errors = install(systems, began)
    systems = [system for system in systems if system.name not in errors]
    expected, images = golden(), [(GOLDEN / name).read_bytes() for name in LOAD]
    results = {
        "machine": machine.describe(),
        "versions": machine.versions([system.venv for system in systems if system.venv]),
        "command": " ".join(["make", "compare-all" if given.all else "compare", *sys.argv[1:]]),
        "quick": given.quick,
        "files": LOAD,
        "graphs": {system.name: system.graph for system in systems},
        "errors": errors,
        "limits": [],
        "visits": [],
    }

    def save():
        partial = out / "results.json.part"
        partial.write_text(json.dumps(results, indent=1))
        partial.rename(out / "results.json")

    allowed = os.sched_getaffinity(0)
    failures: dict[str, int] = {}
    for number in range(rounds):
        round_began = time.monotonic()
        for placement in placements():
            limit = helper("limit.py", placement.server, times.saturated / 2, *(GOLDEN / name for name in LOAD))
            limit["own_session"] = own_session(placement.server, given.quick)
            results["limits"].append({"round": number, "placement": placement.name, **limit})
            # Another one begins each round, so that none always follows the same.
            for system in systems[number % len(systems) :] + systems[: number % len(systems)]:
                if failures.get(system.name, 0) > 1:
                    continue
                where = f"round {number + 1} of {rounds}, {placement.name}, {system.name}"
                os.sched_setaffinity(0, placement.client)
                try:
                    with Visit(system, placement.server, images[0]) as visit:
                        figures = measure(visit, images, expected, times)
                    say(began, f"{where}: {figures['saturated']['scores_per_second']:.1f} images/s")
                except (Failed, OSError, ValueError, LookupError) as error:
                    failures[system.name] = failures.get(system.name, 0) + 1
                    errors[system.name] = f"round {number + 1}, {placement.name}: {error or repr(error)}"
                    say(began, f"{where}: FAILED: {errors[system.name]}")
                else:
                    visit_of = {"round": number, "placement": placement.name, "system": system.name}
                    results["visits"].append({**visit_of, **figures})
                os.sched_setaffinity(0, allowed)
                save()
        spent = time.monotonic() - round_began
        if not given.all and time.monotonic() - began + spent > 60 * given.minutes and number + 1 < rounds:
            errors["time"] = f"{number + 1} of {rounds} rounds: another would not end within {given.minutes} minutes"
            say(began, errors["time"])
            break
    results["minutes"] = (time.monotonic() - began) / 60
    save()
    summary = report.summarise(results)
    (out / "summary.json").write_text(json.dumps(summary, indent=1))
    (out / "README.md").write_text(report.page(results, summary))
    plots.draw(summary, out)
    say(began, f"{out / 'README.md'}")
    if not any(row["system"] == OURS for row in summary["rows"]):
        sys.exit("our own server was not measured")


if __name__ == "__main__":
    main()
