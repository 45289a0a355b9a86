"""The memory figures of docs/scaling.md equal `doctor`'s."""

import re

import pytest

from memory import replica_gib
from server import ROOT
from tables import EXAMPLES


def row(title: str) -> list[float]:
    [cells] = re.findall(rf"^\| {title} \|(.*)\|$", (ROOT / "docs/scaling.md").read_text(), re.M)
    return [float(cell.strip().replace(",", "")) for cell in cells.split("|")]


def test_the_document_has_doctors_figures():
    replicas = row("replicas, one of three zones may fail")
    each = [replica_gib(cores) for _, cores in EXAMPLES]
    assert row("memory of a replica, GiB at most") == pytest.approx(each, abs=0.06)
    everything = [count * gib for count, gib in zip(replicas, each, strict=True)]
    assert row("memory in all, GiB at most") == pytest.approx(everything, rel=0.002, abs=0.06)
