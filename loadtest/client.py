"""Load over HTTP from one process: keep-alive connections, a closed loop, an open loop. Standard library only.

A wait counts from the intended time of sending: a slow server does not slow down the load (coordinated omission).
"""

import asyncio
import random
import time
from dataclasses import dataclass

Address = tuple[str, int]  # host and port
LOST = 0  # the status of a request that got no answer


@dataclass(slots=True)
class Answer:
    """The answer to one request."""

    status: int
    body: bytes
    intended: float  # by time.monotonic()
    seconds: float  # from there to the last byte


def post(path: str, body: bytes, *headers: str) -> bytes:
    """A request as bytes."""
    lines = [f"POST {path} HTTP/1.1", "host: lfm", f"content-length: {len(body)}", *headers]
    return "\r\n".join([*lines, "", ""]).encode() + body


class Wire(asyncio.Protocol):
    """One connection, one answer at a time. Cheaper than asyncio's streams: the client shares the server's cores."""

    def __init__(self):
        self.buffer, self.answer, self.head_ends, self.opened = bytearray(), None, None, True

    def connection_made(self, transport):
        self.transport = transport

    def data_received(self, data):
        self.buffer += data
        if self.head_ends is None:
            end = self.buffer.find(b"\r\n\r\n")
            if end < 0:
                return
            self.head_ends, self.head = end + 4, bytes(self.buffer[:end]).lower()
            length = self.head.partition(b"content-length:")[2]
            self.ends = self.head_ends + int(length.split(b"\r\n")[0]) if length else None
        if self.ends is not None and len(self.buffer) >= self.ends:
            self.complete(bytes(self.buffer[self.head_ends : self.ends]), self.ends)
        elif self.ends is None and self.buffer.endswith(b"\r\n0\r\n\r\n"):
            self.complete(joined(self.buffer[self.head_ends :]), len(self.buffer))

    def complete(self, body: bytes, ends: int):
        status = int(self.head[9:12])
        del self.buffer[:ends]
        self.head_ends = None
        if b"connection: close" in self.head:
            self.close()
        if not self.answer.done():
            self.answer.set_result((status, body))

    def connection_lost(self, error):
        self.opened = False
        if self.answer and not self.answer.done():
            self.answer.set_exception(error or ConnectionResetError("closed by the server"))

    def close(self):
        self.opened = False
        self.transport.close()


def joined(chunks: bytearray) -> bytes:
    """A chunked body, decoded (RFC 9112, 7.1)."""
    body = b""
    while (line := chunks.partition(b"\r\n"))[0] != b"0":
        size = int(line[0].split(b";")[0], 16)
        body += line[2][:size]
        chunks = line[2][size + 2 :]
    return body


class Connection:
    """A client's keep-alive connection, opened on demand."""

    def __init__(self, address: Address):
        self.address, self.wire = address, None

    async def ask(self, request: bytes) -> tuple[int, bytes]:
        """Sends the request and waits for the answer. A kept connection that the server closed is reopened once."""
        kept = self.wire is not None and self.wire.opened
        try:
            return await self._ask(request)
        except ConnectionError:
            if not kept:
                raise
            return await self._ask(request)

    async def _ask(self, request: bytes) -> tuple[int, bytes]:
        loop = asyncio.get_running_loop()
        if self.wire is None or not self.wire.opened:
            _, self.wire = await loop.create_connection(Wire, *self.address)
        self.wire.answer = loop.create_future()
        self.wire.transport.write(request)
        try:
            return await self.wire.answer
        except BaseException:
            self.hang_up()
            raise

    def hang_up(self):
        if self.wire:
            self.wire.close()
            self.wire = None

    async def answer(self, request: bytes, intended: float, patience: float) -> Answer:
        """Like `ask`, but never raises."""
        try:
            async with asyncio.timeout(intended + patience - time.monotonic()):
                status, body = await self.ask(request)
        except (OSError, TimeoutError, ValueError) as error:
            status, body = LOST, repr(error).encode()
        return Answer(status, body, intended, time.monotonic() - intended)


async def closed_loop(
    address: Address, requests: list[bytes], clients: int, seconds: float, patience: float = 30
) -> list[Answer]:
    """Each client sends its next request when the previous one is answered."""
    end = time.monotonic() + seconds
    answers = []

    async def client(number: int):
        connection = Connection(address)
        turn = number
        while (now := time.monotonic()) < end:
            answers.append(await connection.answer(requests[turn % len(requests)], now, patience))
            turn += clients
        connection.hang_up()

    await asyncio.gather(*(client(number) for number in range(clients)))
    return answers


async def open_loop(
    address: Address, requests: list[bytes], arrivals: list[float], patience: float = 30
) -> list[Answer]:
    """Sends at `arrivals`, seconds from now, independently of the answers; a client gives up after `patience`."""
    free: list[Connection] = []
    answers = []

    async def one(request: bytes, intended: float):
        connection = free.pop() if free else Connection(address)
        answers.append(await connection.answer(request, intended, patience))
        free.append(connection)

    start, tasks = time.monotonic(), []
    for number, arrival in enumerate(arrivals):
        if (wait := start + arrival - time.monotonic()) > 0:
            await asyncio.sleep(wait)
        tasks.append(asyncio.create_task(one(requests[number % len(requests)], start + arrival)))
    await asyncio.gather(*tasks)
    for connection in free:
        connection.hang_up()
    return answers


def evenly(rate: float, seconds: float) -> list[float]:
    """Arrivals at a constant rate."""
    return [i / rate for i in range(int(rate * seconds))]


def independent(rate: float, seconds: float, seed: int = 1) -> list[float]:
    """Arrivals of independent clients: a Poisson process, the same for the same seed."""
    draw, arrivals = random.Random(seed), []
    at = draw.expovariate(rate)
    while at < seconds:
        arrivals.append(at)
        at += draw.expovariate(rate)
    return arrivals


def ramp(first: float, last: float, seconds: float) -> list[float]:
    """Arrivals whose rate changes linearly from `first` to `last`."""
    arrivals, slope = [], (last - first) / seconds
    for i in range(int((first + last) / 2 * seconds)):
        # The i-th arrival is where the integral of the rate, first * t + slope * t^2 / 2, is i.
        arrivals.append(i / first if slope == 0 else ((first**2 + 2 * slope * i) ** 0.5 - first) / slope)
    return arrivals


def quantile(values: list[float], q: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(q * len(ordered)))] if ordered else float("nan")
