"""Realistic loads, each with the conditions that must hold under it. `make load SCENARIO=name`."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import images
from client import Address, Answer, Connection, closed_loop, evenly, independent, open_loop, post, quantile, ramp
from server import ROOT, metrics

CLIENTS = 16
REFUSED = {429, 503}  # proper refusals: both have Retry-After


@dataclass
class Phase:
    """A part of a scenario."""

    name: str
    seconds: float  # for which load was offered
    answers: list[Answer]
    notes: dict[str, float] = field(default_factory=dict)

    def share(self, *statuses: int) -> float:
        return sum(answer.status in statuses for answer in self.answers) / max(1, len(self.answers))

    def waits(self) -> list[float]:
        """Waits of the scores, in milliseconds."""
        return [1000 * answer.seconds for answer in self.answers if answer.status == 200]

    def scores_per_second(self) -> float:
        """Scores received while the load was offered."""
        began = min((answer.intended for answer in self.answers), default=0.0)
        inside = (
            answer.intended + answer.seconds <= began + self.seconds for answer in self.answers if answer.status == 200
        )
        return sum(inside) / self.seconds


@dataclass(frozen=True)
class Setting:
    """Where a scenario runs, and the duration of its phases."""

    address: Address
    headers: list[str]
    seconds: float
    p99_ms: float
    image: bytes

    def score(self, image: bytes | None = None) -> bytes:
        return post("/v1/score", image or self.image, *self.headers)

    async def closed(self, name: str, clients: int, seconds: float, requests: list[bytes] | None = None) -> Phase:
        return Phase(name, seconds, await closed_loop(self.address, requests or [self.score()], clients, seconds))

    async def open(self, name: str, arrivals: list[float], requests: list[bytes] | None = None) -> Phase:
        return Phase(name, arrivals[-1], await open_loop(self.address, requests or [self.score()], arrivals))

    async def capacity(self, requests: list[bytes] | None = None) -> float:
        """Images per second of a closed loop: the reference of the scenarios' loads."""
        found = await self.closed("capacity", CLIENTS, max(2.0, self.seconds / 4), requests)
        if not (rate := found.scores_per_second()):
            raise SystemExit(f"no scores: {found.answers[:1]}")
        return rate


@dataclass(frozen=True)
class Threshold:
    what: str
    held: bool
    figure: str


def all_scored(phase: Phase) -> Threshold:
    return Threshold(f"{phase.name}: every image is scored", phase.share(200) == 1, f"{phase.share(200):.2%}")


def scored_or_refused(phase: Phase) -> Threshold:
    share = phase.share(200, *REFUSED)
    return Threshold(f"{phase.name}: every image is scored, or refused with 429 or 503", share == 1, f"{share:.2%}")


def soon(phase: Phase, setting: Setting) -> Threshold:
    p99 = quantile(phase.waits(), 0.99)
    return Threshold(f"{phase.name}: p99 within {setting.p99_ms:g} ms", p99 <= setting.p99_ms, f"{p99:.0f} ms")


def goodput(phase: Phase, capacity: float) -> Threshold:
    share = phase.scores_per_second() / capacity
    return Threshold(f"{phase.name}: goodput of at least 80 % of capacity", share >= 0.8, f"{share:.0%}")


Result = tuple[list[Phase], list[Threshold]]


async def smoke(setting: Setting) -> Result:
    """One client for a short time."""
    phase = await setting.closed("one client", 1, min(3, setting.seconds))
    return [phase], [all_scored(phase)]


async def closed(setting: Setting) -> Result:
    """1, 2, 4, 8 and 16 clients, each sending its next image when the previous one is answered."""
    phases = [await setting.closed(f"{clients} clients", clients, setting.seconds) for clients in (1, 2, 4, 8, 16)]
    return phases, [all_scored(phase) for phase in phases]


async def constant(setting: Setting) -> Result:
    """Half the capacity, from independent clients."""
    capacity = await setting.capacity()
    phase = await setting.open("50 % of capacity", independent(0.5 * capacity, setting.seconds))
    return [phase], [all_scored(phase), soon(phase, setting)]


async def ramping(setting: Setting) -> Result:
    """From a tenth of the capacity to twice it, linearly."""
    capacity = await setting.capacity()
    phase = await setting.open("10 % to 200 %", ramp(0.1 * capacity, 2 * capacity, setting.seconds))
    return [phase], [scored_or_refused(phase)]


async def overload(setting: Setting) -> Result:
    """Twice the capacity."""
    capacity = await setting.capacity()
    phase = await setting.open("200 % of capacity", evenly(2 * capacity, setting.seconds))
    return [phase], [scored_or_refused(phase), goodput(phase, capacity)]


