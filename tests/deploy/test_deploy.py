"""The Dockerfile and compose against their own tools, and what deploy/ sets against the program and its figures."""

import re

import yaml
from conftest import DEPLOY, ROOT, TOOLS, compose, run


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
