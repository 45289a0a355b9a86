"""LitServe: one worker per core. No batches, as for mosec. Its queue is unbounded; `timeout` limits the wait in it."""

import litserve

from detector import CORES, PORT, QUEUE_SECONDS, Detector


class Score(litserve.LitAPI):
    def setup(self, device):
        self.detector = Detector()

    def decode_request(self, request):
        return request["image"].file.read()  # a multipart upload, LitServe's form for files

    def predict(self, body: bytes) -> dict:
        return self.detector.score([body])[0]

    def encode_response(self, answer: dict) -> dict:
        return answer


if __name__ == "__main__":
    server = litserve.LitServer(Score(), accelerator="cpu", workers_per_device=CORES, timeout=QUEUE_SECONDS)
    server.run(host="127.0.0.1", port=PORT, generate_client_file=False, log_level="warning", access_log=False)
