"""Properties of the capacity model."""

import math
import statistics
from dataclasses import replace

import pytest

from client import independent
from markdown import refreshed
from model import Stages, line, predict, simulate, usable
from model import waits as waits_of
from tables import fleet

RUN = 0.01


def stages(batches=None, decode=0.0, runs=(RUN,)) -> Stages:
    return Stages(decode, 0.0, 0.0, runs, batches or {1: 1.0}, 0.0)


def waits(rate: float, cores: int, images: int, decode: float = 0.0, **kinds) -> list[float]:
    arrivals = independent(rate, images / rate, seed=3)
    return simulate(arrivals, [decode] * len(arrivals), [RUN] * len(arrivals), cores, stages(**kinds))


def test_a_single_image_waits_only_for_its_own_work():
    assert simulate([0.0, 1.0], [0.004, 0.004], [RUN, RUN], 1, stages()) == pytest.approx([0.014, 0.014])


@pytest.mark.parametrize("load", [0.3, 0.6, 0.8])
def test_one_core_is_a_textbook_queue(load):
    """M/D/1: the mean wait is the service time plus load / (2 (1 - load)) times it (Pollaczek and Khinchine)."""
    mean = statistics.mean(waits(load / RUN, 1, 60_000))
    assert mean == pytest.approx(RUN * (1 + load / (2 * (1 - load))), rel=0.06)


def test_simultaneous_images_share_the_cores():
    # Both decodes run concurrently at half the pace on one core; their runs follow one another.
    together = simulate([0.0, 0.0], [0.004, 0.004], [RUN, RUN], 1, stages())
    assert max(together) == pytest.approx(0.028)
    assert simulate([0.0, 0.0], [0.004, 0.004], [RUN, RUN], 2, stages()) == pytest.approx([0.014, 0.014])


def test_work_is_conserved():
    """For any schedule, a core that is never idle ends n images after n times their work."""
    n = 500
    found = simulate([0.0] * n, [0.002] * n, [RUN] * n, 1, stages(batches={1: 1.0, 2: 2.0, 4: 4.0}))
    assert max(found) == pytest.approx(n * (0.002 + RUN))


def test_more_cores_at_the_same_load_wait_less():
    p99 = [predict(stages(), cores, 0.8 * stages().capacity(cores, 1.0), 1.0)[1] for cores in (1, 2, 4, 8)]
    assert p99 == sorted(p99, reverse=True)
    shares = [usable(stages(), cores, 1.0, 3) for cores in (1, 2, 8)]
    assert shares == sorted(shares) and shares[0] < shares[-1] <= 0.8


def test_batches_are_taken_when_images_wait():
    """If a run of eight costs as much as a run of one, eight waiting images are done in one run."""
    free = {1: 1.0, 2: 1.0, 4: 1.0, 8: 1.0}
    found = simulate([0.0] * 9, [0.0] * 9, [RUN] * 9, 1, stages(batches=free))
    # The first may run before the others are decoded; the remaining ones run in later batches.
    assert max(found) <= 3 * RUN * (1 + 1e-9)


def test_a_core_is_slower_beside_another():
    slower = replace(stages(), pace=0.8)
    assert simulate([0.0, 1.0], [0.0, 0.0], [RUN, RUN], 2, slower) == pytest.approx([RUN, RUN])
    assert simulate([0.0, 0.0], [0.0, 0.0], [RUN, RUN], 2, slower) == pytest.approx([RUN / 0.8, RUN / 0.8])
    # A single core is never slowed by another, however much work waits.
    assert max(simulate([0.0, 0.0], [0.0, 0.0], [RUN, RUN], 1, slower)) == pytest.approx(2 * RUN)
    assert slower.capacity(2, 1.0) == pytest.approx(0.8 * stages().capacity(2, 1.0))


def test_a_client_on_the_servers_cores_takes_its_share():
    beside = replace(stages(), client=RUN)
    assert beside.capacity(1, 1.0, with_client=True) == pytest.approx(beside.capacity(1, 1.0) / 2)
    assert waits_of(beside, 1, [0.0], 1.0, with_client=True) == pytest.approx([2 * RUN])
    assert waits_of(beside, 1, [0.0], 1.0) == pytest.approx([RUN])


def test_the_largest_batch_is_the_servers_choice():
    assert stages(batches={1: 1.0, 2: 1.96, 4: 3.9}).max_batch() == 1
    assert stages(batches={1: 1.0, 2: 1.5, 4: 2.1, 8: 4.1}).max_batch() == 4
    half_way = stages(batches={1: 1.0, 2: 1.5, 4: 2.1})
    assert (half_way.scale(3), half_way.scale(2)) == pytest.approx((1.8, 1.5))


def test_the_fit_minimises_relative_errors():
    assert line([(1.0, 3.0), (2.0, 5.0), (4.0, 9.0)]) == pytest.approx((1.0, 2.0))
    # An error at a large image does not distort the small ones.
    base, slope = line([(0.1, 0.2), (1.0, 2.0), (2.0, 4.0), (12.0, 36.0)])
    assert base + slope * 1.0 == pytest.approx(2.0, rel=0.2)


def test_a_fleet_handles_its_load_without_one_zone():
    for rate, cores in ((10, 1), (1_000, 8), (100_000, 32)):
        found = fleet(stages(decode=0.002), rate, cores, 1.0, 200_000, 100.0)
        assert found["replicas"] >= 2
        assert math.floor(found["replicas"] * 2 / 3) * found["each"] >= rate or found["needed"] == 1
        assert found["gbit"] == pytest.approx(rate * 200_000 * 8 / 1e9)


def test_blocks_of_a_document_are_replaced_in_their_places():
    document = "a\n<!-- x -->\nold\n<!-- /x -->\nb\n<!-- y -->\n<!-- /y -->\n"
    once = refreshed(document, {"x": "new \\1", "y": "2"})
    assert once == "a\n<!-- x -->\nnew \\1\n<!-- /x -->\nb\n<!-- y -->\n2\n<!-- /y -->\n"
    assert refreshed(once, {"x": "new \\1", "y": "2"}) == once
    with pytest.raises(ValueError, match="no place for z"):
        refreshed(document, {"z": ""})
