"""mosec: one process per core (mosecorg.github.io/mosec, `num`), 429 beyond `--capacity`."""

import sys

from mosec import Server, Worker

from detector import CORES, DEADLINE_SECONDS, MOST_IN_FLIGHT, PORT, Detector


class Score(Worker):
    detector_class = Detector

    def __init__(self):
        super().__init__()
        self.detector = self.detector_class()

    def deserialize(self, data: bytes) -> bytes:
        return data

    def forward(self, data: bytes) -> dict:
        return self.detector.score([data])[0]


def serve(worker: type[Worker]) -> None:
    sys.argv += f"--address 127.0.0.1 --port {PORT} --log-level warning --capacity {MOST_IN_FLIGHT}".split()
    sys.argv += f"--timeout {1000 * DEADLINE_SECONDS}".split()
    server = Server()
    # Its guide recommends to try batches and stages (mosecorg.github.io/mosec, "Performance Tuning"). CPU time per
    # image, three interleaved rounds: 35.6 ms so, 35.4 ms with batches of 8, 35.7 ms with decoding as a separate stage.
    server.append_worker(worker, num=CORES)
    server.run()


if __name__ == "__main__":
    serve(Score)
