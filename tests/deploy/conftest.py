"""What the tests of deploy/ share: the tools, the files, and the program's own word on its settings."""

import functools
import pathlib
import re
import subprocess
import sys
import tomllib

import yaml

ROOT = pathlib.Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
TOOLS = pathlib.Path(sys.executable).parent
BINARY = ROOT / "target/release/lfm-serve"
VERSION = tomllib.loads((ROOT / "Cargo.toml").read_text())["package"]["version"]
VERSIONS = tomllib.loads((DEPLOY / "versions.toml").read_text())
OVERLAYS = ["cpu", "gpu", "hpa", "keda", "ingress", "gateway"]


def run(*command):
    ended = subprocess.run(list(map(str, command)), cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


@functools.cache
def kustomized(folder):
    return run(TOOLS / "kubectl", "kustomize", DEPLOY / folder)


def rendered(folder):
    """The objects of a Kustomize folder, below deploy/."""
    return list(yaml.safe_load_all(kustomized(folder)))


def of_kind(objects, kind):
    [found] = [item for item in objects if item["kind"] == kind]
    return found


def containers(objects):
    """Every container of Deployments and ServingRuntimes."""
    for item in objects:
        spec = item.get("spec", {})
        yield from spec.get("template", {}).get("spec", {}).get("containers", [])
        yield from spec.get("containers", [])


def compose():
    return yaml.safe_load((DEPLOY / "compose.yaml").read_text())


@functools.cache
def serve_help():
    return run(BINARY, "serve", "--help")


def default_of(flag):
    """A flag's default, from the program's own help."""
    return re.search(rf"--{flag} <.*?\[default: (.*?)\]", serve_help(), re.S).group(1)


def seconds(text):
    return int(re.fullmatch(r"(\d+)s", text).group(1))
