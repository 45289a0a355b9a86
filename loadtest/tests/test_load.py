"""`make load` as a user runs it: the program and our server."""

import json
import subprocess
import sys

from server import ROOT


def load(*arguments) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, ROOT / "loadtest/load.py", *arguments], capture_output=True, text=True)


def test_smoke_passes_and_writes_summary_and_page(tmp_path):
    ended = load("smoke", "--seconds", "1", "--out", tmp_path)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "held      one client: every image is scored: 100.00%" in ended.stdout
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["phases"][0]["statuses"].keys() == {"200"}
    assert "</svg>" in (tmp_path / "index.html").read_text()


def test_an_unmet_threshold_fails(tmp_path):
    wrong = tmp_path / "not-an-image"
    wrong.write_text("no")
    ended = load("smoke", "--seconds", "1", "--out", tmp_path, "--image", wrong)
    assert ended.returncode == 1, ended.stdout + ended.stderr
    assert "NOT HELD  one client: every image is scored: 0.00%" in ended.stdout
