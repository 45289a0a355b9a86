"""The cost of an explanation: the server's CPU time for /v1/explain (JSON) and /v1/score, one client, interleaved.

The whole process counts, including the serialisation of the JSON: `make bench-explain`. Standard library only.
"""

import argparse
import http.client
import json
import pathlib
import statistics

from server import Server


def milliseconds(server: Server, connection: http.client.HTTPConnection, route: str, image: bytes) -> float:
    """The server's CPU time for one answer."""
    before = server.cpu_seconds()
    connection.request("POST", route, image)
    answer = connection.getresponse()
    body = json.loads(answer.read())
    assert answer.status == 200, body
    return 1e3 * (server.cpu_seconds() - before)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("images", nargs="+", type=pathlib.Path)
    parser.add_argument("--rounds", type=int, default=100)
    args = parser.parse_args()
    with Server("--sessions", "1", "--log-level", "warn") as server:
        connection = http.client.HTTPConnection(*server.address)
        for path in args.images:
            image = path.read_bytes()
            pairs = [
                [milliseconds(server, connection, route, image) for route in ("/v1/score", "/v1/explain")]
                for _ in range(args.rounds)
            ]
            score, explain = (statistics.median(times) for times in zip(*pairs, strict=True))
            print(f"{path.name}: score {score:.2f} ms of CPU, explain {explain:.2f} ms, {explain / score:.3f}x")


if __name__ == "__main__":
    main()
