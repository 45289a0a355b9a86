"""Which pictures are trained on, which of a source are chosen by, and which reported on."""

import random
from pathlib import Path

VAL2 = Path(__file__).resolve().parents[1] / "val2.txt"


def kept_out(listed: Path = VAL2) -> set[str]:
    """The sources of a list, a line each: by default those of val2, excluded from training."""
    lines = listed.read_text().splitlines()
    return {line.split()[0] for line in lines if line and not line.startswith("#")}


def shuffled(source: str, count: int, seed: int = 0) -> list[int]:
    """A fixed random order of so many pictures."""
    order = list(range(count))
    random.Random(f"{seed}/{source}").shuffle(order)
    return order


def half(source: str, count: int, part: str, seed: int = 0) -> list[int]:
    """A fixed random half: "fit" to choose by, "report" to report on."""
    order = shuffled(source, count, seed)
    cut = (count + 1) // 2
    return sorted(order[:cut] if part == "fit" else order[cut:])
