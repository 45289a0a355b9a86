"""The Helm chart: what it renders is what the Kustomize overlays render, so that the two cannot differ."""

import re
import subprocess

import pytest
import yaml
from conftest import DEPLOY, OVERLAYS, ROOT, TOOLS, VERSION, VERSIONS, rendered, run, serve_help
from test_kubernetes import check

CHART = DEPLOY / "helm/lfm-serve"
# What Helm writes beside the label that both have.
HELMS_OWN = {"app.kubernetes.io/instance", "app.kubernetes.io/version", "app.kubernetes.io/managed-by", "helm.sh/chart"}


def template(*arguments, release="lfm-serve"):
    return list(yaml.safe_load_all(run(TOOLS / "helm", "template", release, CHART, *arguments)))


def refused(*arguments):
    command = [TOOLS / "helm", "template", "lfm-serve", CHART, *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)


def plain(value):
    """An object without what Helm adds; lists of named entries in one order."""
    if isinstance(value, dict):
        return {name: plain(inner) for name, inner in value.items() if name not in HELMS_OWN}
    if isinstance(value, list):
        items = [plain(item) for item in value]
        named = all(isinstance(item, dict) and "name" in item for item in items)
        return sorted(items, key=lambda item: item["name"]) if named else items
    return value


def by_name(objects):
    return {(item["kind"], item["metadata"]["name"]): plain(item) for item in objects}


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_it_lints(overlay):
    run(TOOLS / "helm", "lint", "--strict", CHART, "--values", CHART / f"ci/{overlay}-values.yaml")


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_it_renders_what_kustomize_renders(overlay):
    ours = by_name(template("--values", CHART / f"ci/{overlay}-values.yaml"))
    theirs = by_name(rendered(f"kubernetes/overlays/{overlay}"))
    assert ours.keys() == theirs.keys()
    for name, item in ours.items():
        assert item == theirs[name]


def test_its_own_values_are_the_cpu_overlays():
    assert template() == template("--values", CHART / "ci/cpu-values.yaml")


def test_two_releases_do_not_meet_in_one_namespace():
    names = [{(item["kind"], item["metadata"]["name"]) for item in template(release=name)} for name in ("a", "b")]
    assert not names[0] & names[1]
    [deployment] = [item for item in template(release="a") if item["kind"] == "Deployment"]
    assert deployment["metadata"]["name"] == "a-lfm-serve"
    assert deployment["spec"]["selector"]["matchLabels"]["app.kubernetes.io/instance"] == "a"


EVERYTHING = {
    "image": {"repository": "registry.example.com/lfm", "tag": "x", "pullPolicy": "Always", "pullSecrets": [{"name": "pull"}]},
    "env": {"LFM_MAX_PIXELS": "32MP", "LFM_SESSIONS": 2},
    "resources": {"limits": {"cpu": "4", "memory": "4Gi"}},
    "nodeSelector": {"pool": "a"},
    "tolerations": [{"key": "pool", "operator": "Exists"}],
    "affinity": {"nodeAffinity": {}},
    "podAnnotations": {"a": "b"},
    "gpu": {"enabled": True, "engineCache": {"storageClassName": "shared"}},
    "keysSecret": "keys",
    "networkPolicy": {"callers": [], "egress": [{"ports": [{"port": 4318}]}]},
    "monitoring": {"labels": {}},
    "ingress": {"enabled": True, "host": "*.example.com"},
    "gateway": {"enabled": True, "existing": "edge", "host": "*.example.com"},
}


def test_every_value_renders_valid_objects(tmp_path):
    file = tmp_path / "values.yaml"
    file.write_text(yaml.safe_dump(EVERYTHING))
    objects = template("--values", file)
    for version in VERSIONS["kubernetes"].values():
        for item in objects:
            check(item, version)
    text = yaml.safe_dump(objects)
    for value in ("registry.example.com/lfm:x", "32MP", "pool", "shared", "edge", "'*.example.com'", "4318"):
        assert value in text, value
    [deployment] = [item for item in objects if item["kind"] == "Deployment"]
    [container] = deployment["spec"]["template"]["spec"]["containers"]
    assert all(f"[env: {setting['name']}=" in serve_help() for setting in container["env"])
    assert container["resources"] == EVERYTHING["resources"]


def test_what_is_switched_off_is_not_there():
    kinds = {item["kind"] for item in template("--set", "monitoring.enabled=false,networkPolicy.enabled=false")}
    assert kinds == {"Deployment", "Service", "PodDisruptionBudget"}


@pytest.mark.parametrize("wrong", ["replica=3", "autoscaling.kind=vpa", "env.RUST_LOG=debug", "image.pullpolicy=Always"])
def test_a_misspelt_value_is_refused(wrong):
    ended = refused("--set", wrong)
    assert ended.returncode != 0 and "schema" in ended.stderr


def test_it_packs(tmp_path):
    run(TOOLS / "helm", "package", CHART, "--destination", tmp_path)
    [archive] = tmp_path.iterdir()
    packed = list(yaml.safe_load_all(run(TOOLS / "helm", "template", "lfm-serve", archive)))
    assert packed == template()


def test_the_documents_command_installs_it():
    """As it stands, without a cluster."""
    text = " ".join((ROOT / "docs/deploy.md").read_text().split())
    [command] = re.findall(r"`helm (install [^`]+)`", text)
    said = run(TOOLS / "helm", *command.split(), "--dry-run=client")
    assert f"image: REGISTRY/lfm-serve:{VERSION}" in said and "port-forward service/lfm-serve" in said
