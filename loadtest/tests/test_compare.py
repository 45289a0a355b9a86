"""The comparison's logic: a visit to a fake peer, the summary of rounds, the page."""

import json
import os
import sys
from pathlib import Path

import pytest

import plots
import report
from client import Answer
from measure import Durations, measure, summary
from systems import OURS, System, field, raw
from visit import Failed, Visit, tree

FAKE = System("fake", lambda port, cores: [sys.executable, Path(__file__).with_name("fake_peer.py")], raw("/"), field)
CORES = sorted(os.sched_getaffinity(0))


def runs(pid: int) -> bool:
    """Whether the process exists and is not a zombie."""
    stat = Path(f"/proc/{pid}/stat")
    return stat.exists() and stat.read_text().rpartition(")")[2].split()[0] != "Z"


def test_a_visit_measures_a_peer_and_leaves_nothing_behind():
    golden = {"right.png": (b"x", 1.5), "wrong.png": (b"x", 1.4)}
    with Visit(FAKE, CORES[:1], b"x") as visit:
        processes = tree(visit.process.pid)
        found = measure(visit, [b"x"], golden, Durations(0.2, 0.5, 0.5, 0.5, 0.1))
    assert len(processes) == 2, "its child counts"
    assert not any(runs(pid) for pid in processes), "nor does that outlive it"
    assert found["scores"]["equal"] == 1 and found["scores"]["other"] == ["wrong.png"]
    assert found["saturated"]["statuses"].keys() == {"200"}
    # It runs one image at a time, each in at least 10 ms.
    assert 0 < found["saturated"]["scores_per_second"] <= 100
    assert found["saturated"]["p50_ms"] >= 10
    assert found["half"]["asked"] < found["most"]["asked"] < found["double"]["asked"]
    assert found["left"]["left"] == found["left"]["run"] > 0, "it runs everything for clients that left"
    assert found["memory_mib"] > 1


def test_a_peer_that_does_not_start_says_why():
    dies = System(
        "dies", lambda port, cores: [sys.executable, "-c", "raise SystemExit('no such model')"], raw("/"), field
    )
    with pytest.raises(Failed, match="ended with 1: no such model"):
        Visit(dies, CORES[:1], b"x").__enter__()


def test_good_means_in_time_and_the_rate_is_over_the_offered_time():
    answers = [
        Answer(200, b"", 8.8, 0.1),
        Answer(200, b"", 10.0, 0.5),
        Answer(200, b"", 10.0, 2.5),
        Answer(200, b"", 11.9, 1.9),
        Answer(429, b"", 10, 0.1),
    ]
    found = summary(answers, began=9.0, seconds=4.0)
    assert (found["asked"], found["unanswered"]) == (5, 0)
    # 12.5 is within the four seconds, but late; 13.8 and 8.9 are outside.
    assert found["scores_per_second"] == pytest.approx(2 / 4)
    assert found["good_per_second"] == pytest.approx(1 / 4)
    assert found["p99_ms"] == 2500


def visited(system: str, number: int, speed: float) -> dict:
    load = {
        "scores_per_second": speed,
        "p50_ms": 1000 / speed,
        "p99_ms": 2000 / speed,
        "good_of_capacity": 0.9,
        "client_share": 0.01,
    }
    return {
        "round": number, "placement": "here", "system": system, "start_seconds": 1.0, "memory_mib": 100.0, "idle_share": 0.001,
        "scores": {"equal": 2, "other": [], "refused": ["x.png"] * (system == OURS), "worst": 1e-6, "median": 0.0},
        "saturated": load, "half": load, "most": load, "nearly_all": load, "double": load,
        "left": {"left": 20, "run": 5, "next_wait_ms": 10.0},
    }  # fmt: skip


def results() -> dict:
    visits = [visited(OURS, n, speed) for n, speed in enumerate([100, 300, 200])]
    visits += [visited("other", n, speed) for n, speed in enumerate([150, 151, 152])]
    limit = {"placement": "here", "session": 210.0, "session_and_pillow": 190.0, "own_session": 220.0}
    return {
        "quick": False, "command": "make compare", "minutes": 30.0, "visits": visits, "limits": [limit], "files": ["a.jpg"],
        "errors": {"gone": "cannot be installed: no wheel"}, "machine": {"Model name": "a CPU"}, "versions": {"other": {"ort": "1"}},
    }  # fmt: skip


def test_rounds_become_medians_with_quartiles_and_shares():
    rows = {row["system"]: row for row in report.summarise(results())["rows"]}
    assert rows[OURS]["figures"]["images/s, saturated"] == {"median": 200, "q1": 150, "q3": 250, "rounds": 3}
    assert rows[OURS]["figures"]["run for clients that left"]["median"] == 0.25
    assert rows[OURS]["figures"]["idle, % of a core"]["median"] == pytest.approx(0.1)


def test_better_systems_are_reported_and_whether_beyond_the_spread():
    slower = results()
    assert report.summarise(slower)["behind"] == []
    for visit in slower["visits"]:
        if visit["system"] == "other":
            visit["saturated"] = {**visit["saturated"], "scores_per_second": 240 + visit["round"]}
            visit["memory_mib"] = 50.0
    ahead = {one["row"]: one for one in report.summarise(slower)["behind"]}
    assert ahead.keys() == {"images/s, saturated", "memory, MiB"}
    assert not ahead["images/s, saturated"]["apart"] and ahead["memory, MiB"]["apart"]


def test_the_page_has_every_system_every_error_and_the_plot(tmp_path):
    summarised = report.summarise(json.loads(json.dumps(results())))
    page = report.page(results(), summarised)
    assert "| images/s, saturated | 200.0 (150.0-250.0) | 151.0 (150.5-151.5) |" in page
    assert "| scores equal to the reference's | 2, 1 refused | 2 |" in page
    assert "gone: cannot be installed: no wheel" in page
    plots.draw(summarised, tmp_path)
    assert f"]({report.figure_name('here')})" in page
    assert "</svg>" in (tmp_path / report.figure_name("here")).read_text()


def test_readme_gets_medians_and_better_systems():
    found = results()
    for visit in found["visits"]:
        visit["memory_mib"] = 50.0 if visit["system"] == "other" else 100.0
    block = report.readme_block(found, report.summarise(found), "2026-01-02", "results/README.md", [OURS, "other"])
    assert "| images/s, saturated | 200.0 | 151.0 |" in block
    assert "medians of 3 rounds in turns, 2026-01-02" in block
    assert "gives 210.0 images/s" in block
    assert "beyond the spread: other, memory, MiB." in block


def test_the_block_of_other_systems_omits_those_above():
    found = results()
    for name in ("above", "openvino"):
        found["visits"] += [{**visit, "system": name} for visit in found["visits"] if visit["system"] == "other"]
    found["visits"][-1] = {**found["visits"][-1], "memory_mib": 50.0}
    summary = report.summarise(found)
    block = report.readme_others(found, summary, "2026-01-02", "results/README.md", [OURS, "above"])
    assert f"|  | {OURS} | other | openvino |" in block
    assert "`make compare` on a CPU, 2026-01-02" in block and "](results/README.md)" in block
    assert "openvino: mosec, with OpenVINO" in block and "furnace" not in block
    assert "above" not in report.readme_block(found, summary, "2026-01-02", "results/README.md", [OURS, "other"])
