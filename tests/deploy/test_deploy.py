"""The Dockerfile and compose against their own tools, and what deploy/ sets against the program and its figures."""

import json
import os
import re
import subprocess

import yaml
from conftest import BINARY, DEPLOY, ROOT, TOOLS, compose, containers, rendered, run


def test_the_dockerfile_is_clean():
    run(TOOLS / "hadolint", "Dockerfile")


def test_compose_takes_its_file():
    run("docker-compose", "-f", "deploy/compose.yaml", "config", "-q")


def test_prometheus_takes_the_configuration_for_compose():
    run("promtool", "check", "config", "deploy/prometheus/compose.yml")
    [job] = yaml.safe_load((DEPLOY / "prometheus/compose.yml").read_text())["scrape_configs"]
    [targets] = job["static_configs"]
    assert {target.split(":")[0] for target in targets["targets"]} <= compose()["services"].keys()


def block(document, name):
    """The rows of a generated table, as lists of cells."""
    text = re.search(rf"<!-- {name} -->\n(.*?)<!-- /{name} -->", document, re.S).group(1)
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("|")][2:]


def test_the_latency_objective_is_twice_what_was_measured():
    document = (ROOT / "docs/scaling.md").read_text()
    sized = {row[0]: int(row[2].rstrip("%")) for row in block(document, "cores")}
    measured = {}
    for cores, load, _, _, p99, *_ in block(document, "curve"):
        if int(load.rstrip("%")) <= sized[cores]:
            measured[cores] = max(measured.get(cores, 0), float(p99.split("/")[0]) / 1000)
    rules = (DEPLOY / "prometheus/rules.yml").read_text()
    [objective] = set(re.findall(r'stage="total",le="([\d.]+)"', rules))
    assert 2 * max(measured.values()) <= float(objective)
    assert f"have their answer within {objective} s" in rules and f"take over {objective} s" in rules
    words = f"the measured p99 is {measured['1']:.2f} s (one core) and {measured['2']:.2f} s (two cores)"
    assert words in re.sub(r"\n#\s+", " ", rules)


UNITS = {"m": 2**20, "g": 2**30, "M": 2**20, "G": 2**30, "Mi": 2**20, "Gi": 2**30, "MiB": 2**20, "GiB": 2**30}


def size(text):
    number, unit = re.fullmatch(r"([\d.]+) ?([A-Za-z]+)", text).groups()
    return float(number) * UNITS[unit]


def heaviest(cores):
    """What `doctor` says that the server needs at most, with this many CPUs and no setting changed."""
    allowed = sorted(os.sched_getaffinity(0))[:cores]
    assert len(allowed) == cores, f"{cores} CPUs are needed"
    environment = {name: value for name, value in os.environ.items() if not name.startswith("LFM_")}
    command = ["taskset", "-c", ",".join(map(str, allowed)), BINARY, "doctor", "--json"]
    said = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120).stdout
    [memory] = [check for check in json.loads(said)["checks"] if check["name"] == "memory"]
    return size(re.search(r"sessions, ([\d.]+ [MG]iB) under the heaviest load", memory["detail"]).group(1))


def test_every_memory_limit_holds_what_doctor_says():
    need = heaviest(2)
    limits = {"compose": compose()["services"]["lfm-1"]["mem_limit"]}
    for folder in ("kubernetes/overlays/cpu", "kserve"):
        [container] = containers(rendered(folder))
        assert container["resources"]["limits"]["cpu"] == "2"
        limits[folder] = container["resources"]["limits"]["memory"]
    limits["systemd"] = re.search(r"^MemoryMax=(\S+)$", (DEPLOY / "systemd/lfm-serve.service").read_text(), re.M).group(1)
    assert compose()["services"]["lfm-1"]["cpus"] == 2
    for place, limit in limits.items():
        assert need <= size(limit), place
