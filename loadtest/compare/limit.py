"""The bare ONNX Runtime session, without a server: the upper limit of any server with this graph on these cores.

    PYTHONPATH=models:loadtest/compare/peers limit.py SECONDS IMAGE...    one JSON object

A thread with its own session on every core that the process may use; ONNX Runtime and Pillow release the GIL while
they work.
"""

import json
import os
import sys
import threading
import time
from itertools import cycle
from pathlib import Path

from detector import Detector


def images_per_second(detectors: list[Detector], work, seconds: float) -> float:
    counts, end = [0] * len(detectors), time.monotonic() + seconds

    def run(number: int, detector: Detector):
        while time.monotonic() < end:
            work(detector)
            counts[number] += 1

    threads = [threading.Thread(target=run, args=pair) for pair in enumerate(detectors)]
    began = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(counts) / (time.monotonic() - began)


def main() -> None:
    seconds, bodies = float(sys.argv[1]), [Path(path).read_bytes() for path in sys.argv[2:]]
    detectors = [Detector() for _ in os.sched_getaffinity(0)]
    turn = cycle(bodies)
    pixels = detectors[0].prepare(bodies[0])
    print(json.dumps({
        "session": images_per_second(detectors, lambda detector: detector.logits([pixels]), seconds),
        "session_and_pillow": images_per_second(detectors, lambda detector: detector.score([next(turn)]), seconds),
    }))  # fmt: skip


if __name__ == "__main__":
    main()
