"""A real Prometheus scrapes a server under load: rules, alerts and dashboard get data."""

import itertools
import json
import math
import re
import socket
import subprocess
import threading
import time

import pytest
import requests
from conftest import ROOT, new_key, serving

DEPLOY = ROOT / "deploy/prometheus"
PATIENCE = 90


def promtool(*arguments, text=None):
    ended = subprocess.run(["promtool", *arguments], input=text, capture_output=True, text=True, timeout=300)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout + ended.stderr


def dashboard():
    """(panel, query) of every query, as Grafana sends it."""
    for panel in json.loads((ROOT / "deploy/grafana/lfm-serve.json").read_text())["panels"]:
        for target in panel["targets"]:
            query = target["expr"].replace("$job", "lfm-serve").replace("$__rate_interval", "30s")
            yield panel["title"], query


def finite(api, query):
    answer = requests.get(f"{api}/query", params={"query": query}, timeout=30).json()
    assert answer["status"] == "success", f"{query}: {answer}"
    return any(math.isfinite(float(series["value"][1])) for series in answer["data"]["result"])


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    key, keys = new_key(tmp_path_factory.mktemp("keys"))
    with serving("--api-keys-file", str(keys)) as url:
        stop = threading.Event()
        images = [path.read_bytes() for path in sorted((ROOT / "tests/golden/images").iterdir())[:6]] + [b"no image"]

        def load():
            for image in itertools.cycle(images):
                if stop.is_set():
                    return
                requests.post(f"{url}/v1/score", data=image, headers={"X-API-Key": key}, timeout=60)

        clients = [threading.Thread(target=load) for _ in range(3)]
        for client in clients:
            client.start()
        yield url
        stop.set()
        for client in clients:
            client.join()


@pytest.fixture(scope="module")
def api(server, tmp_path_factory):
    """The API of a Prometheus with the project's configuration, with short intervals, scraping the test's server."""
    folder = tmp_path_factory.mktemp("prometheus")
    config = (DEPLOY / "prometheus.yml").read_text().replace("127.0.0.1:8080", server.removeprefix("http://"))
    (folder / "prometheus.yml").write_text(config.replace("15s", "1s"))
    (folder / "rules.yml").write_text((DEPLOY / "rules.yml").read_text())
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(["prometheus", f"--config.file={folder}/prometheus.yml",
            f"--storage.tsdb.path={folder}/data", f"--web.listen-address=127.0.0.1:{port}"], stderr=log)  # fmt: skip
    yield f"http://127.0.0.1:{port}/api/v1"
    process.terminate()
    process.wait(30)


def test_the_files_are_valid():
    promtool("check", "config", DEPLOY / "prometheus.yml")
    promtool("check", "rules", "--lint-fatal", DEPLOY / "rules.yml")
    promtool("test", "rules", DEPLOY / "rules.test.yml")


def test_promtool_finds_nothing_in_the_metrics(server):
    assert promtool("check", "metrics", text=requests.get(f"{server}/metrics", timeout=30).text) == ""


def test_every_query_has_data_under_load(api):
    # Firing is tested elsewhere: here each alert's expression without the thresholds must return data.
    alerts = re.findall(r"- alert: (\w+)\n        expr: \|\n((?:          .*\n)+)", (DEPLOY / "rules.yml").read_text())
    records = re.findall(r"- record: (\S+)", (DEPLOY / "rules.yml").read_text())
    assert len(alerts) == 13 and len(records) == 14
    # absent() is empty if there is data: then its argument must not be.
    queries = [(name, re.sub(r"(>|==) [\d.]+|absent(?=\()", "", expr)) for name, expr in alerts]
    queries += [(name, name) for name in records] + list(dashboard())
    end = time.monotonic() + PATIENCE
    while True:
        try:
            empty = [query for query in queries if not finite(api, query[1])]
        except requests.ConnectionError:
            empty = queries
        if not empty or time.monotonic() > end:
            break
        time.sleep(1)  # polling: Prometheus does not notify after a scrape
    assert not empty
    rules = requests.get(f"{api}/rules", timeout=30).json()["data"]["groups"]
    assert [rule for group in rules for rule in group["rules"] if rule["health"] == "err"] == []
