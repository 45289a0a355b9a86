"""Triton with its Python backend (PyTriton): one instance per core, dynamic batching.

Settings from Triton's "Recommended Configuration Process" for the dynamic batcher: a largest batch, no queue delay. The
queue policy bounds the work: a deadline (REJECT) and a size. With both it is no slower below capacity than without
(measured in alternation), and above capacity it still answers.
"""

import os
import signal
import sysconfig
import tempfile

import numpy as np
from pytriton.decorators import batch
from pytriton.model_config import DynamicBatcher, ModelConfig, Tensor
from pytriton.model_config.common import QueuePolicy, TimeoutAction
from pytriton.triton import Triton, TritonConfig

from detector import CORES, MOST_IN_BATCH, MOST_IN_FLIGHT, PORT, QUEUE_SECONDS, Detector


def instance():
    detector = Detector()

    @batch
    def infer(image):
        answers = detector.score([file[0] for file in image])
        return {"logit": np.array([[answer["logit"]] for answer in answers], np.float32)}

    return infer


if __name__ == "__main__":
    # Triton's backend must load the libpython of this interpreter, not the system's (PyTriton's installation guide).
    os.environ["LD_LIBRARY_PATH"] = sysconfig.get_config_var("LIBDIR")
    config = TritonConfig(
        http_address="127.0.0.1", http_port=PORT, allow_grpc=False, allow_metrics=False, log_verbose=0
    )
    policy = QueuePolicy(TimeoutAction.REJECT, int(1e6 * QUEUE_SECONDS), max_queue_size=MOST_IN_FLIGHT)
    with tempfile.TemporaryDirectory() as folder, Triton(config=config, workspace=folder + "/workspace") as triton:
        triton.bind(
            "lfm",
            [instance() for _ in range(CORES)],
            inputs=[Tensor(name="image", dtype=bytes, shape=(1,))],
            outputs=[Tensor(name="logit", dtype=np.float32, shape=(1,))],
            config=ModelConfig(max_batch_size=MOST_IN_BATCH, batcher=DynamicBatcher(default_queue_policy=policy)),
        )
        signal.signal(signal.SIGTERM, lambda *_: triton.stop())
        triton.serve()
