"""Which pictures of a source are chosen by, and which reported on."""

import random


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
