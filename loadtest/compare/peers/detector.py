"""The detector as an application in Python would write it: the reference's own preprocessing (models/lfm/data.py, Pillow)
and the standard graph in ONNX Runtime. Every peer in Python runs this.

One session with one thread for each worker, workers as many as cores: ONNX Runtime's own advice for several sessions on
one machine (onnxruntime.ai/docs/performance/tune-performance/threading.html), and the fastest layout for this network.
"""

import io
import json
import math
import os
import pathlib
from collections.abc import Callable

import numpy as np
from lfm.data import PREPROCESS, decode

MODELS = pathlib.Path(__file__).resolve().parents[3] / "models"
CORES = int(os.environ.get("PEER_CORES", "1"))
PORT = int(os.environ.get("PEER_PORT", "0"))
# What a peer is given where it has such a setting. In flight: as ours by session; at the pace of one core they are done in
# about half the deadline, so that what is let in is answered in time.
MOST_IN_FLIGHT = 64 * CORES
MOST_IN_BATCH = 8
DEADLINE_SECONDS = 2  # of a client, where the setting is for a whole request
QUEUE_SECONDS = 1  # where it is for the wait before the run: what starts later than this would be late


class Detector:
    def __init__(self):
        self.run = self.load(MODELS / "lfm.std.onnx")
        self.preprocess = PREPROCESS[json.loads((MODELS / "manifest.json").read_text())["preprocessing"]]
        # A byte for each image that is run, from whichever process: what the comparison counts.
        path = os.environ.get("PEER_COUNTER")
        self.counter = os.open(path, os.O_WRONLY | os.O_APPEND) if path else None
        self.logits([np.zeros((256, 256, 3), np.uint8)])

    @staticmethod
    def load(graph: pathlib.Path) -> Callable[[np.ndarray], np.ndarray]:
        """The graph as a function from pixels to logits."""
        import onnxruntime  # here: one peer has another engine in its place

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        return lambda pixels: session.run(["logit"], {"pixels": pixels})[0]

    def prepare(self, body: bytes) -> np.ndarray:
        return self.preprocess(decode(io.BytesIO(body)))

    def logits(self, pixels: list[np.ndarray]) -> list[float]:
        return self.run(np.stack(pixels)).tolist()

    def score(self, bodies: list[bytes]) -> list[dict]:
        """Files to answers."""
        if self.counter:
            os.write(self.counter, b"." * len(bodies))
        logits = self.logits([self.prepare(body) for body in bodies])
        return [{"logit": logit, "score": sigmoid(logit)} for logit in logits]


def sigmoid(logit: float) -> float:
    return 1 / (1 + math.exp(-logit)) if logit > -700 else 0.0
