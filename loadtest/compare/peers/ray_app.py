"""Ray Serve: one replica per core; 503 beyond the queue (docs.ray.io, `max_queued_requests`)."""

import signal
import threading

import ray
from ray import serve
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request

from detector import CORES, MOST_IN_FLIGHT, PORT, Detector


# The proxy and the controller claim CPUs as well, so a replica claims none; it still has a whole core.
@serve.deployment(
    num_replicas=CORES, max_ongoing_requests=2, max_queued_requests=MOST_IN_FLIGHT, ray_actor_options={"num_cpus": 0}
)
class Score:
    def __init__(self):
        self.detector = Detector()

    async def __call__(self, request: Request) -> dict:
        body = await request.body()
        return (await run_in_threadpool(self.detector.score, [body]))[0]


if __name__ == "__main__":
    ray.init(num_cpus=CORES, include_dashboard=False, logging_level="ERROR", log_to_driver=False)
    serve.start(http_options={"host": "127.0.0.1", "port": PORT, "access_log": False})
    serve.run(Score.bind(), name="lfm", route_prefix="/score")
    stopped = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stopped.set())
    stopped.wait()
    serve.shutdown()
    ray.shutdown()
