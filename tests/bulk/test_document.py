"""Runs the commands of docs/bulk.md unchanged, its bucket being one of the S3 server here."""

import pathlib
import re
import subprocess
import sys

from conftest import BINARY, ROOT, picture

DOCUMENT = (ROOT / "docs/bulk.md").read_text()
BLOCKS = re.findall(r"^```(sh|python)\n(.*?)^```", DOCUMENT, re.S | re.M)


def test_its_commands_run(bucket, tmp_path):
    bucket.s3.create_bucket(Bucket="my-bucket")
    (tmp_path / "pictures").mkdir()
    for number in range(12):
        bucket.s3.put_object(Bucket="my-bucket", Key=f"pictures/{number}.png", Body=picture(number))
        (tmp_path / f"pictures/{number}.png").write_bytes(picture(number))
    (tmp_path / "lfm-serve").symlink_to(BINARY)
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    environment = bucket.environment | {
        "PATH": f"{tmp_path}:{pathlib.Path(sys.executable).parent}:{bucket.environment['PATH']}",
        "RAY_USAGE_STATS_ENABLED": "0",
    }
    assert [kind for kind, _ in BLOCKS] == ["sh", "python", "sh", "sh"]
    for kind, text in BLOCKS:
        command = ["bash", "-euo", "pipefail", "-c", text] if kind == "sh" else ["python", "-c", text]
        ended = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)
        assert ended.returncode == 0, ended.stderr
    assert len(bucket.rows("scores.parquet", bucket="my-bucket")) == 12
    assert len(bucket.rows("shared.parquet", bucket="my-bucket")) == 12
