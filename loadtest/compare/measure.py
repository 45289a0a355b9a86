"""The measurements on a running system, step by step."""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from statistics import median

from client import LOST, Answer, Connection, closed_loop, independent, open_loop, quantile
from systems import DEADLINE_MS
from visit import Failed, Visit

CLIENTS = 16  # enough that a full batch can form while another runs
LEAVERS = 32
EQUAL = 5e-4  # tolerance in logits, as in our golden test against a float64 run of the reference


@dataclass(frozen=True)
class Durations:
    """Seconds of each step."""

    settle: float = 1
    saturated: float = 5
    steady: float = 6
    overload: float = 7
    idle: float = 3


QUICK = Durations(0.5, 1.5, 1, 1.5, 0.3)


def measure(visit: Visit, images: list[bytes], golden: dict[str, tuple[bytes, float]], times: Durations) -> dict:
    """All of a visit's figures."""
    requests = [visit.system.request(image) for image in images]
    figures: dict = {"start_seconds": visit.start_seconds}
    figures["scores"] = asyncio.run(compare_scores(visit, golden))  # it warms up as well
    # After a settling time: a full batch of the slowest system takes a second to form and run.
    closed = closed_loop(visit.address, requests, CLIENTS, times.settle + times.saturated)
    saturated = loaded(times.saturated, closed, times.settle)
    figures["saturated"] = saturated
    capacity = saturated["scores_per_second"]
    if not capacity:
        raise Failed("no score while it was saturated")
    loads = (
        ("half", 0.5, times.steady),
        ("most", 0.8, times.steady),
        ("nearly_all", 0.95, times.steady),
        ("double", 2.0, times.overload),
    )
    for name, load, seconds in loads:
        arrivals = independent(load * capacity, seconds)
        # A client gives up after five deadlines: a later answer would not count as good.
        figures[name] = loaded(seconds, open_loop(visit.address, requests, arrivals, 5 * DEADLINE_MS / 1000))
        figures[name]["good_of_capacity"] = figures[name]["good_per_second"] / capacity
    figures["memory_mib"] = visit.memory_mib()
    visit.settled()
    figures["left"] = asyncio.run(leave(visit, visit.executed))
    figures["idle_share"] = share_of_a_core(visit.cpu_seconds, times.idle)
    return figures


def loaded(seconds: float, load: Coroutine, settle: float = 0) -> dict:
    """The figures of a load that is offered for some time (after it has settled), and its client's share of a core."""
    began, spent = time.monotonic(), time.process_time()
    answers = asyncio.run(load)
    spent, took = time.process_time() - spent, time.monotonic() - began
    return {**summary(answers, began + settle, seconds), "client_share": spent / took}


def summary(answers: list[Answer], began: float, seconds: float) -> dict:
    """`good`: a score within the deadline. Rates count answers received while the load was offered; later ones are
    backlog. The waits are those of all scores, late ones included."""

    def rate(answers: list[Answer]) -> float:
        return sum(began <= answer.intended + answer.seconds <= began + seconds for answer in answers) / seconds

    scores = [answer for answer in answers if answer.status == 200]
    good = [answer for answer in scores if 1000 * answer.seconds <= DEADLINE_MS]
    waits = [1000 * answer.seconds for answer in scores]
    return {
        "asked": len(answers),
        "scores_per_second": rate(scores),
        "good_per_second": rate(good),
        "statuses": Counter(str(answer.status) for answer in answers),
        "unanswered": sum(answer.status == LOST for answer in answers),
        "p50_ms": quantile(waits, 0.5),
        "p99_ms": quantile(waits, 0.99),
    }


def share_of_a_core(cpu_seconds: Callable[[], float], seconds: float) -> float:
    before, began = cpu_seconds(), time.monotonic()
    time.sleep(seconds)  # the share is of this time
    return (cpu_seconds() - before) / (time.monotonic() - began)


async def compare_scores(visit: Visit, golden: dict[str, tuple[bytes, float]]) -> dict:
    """Every golden image against the reference's logit."""
    connection, off, refused = Connection(visit.address), {}, []
    for name, (image, expected) in golden.items():
        status, body = await connection.ask(visit.system.request(image))
        if status == 200:
            off[name] = abs(visit.system.logit(body) - expected)
        else:
            refused.append(name)
    connection.hang_up()
    return {
        "equal": sum(difference <= EQUAL for difference in off.values()),
        "other": sorted(name for name, difference in off.items() if difference > EQUAL),
        "refused": refused,
        "worst": max(off.values(), default=None),
        "median": median(off.values()) if off else None,
    }


async def leave(visit: Visit, executed: Callable[[], int]) -> dict:
    """Many clients send at once and disconnect when the first is answered; then one sends and stays."""
    before = executed()
    tasks = [asyncio.create_task(Connection(visit.address).ask(visit.request)) for _ in range(LEAVERS)]
    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in tasks:
        task.cancel()
    ended = await asyncio.gather(*tasks, return_exceptions=True)
    answered = sum(not isinstance(one, BaseException) for one in ended)
    began, stayer = time.monotonic(), Connection(visit.address)
    await stayer.ask(visit.request)
    waited = time.monotonic() - began
    stayer.hang_up()
    run = await asyncio.to_thread(visit.settled) - before
    return {"left": LEAVERS - answered, "run": max(0, run - answered - 1), "next_wait_ms": 1000 * waited}
