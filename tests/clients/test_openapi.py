"""The running server against its API document: schemathesis generates requests from it and checks every answer."""

import subprocess
import sys
from pathlib import Path

import requests
from conftest import serving

# Excluded checks, with reasons.
LEFT_OUT = {
    # No schema can describe which bytes are an image.
    "positive_data_acceptance",
    # A deadline of a millisecond is answered with 504, as documented. A server error is 500: see below.
    "not_a_server_error",
}


def test_answers_are_the_documents():
    with serving() as url:
        command = [Path(sys.executable).with_name("schemathesis"), "run", f"{url}/openapi.json", "--seed", "1",
                   "--phases", "examples,fuzzing", "--max-examples", "40",
                   "--exclude-checks", ",".join(sorted(LEFT_OUT))]  # fmt: skip
        ended = subprocess.run(command, capture_output=True, text=True, timeout=110)
        assert ended.returncode == 0, ended.stdout
        metrics = requests.get(f"{url}/metrics", timeout=10).text
    assert 'lfm_errors_total{code="inference_failed"} 0\n' in metrics
