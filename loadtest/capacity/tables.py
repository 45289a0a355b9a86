"""The model's figures as Markdown, and their places in a document."""

import math

from markdown import table
from model import Stages, usable

MOST_WAIT = 5  # p99 relative to the wait at an idle server: the load limit of a replica
EXAMPLES = [(10, 1), (1_000, 8), (100_000, 32)]  # images a second, cores of a replica
ZONES = 3


def stages_block(stages: Stages, typical: float, points: list[tuple[float, float]]) -> str:
    sizes = [[f"{size:.2f}", f"{1000 * seconds:.2f}", f"{1000 * stages.decode(size):.2f}"] for size, seconds in points]
    batches = [
        [size, f"{1000 * stages.run() * cost:.1f}", f"{1000 * stages.run() * cost / size:.1f}"]
        for size, cost in stages.batches.items()
    ]
    return "\n".join([
        table(["JPEG, megapixels", "decode, ms", "by the line, ms"], sizes),
        "",
        table(["images in a run", "run, ms", "an image, ms"], batches),
        "",
        f"Beside these an image takes {1000 * stages.overhead:.2f} ms of a core (reading, hashing, scheduling, answering). An image of",
        f"{typical:.2f} megapixels takes {1000 * stages.work(typical):.1f} ms in all: {stages.capacity(1, typical):.1f} images/s a core.",
        f"A core works at {stages.pace:.0%} of its pace while another does; the client of the curve below takes"
        f" {1000 * stages.client:.2f} ms an image.",
    ])  # fmt: skip


def curve_block(curves: list[dict]) -> str:
    rows = []
    for curve in curves:
        for row in curve["rows"]:
            rows.append([
                curve["cores"], f"{row['share']:.0%}", f"{row['rate']:.1f}",
                f"{1000 * row['p50']:.1f} / {1000 * row['predicted_p50']:.1f}",
                f"{1000 * row['p99']:.1f} / {1000 * row['predicted_p99']:.1f}",
                f"{row['p99'] / row['predicted_p99']:.2f}", f"{row['stolen']:.1%}",
            ])  # fmt: skip
    header = [
        "cores",
        "load",
        "images/s",
        "p50 measured / predicted, ms",
        "p99 measured / predicted, ms",
        "ratio of p99",
        "stolen, of a core",
    ]
    return table(header, rows)


def cores_block(stages: Stages, typical: float) -> str:
    rows = []
    for cores in (1, 2, 4, 8, 16, 32):
        share, capacity = usable(stages, cores, typical, MOST_WAIT), stages.capacity(cores, typical)
        rows.append([cores, f"{capacity:.0f}", f"{share:.0%}", f"{share * capacity:.0f}"])
    return table(["cores", "images/s, all busy", f"load with p99 within {MOST_WAIT} idle waits", "images/s then"], rows)


def fleet(stages: Stages, rate: float, cores: int, typical: float, image_bytes: int, replica_gib: float) -> dict:
    """The fleet for a rate. Sized so that it survives the loss of one zone of three, with at least two replicas."""
    each = usable(stages, cores, typical, MOST_WAIT) * stages.capacity(cores, typical)
    needed = math.ceil(rate / each)
    replicas = max(2, math.ceil(needed * ZONES / (ZONES - 1)))
    return {
        "rate": rate,
        "cores": cores,
        "each": each,
        "needed": needed,
        "replicas": replicas,
        "replica_gib": replica_gib,
        "memory_gib": replicas * replica_gib,
        "decode_cores": rate * (stages.decode(typical) + stages.overhead),
        "gbit": rate * image_bytes * 8 / 1e9,
        "gbit_each": each * image_bytes * 8 / 1e9,
    }


def fleet_block(fleets: list[dict]) -> str:
    def row(title: str, form: str, key: str) -> list:
        return [title, *(form.format(one[key]) for one in fleets)]

    rows = [
        row("cores of a replica", "{}", "cores"),
        row("images/s of a replica", "{:,.0f}", "each"),
        row("replicas that carry the load", "{:,}", "needed"),
        row("replicas, one of three zones may fail", "{:,}", "replicas"),
        ["cores in all", *(f"{one['replicas'] * one['cores']:,}" for one in fleets)],
        row("memory of a replica, GiB at most", "{:,.1f}", "replica_gib"),
        row("memory in all, GiB at most", "{:,.1f}", "memory_gib"),
        row("of the load's cores, for decoding and HTTP", "{:,.1f}", "decode_cores"),
        row("into the fleet, Gbit/s", "{:,.2f}", "gbit"),
        row("into one replica, Gbit/s", "{:,.3f}", "gbit_each"),
    ]
    return table(["images a second", *(f"{one['rate']:,}" for one in fleets)], rows)
