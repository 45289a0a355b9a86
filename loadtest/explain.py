"""What an explanation costs: server time of /v1/explain (JSON) against /v1/score, one client, in turns.

Run it on an idle machine: `make bench-explain`. Standard library only.
"""

import argparse
import http.client
import json
import pathlib
import statistics

from scheduler import Server


def milliseconds(connection: http.client.HTTPConnection, route: str, image: bytes) -> float:
    """The server's own time for one answer, from the head of the request on."""
    connection.request("POST", route, image)
    answer = connection.getresponse()
    body = json.loads(answer.read())
    assert answer.status == 200, body
    return body["timings_ms"]["total"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("images", nargs="+", type=pathlib.Path)
    parser.add_argument("--rounds", type=int, default=100)
    args = parser.parse_args()
    with Server("--sessions", "1", "--log-level", "warn") as server:
        connection = http.client.HTTPConnection("127.0.0.1", server.port)
        for path in args.images:
            image = path.read_bytes()
            pairs = [
                [milliseconds(connection, route, image) for route in ("/v1/score", "/v1/explain")]
                for _ in range(args.rounds)
            ]
            score, explain = (statistics.median(times) for times in zip(*pairs))
            print(f"{path.name}: score {score:.2f} ms, explain {explain:.2f} ms, {explain / score:.3f}x")


if __name__ == "__main__":
    main()
