"""The capacity model: throughput of a server of N cores, and how long its clients wait. Pure.

An image needs a core for its decoding (with all the server's other work), then waits for a session, then needs a core
for its share of a run. There are as many decoders and sessions as cores, and they share the cores evenly; a core is
slower while another works. That is the whole model.
"""

import heapq
import math
import random
from collections import deque
from dataclasses import dataclass

from client import independent, quantile

IMAGES = 8000  # of a simulated load: 80 beyond its p99


@dataclass(frozen=True)
class Stages:
    """Measured seconds of a core."""

    decode_base: float  # of a JPEG, and for each megapixel
    decode_per_megapixel: float
    overhead: float  # reading, hashing, writing, scheduling: an image's cost besides decoding and its run
    runs: tuple[float, ...]  # of one image, each measurement
    batches: dict[int, float]  # a run of n images, relative to a run of one
    transfer: float  # a client's additional wait at an idle server, without work of a core
    client: float = 0.0  # of the load's client per image, which counts where it shares the server's cores
    pace: float = 1.0  # of a core while another works (memory, caches, clocks), relative to a core alone

    def decode(self, megapixels: float) -> float:
        return self.decode_base + self.decode_per_megapixel * megapixels

    def run(self) -> float:
        return sum(self.runs) / len(self.runs)

    def max_batch(self) -> int:
        """As the server chooses it: the smallest within 5 % of the highest throughput."""
        best = min(cost / size for size, cost in self.batches.items())
        return min(size for size, cost in self.batches.items() if best / (cost / size) >= 0.95)

    def work(self, megapixels: float) -> float:
        """Work of an image in a full batch."""
        size = self.max_batch()
        return self.decode(megapixels) + self.overhead + self.run() * self.batches[size] / size

    def capacity(self, cores: int, megapixels: float, with_client: bool = False) -> float:
        """Images per second at which all cores are busy."""
        return cores * self.pace_of(cores) / (self.work(megapixels) + with_client * self.client)

    def pace_of(self, working: int) -> float:
        """Measured with two cores; more are assumed to be equal."""
        return self.pace if working > 1 else 1.0

    def scale(self, images: int) -> float:
        """A run's cost by its images, relative to a run of one: interpolated linearly between the measured sizes."""
        sizes = sorted(self.batches)
        above = next((size for size in sizes if size >= images), sizes[-1])
        below = max(size for size in sizes if size <= images)
        if above == below:
            return self.batches[above] * images / above
        share = (images - below) / (above - below)
        return (1 - share) * self.batches[below] + share * self.batches[above]


def line(points: list[tuple[float, float]]) -> tuple[float, float]:
    """The line with the least squares of relative errors through (x, y): its value at 0, and its slope."""
    weights = [1 / y**2 for _, y in points]
    mean_x = sum(w * x for w, (x, _) in zip(weights, points, strict=True)) / sum(weights)
    mean_y = sum(w * y for w, (_, y) in zip(weights, points, strict=True)) / sum(weights)
    spread = sum(w * (x - mean_x) ** 2 for w, (x, _) in zip(weights, points, strict=True))
    slope = sum(w * (x - mean_x) * (y - mean_y) for w, (x, y) in zip(weights, points, strict=True)) / spread
    return mean_y - slope * mean_x, slope


def simulate(arrivals: list[float], decode: list[float], runs: list[float], cores: int, stages: Stages) -> list[float]:
    """Seconds that each image waits for its answer, without the transfer. `decode` and `runs`: work by image."""
    waits, now, virtual = [0.0] * len(arrivals), 0.0, 0.0
    # All running tasks get the same share of the cores, so one clock of work done serves all of them: a task ends when
    # the clock reaches its value at the task's start plus the task's work.
    at_work: list[tuple[float, int, str, list[int]]] = []
    to_decode, to_run = deque(), deque()
    decoding = running = number = 0
    largest, arrived = stages.max_batch(), 0

    def start(work: float, kind: str, images: list[int]):
        nonlocal number
        number += 1
        heapq.heappush(at_work, (virtual + work, number, kind, images))

    while arrived < len(arrivals) or at_work:
        working = min(cores, len(at_work))
        rate = stages.pace_of(working) * working / len(at_work) if at_work else 1.0
        ends = now + (at_work[0][0] - virtual) / rate if at_work else math.inf
        if arrived < len(arrivals) and arrivals[arrived] <= ends:
            virtual += (arrivals[arrived] - now) * rate
            now = arrivals[arrived]
            to_decode.append(arrived)
            arrived += 1
        else:
            now, (virtual, _, kind, images) = ends, heapq.heappop(at_work)
            if kind == "decode":
                decoding -= 1
                to_run.extend(images)
            else:
                running -= 1
                for image in images:
                    waits[image] = now - arrivals[image]
        while to_run and running < cores:
            batch = [to_run.popleft() for _ in range(min(largest, len(to_run)))]
            running += 1
            start(max(runs[image] for image in batch) * stages.scale(len(batch)), "run", batch)
        while to_decode and decoding < cores:
            decoding += 1
            image = to_decode.popleft()
            start(decode[image], "decode", [image])
    return waits


def waits(
    stages: Stages, cores: int, arrivals: list[float], megapixels: float, seed: int = 1, with_client: bool = False
) -> list[float]:
    """Waits in seconds of clients that send images of this size at these times."""
    beside = stages.overhead + with_client * stages.client
    decode = [stages.decode(megapixels) + beside] * len(arrivals)
    runs = random.Random(seed).choices(stages.runs, k=len(arrivals))
    return [stages.transfer + wait for wait in simulate(arrivals, decode, runs, cores, stages)]


def predict(stages: Stages, cores: int, rate: float, megapixels: float) -> tuple[float, float]:
    """p50 and p99 of a client's wait in seconds, for independent arrivals of images of this size."""
    found = waits(stages, cores, independent(rate, IMAGES / rate), megapixels)
    return quantile(found, 0.5), quantile(found, 0.99)


def usable(stages: Stages, cores: int, megapixels: float, most_wait: float) -> float:
    """The largest load, as a share of the capacity, with a predicted p99 within `most_wait` times the idle one; at most
    four fifths, as a margin for what the model does not include."""
    idle = stages.transfer + stages.decode(megapixels) + stages.overhead + stages.run()
    capacity = stages.capacity(cores, megapixels)
    for share in range(80, 0, -5):
        if predict(stages, cores, share / 100 * capacity, megapixels)[1] <= most_wait * idle:
            return share / 100
    return 0.0