async def burst(setting: Setting) -> Result:
    """A quarter of the capacity, and three bursts of one second's capacity each."""
    capacity = await setting.capacity()
    base = independent(0.25 * capacity, setting.seconds)
    bursts = [at * setting.seconds / 4 for at in range(1, 4) for _ in range(round(capacity))]
    phase = await setting.open(f"bursts of {capacity:.0f}", sorted(base + bursts))
    return [phase], [scored_or_refused(phase)]


async def soak(setting: Setting) -> Result:
    """Seven tenths of the capacity for a long time (DURATION=3600), monitoring memory."""
    capacity = await setting.capacity()
    phases = []
    for part in range(10):
        phase = await setting.open(f"part {part + 1}", independent(0.7 * capacity, setting.seconds / 10, part))
        phase.notes["memory_mib"] = metrics(setting.address)["process_resident_memory_bytes"] / 2**20
        phases.append(phase)
    # Relative to the second part: in the first one, sizes and queue depths occur for the first time.
    growth = phases[-1].notes["memory_mib"] / phases[1].notes["memory_mib"] - 1
    whole = Phase("all parts", setting.seconds, [answer for phase in phases for answer in phase.answers])
    grown = Threshold("memory grows by no more than 10 % after the second part", growth <= 0.1, f"{growth:+.1%}")
    return phases, [all_scored(whole), soon(whole, setting), grown]


async def mixed(setting: Setting) -> Result:
    """256 px to 12 MP, as JPEG, PNG and WebP, at half the capacity for that mixture."""
    requests = [setting.score(image) for image in images.mixed()]
    capacity = await setting.capacity(requests)
    phase = await setting.open("50 % of capacity", independent(0.5 * capacity, setting.seconds), requests)
    phase.notes["megabytes_per_image"] = sum(map(len, requests)) / len(requests) / 1e6
    return [phase], [all_scored(phase)]


async def slow(setting: Setting) -> Result:
    """32 clients that send a kilobyte per second, concurrently with others at half the capacity."""
    capacity = await setting.capacity()
    arrivals = independent(0.5 * capacity, setting.seconds)
    alone = await setting.open("without slow clients", arrivals)
    trickles = [asyncio.create_task(trickle(setting)) for _ in range(32)]
    beside = await setting.open("beside slow clients", arrivals)
    for task in trickles:
        task.cancel()
    await asyncio.gather(*trickles, return_exceptions=True)
    return [alone, beside], [all_scored(alone), all_scored(beside), soon(beside, setting)]


async def trickle(setting: Setting) -> None:
    """Sends its image slowly and repeatedly, whatever the answer."""
    request = setting.score()
    while True:
        reader, writer = await asyncio.open_connection(*setting.address)
        try:
            for at in range(0, len(request), 100):
                writer.write(request[at : at + 100])
                await writer.drain()
                await asyncio.sleep(0.1)
            await reader.read()
        except ConnectionError:
            pass  # the server's body timeout
        finally:
            writer.close()


async def hangups(setting: Setting) -> Result:
    """Clients at half the capacity, and others at the full capacity that disconnect after 20 ms."""
    capacity = await setting.capacity()
    before = scored(setting)
    leaving = asyncio.create_task(leave(setting, independent(capacity, setting.seconds, 2)))
    phase = await setting.open("50 % that stay", independent(0.5 * capacity, setting.seconds))
    phase.notes["left"] = await leaving
    phase.notes["run_for_nobody"] = scored(setting) - before - sum(answer.status == 200 for answer in phase.answers)
    return [phase], [scored_or_refused(phase), soon(phase, setting)]


def scored(setting: Setting) -> float:
    return metrics(setting.address)["lfm_batch_size_sum"]


async def leave(setting: Setting, arrivals: list[float]) -> int:
    """How many disconnected before they were answered."""
    request, left = setting.score(), 0

    async def one():
        nonlocal left
        connection = Connection(setting.address)
        try:
            async with asyncio.timeout(0.02):
                await connection.ask(request)
        except (TimeoutError, ConnectionError):
            left += 1
        connection.hang_up()

    tasks, loop = [], asyncio.get_running_loop()
    start = loop.time()
    for arrival in arrivals:
        await asyncio.sleep(start + arrival - loop.time())
        tasks.append(asyncio.create_task(one()))
    await asyncio.gather(*tasks)
    return left


async def short(setting: Setting) -> Result:
    """Smoke, half the capacity, twice the capacity."""
    results = [await scenario(setting) for scenario in (smoke, constant, overload)]
    return [phase for phases, _ in results for phase in phases], [
        held for _, thresholds in results for held in thresholds
    ]


Scenario = Callable[[Setting], Awaitable[Result]]
ALL: dict[str, Scenario] = {
    scenario.__name__: scenario
    for scenario in (short, smoke, closed, constant, ramping, burst, overload, soak, mixed, slow, hangups)
}
DEFAULT_IMAGE = ROOT / "tests/golden/images/x_coffee_256.png"
