"""Our server and others on the same cores, with the same files, interleaved: `make compare`, `make compare-all`.

Every round visits every system in each placement: start, golden scores, saturation, half and four fifths of that
throughput, twice that, clients that disconnect, idle. After every visit results.json has the results so far.
"""

import argparse
import datetime
import json
import os
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import machine
import plots
import report
from markdown import refreshed
from measure import QUICK, Durations, measure
from server import bare_sessions
from systems import FIRST, OURS, PEERS, ROOT, SYSTEMS, System
from versions import versions
from visit import Failed, Visit

HERE = Path(__file__).parent
GOLDEN = ROOT / "tests/golden/images"
# Sent in rotation: photographs of 640 x 427 and 600 x 400, as JPEG and WebP.
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


def helper(program: str, cores: list[int], *arguments) -> dict:
    """Runs one of the programs in this folder that use the detector without a server."""
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
    """Images per second of our own session on decoded pixels, in the server's layout."""
    rows = bare_sessions("--batch-sizes", "1", "--rounds", "2" if quick else "20", cores=cores)
    return max(row["images_per_second"]["median"] for row in rows if row["intra_threads"] == 1)


def golden_logits() -> dict[str, tuple[bytes, float]]:
    paths = sorted(str(path) for path in GOLDEN.iterdir())
    logits = helper("reference.py", sorted(os.sched_getaffinity(0)), *paths)
    return {Path(path).name: (Path(path).read_bytes(), logit) for path, logit in logits.items()}


class Comparison:
    """The rounds and their results so far, saved after every visit."""

    def __init__(self, given: argparse.Namespace):
        self.began = time.monotonic()
        self.given = given
        names = given.only.split(",") if given.only else [s.name for s in SYSTEMS] if given.all else FIRST
        self.date = str(datetime.date.today())
        kind = "-quick" if given.quick else "-all" if given.all else ""
        self.out = given.out or ROOT / "loadtest/results" / (self.date + kind)
        self.out.mkdir(parents=True, exist_ok=True)
        self.rounds, self.times = (min(given.rounds, 2), QUICK) if given.quick else (given.rounds, Durations())
        self.errors: dict[str, str] = {}
        self.failures: Counter[str] = Counter()
        wanted = [system for system in SYSTEMS if system.name in names]
        self.systems = [system for system in wanted if self.install(system)]
        self.results = {
            "machine": machine.describe(),
            "versions": versions(self.systems),
            "command": f"make compare{'-all' if given.all else ''}" + (f' ARGS="{given.shown}"' if given.shown else ""),
            "quick": given.quick,
            "files": LOAD,
            "errors": self.errors,
            "limits": [],
            "visits": [],
        }

    def say(self, text: str) -> None:
        print(f"[{(time.monotonic() - self.began) / 60:5.1f} min] {text}", flush=True)

    def failed(self, name: str, why: str) -> None:
        self.errors[name] = why
        self.say(f"{name}: {why}")

    def install(self, system: System) -> bool:
        """Builds what the system runs from."""
        if not system.installed_by:
            return True
        ended = subprocess.run(["make", system.installed_by], cwd=ROOT, capture_output=True, text=True)
        if ended.returncode:
            lines = [line for line in (ended.stdout + ended.stderr).splitlines() if line.strip()]
            self.failed(system.name, "cannot be installed: " + " / ".join(lines[-4:])[-500:])
        return ended.returncode == 0

    def run(self) -> None:
        golden, images = golden_logits(), [(GOLDEN / name).read_bytes() for name in LOAD]
        for number in range(self.rounds):
            began = time.monotonic()
            for placement in placements():
                self.limits(number, placement)
                # Each round starts with another system, so that none always follows the same one.
                turn = number % len(self.systems)
                for system in self.systems[turn:] + self.systems[:turn]:
                    # A system that failed twice is skipped, to save time for the others.
                    if self.failures[system.name] < 2:
                        self.visit(number, placement, system, golden, images)
            end = 2 * time.monotonic() - began  # of another round
            if not self.given.all and end - self.began > 60 * self.given.minutes and number + 1 < self.rounds:
                self.failed(
                    "time", f"{number + 1} of {self.rounds} rounds, so as to end within {self.given.minutes} minutes"
                )
                break

    def limits(self, number: int, placement: Placement) -> None:
        try:
            files = [GOLDEN / name for name in LOAD]
            limit = helper("limit.py", placement.server, self.times.saturated / 2, *files)
            limit["own_session"] = own_session(placement.server, self.given.quick)
        except subprocess.CalledProcessError as error:
            self.failed("bare session", f"round {number + 1}, {placement.name}: {error.stderr[-300:]}")
        else:
            self.results["limits"].append({"round": number, "placement": placement.name, **limit})

    def visit(self, number: int, placement: Placement, system: System, golden: dict, images: list[bytes]) -> None:
        where = f"round {number + 1} of {self.rounds}, {placement.name}"
        allowed = os.sched_getaffinity(0)
        os.sched_setaffinity(0, placement.client)
        try:
            with Visit(system, placement.server, images[0]) as visit:
                figures = measure(visit, images, golden, self.times)
        except (Failed, OSError, ValueError, LookupError) as error:
            self.failures[system.name] += 1
            self.failed(system.name, f"{where}: {error or repr(error)}")
        else:
            about = {"round": number, "placement": placement.name, "system": system.name}
            self.results["visits"].append({**about, **figures})
            self.say(f"{where}, {system.name}: {figures['saturated']['scores_per_second']:.1f} images/s")
        finally:
            os.sched_setaffinity(0, allowed)
        self.save()

    def save(self) -> None:
        self.results["minutes"] = (time.monotonic() - self.began) / 60
        partial = self.out / "results.json.part"
        partial.write_text(json.dumps(self.results, indent=1))
        partial.rename(self.out / "results.json")

    def report(self) -> None:
        """Writes the page of the results so far."""
        self.save()
        summary = report.summarise(self.results)
        page = self.out / "README.md"
        (self.out / "summary.json").write_text(json.dumps(summary, indent=1))
        page.write_text(report.page(self.results, summary))
        plots.draw(summary, self.out)
        # README has the figures of the last whole run.
        if not (self.given.quick or self.given.only):
            readme, about = ROOT / "README.md", (self.results, summary, self.date, os.path.relpath(page, ROOT))
            blocks = {"compare": report.readme_block(*about, FIRST)}
            if self.given.all:
                blocks["compare-all"] = report.readme_others(*about, FIRST)
            readme.write_text(refreshed(readme.read_text(), blocks))
        self.say(str(page))


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
    given.shown = " ".join(argument for argument in sys.argv[1:] if argument != "--all")
    comparison = Comparison(given)
    try:
        comparison.run()
    finally:
        if comparison.results["visits"]:
            comparison.report()
    if not any(visit["system"] == OURS for visit in comparison.results["visits"]):
        sys.exit("our own server was not measured")


if __name__ == "__main__":
    main()
