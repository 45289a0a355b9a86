"""`make gpu-check` without a GPU: the report has the CPU's section, and the reason why there is no other."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def check(report: Path, providers: str) -> tuple[int, str]:
    command = [sys.executable, ROOT / "gpu/check.py", "--quick", "--only", providers, "--out", report]
    ended = subprocess.run(command, capture_output=True, text=True)
    assert report.is_file(), ended.stderr
    return ended.returncode, report.read_text()


def test_the_cpu_is_compared_with_itself(tmp_path):
    status, report = check(tmp_path / "report.md", "cpu")
    assert status == 0, report
    assert "37 golden images: logits at most 0.00e+00 from the CPU's; other verdicts: none" in report
    alike = "37 images in one request and one by one: logits at most 0.00e+00 apart; one by one at most 0.00e+00 from the CPU's"
    assert alike in report
    assert "CPUExecutionProvider: " in report and "| images/s |" in report


@pytest.mark.skipif(Path("/proc/driver/nvidia").exists(), reason="this machine has a GPU")
def test_what_cannot_run_fails_with_its_reason(tmp_path):
    status, report = check(tmp_path / "report.md", "cuda,tensorrt,tensorrt-rtx")
    assert status == 1
    assert "## cuda, fp32" in report and "Cannot run: --provider cuda cannot run" in report
    assert "## cuda, fp32, CUDA graphs" in report
    assert "## tensorrt, fp16" in report and "Cannot run: --provider tensorrt cannot run" in report
    assert "## tensorrt-rtx, fp32" in report and "Cannot run: --provider tensorrt-rtx cannot run" in report


def test_the_documentations_tables_match_the_roofline():
    tables = subprocess.run([sys.executable, ROOT / "gpu/roofline.py"], check=True, capture_output=True, text=True)
    documented = (ROOT / "docs/gpu.md").read_text().splitlines()
    assert [line for line in tables.stdout.splitlines() if line not in documented] == []
