"""The client that all load tests share, against a server in the same process."""

import asyncio
import itertools
import statistics
import time

import pytest

from client import LOST, Connection, closed_loop, evenly, independent, open_loop, post, quantile, ramp


def answer(body: bytes, status: bytes = b"200 OK", *headers: bytes) -> bytes:
    return b"\r\n".join([b"HTTP/1.1 " + status, b"content-length: %d" % len(body), *headers, b"", body])


def against(respond, load):
    """Result of `load(address)` against a server that answers each request with `await respond(number)`."""

    async def main():
        numbers = itertools.count()

        async def serve(reader, writer):
            try:
                while True:
                    head = await reader.readuntil(b"\r\n\r\n")
                    await reader.readexactly(int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0]))
                    reply = await respond(next(numbers))
                    if reply is None:
                        break
                    for part in reply if isinstance(reply, list) else [reply]:
                        writer.write(part)
                        await writer.drain()
                        await asyncio.sleep(0)
            except (asyncio.IncompleteReadError, ConnectionError):
                pass
            writer.close()

        async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
            return await load(server.sockets[0].getsockname())

    return asyncio.run(main())


async def fine(number):
    return answer(b"%d" % number)


def test_every_client_of_a_closed_loop_waits_for_its_answer():
    served = []

    async def slowly(number):
        served.append(number)
        await asyncio.sleep(0.01)
        return answer(b"yes")

    found = against(slowly, lambda address: closed_loop(address, [post("/", b"x")], 3, 0.2))
    assert len(found) == len(served)
    assert {(one.status, one.body) for one in found} == {(200, b"yes")}


def test_an_open_loop_sends_all_and_counts_from_the_intended_time():
    """A server that stalls delays the answers of all requests due in that time, and none is left out."""
    stall = 0.3

    async def stalls_once(number):
        if number == 0:
            time.sleep(stall)  # the client shares this thread: it cannot even send
        return answer(b"")

    arrivals = evenly(100, 0.5)
    found = against(stalls_once, lambda address: open_loop(address, [post("/", b"x")], arrivals))
    assert len(found) == 50
    starts = sorted(one.intended for one in found)
    assert [start - starts[0] for start in starts] == pytest.approx(arrivals)
    # The stall begins with the first; a request due in its middle waits for half of it.
    middle = min(found, key=lambda one: abs(one.intended - starts[0] - stall / 2))
    assert middle.seconds >= 0.4 * stall


def test_a_chunked_answer_is_joined():
    chunks = [
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n",
        b"3\r\nabc\r\n4;x=y\r\nd\r\ne\r\n",
        b"0\r\n\r\n",
    ]

    async def chunked(number):
        return chunks

    async def twice(address):
        connection = Connection(address)
        found = [await connection.ask(post("/", b"")) for _ in range(2)]
        connection.hang_up()
        return found

    assert against(chunked, twice) == [(200, b"abcd\r\ne")] * 2


def test_a_kept_connection_that_the_server_closed_is_reopened():
    async def closes_after_the_first(number):
        return None if number == 1 else answer(b"%d" % number)

    async def twice(address):
        connection = Connection(address)
        found = [await connection.ask(post("/", b"")) for _ in range(2)]
        connection.hang_up()
        return found

    assert against(closes_after_the_first, twice) == [(200, b"0"), (200, b"2")]


def test_a_missing_answer_is_recorded():
    async def never(number):
        await asyncio.Event().wait()

    async def refused(address):
        return await open_loop(("127.0.0.1", 1), [post("/", b"")], [0.0])

    late = against(never, lambda address: open_loop(address, [post("/", b"")], [0.0, 0.01], patience=0.1))
    assert [one.status for one in late] == [LOST, LOST]
    assert [one.status for one in against(fine, refused)] == [LOST]


def test_arrivals():
    assert evenly(4, 1) == [0, 0.25, 0.5, 0.75]
    poisson = independent(1000, 20)
    gaps = [after - before for before, after in itertools.pairwise(poisson)]
    assert poisson == independent(1000, 20) != independent(1000, 20, seed=2)
    assert len(poisson) == pytest.approx(20_000, rel=0.03)
    # The gaps of a Poisson process scatter by as much as their mean.
    assert statistics.stdev(gaps) == pytest.approx(statistics.mean(gaps), rel=0.05)
    rising = ramp(10, 30, 10)
    assert len(rising) == 200 and rising == sorted(rising) and rising[-1] < 10
    # 10 a second and 2 more each second: by the middle 10 * 5 + 5 * 5 have arrived.
    assert sum(at < 5 for at in rising) == pytest.approx(75, abs=1)
    assert ramp(5, 5, 2) == pytest.approx(evenly(5, 2))


def test_quantiles_are_measured_values():
    assert quantile([3.0, 1.0, 2.0], 0.5) == 2.0
    assert quantile(list(range(100)), 0.99) == 99
    assert quantile([], 0.5) != quantile([], 0.5)  # not a number
