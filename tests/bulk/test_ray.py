"""examples/ray_score.py on a local cluster of two workers: the same rows as one machine's."""

import os
import subprocess
import sys

import pyarrow.parquet
from conftest import BINARY, ROOT, picture

PICTURES = 1000
SHARED = [
    "path",
    "model",
    "error_code",
    "error_detail",
    "verdict",
    "score",
    "logit",
    "logit_raw",
    "warnings",
    "class",
    "sha256",
]


def rows(folder):
    found = pyarrow.parquet.read_table(folder).select(SHARED).to_pylist()
    return sorted(found, key=lambda row: row["path"])


def test_two_workers_give_the_rows_of_one_machine(tmp_path):
    source = tmp_path / "in"
    source.mkdir()
    for number in range(PICTURES - 2):
        (source / f"{number:04}.png").write_bytes(picture(number))
    jpeg = (ROOT / "tests/golden/images/orig_rocket.jpg").read_bytes()
    (source / "photo.jpg").write_bytes(jpeg)
    (source / "cut.jpg").write_bytes(jpeg[:4000])
    command = [sys.executable, ROOT / "examples/ray_score.py", source, tmp_path / "ray", "--actors", "2"]
    environment = os.environ | {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}
    ended = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)
    assert ended.returncode == 0, ended.stderr
    command = [BINARY, "score", "--from", source, "--out", tmp_path / "one.parquet", "--allow-errors"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd=ROOT, timeout=300)
    one = rows(tmp_path / "one.parquet")
    assert len(one) == PICTURES and sum(row["error_code"] is not None for row in one) == 1
    assert rows(tmp_path / "ray") == one
