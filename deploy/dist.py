"""Writes what an archive says of its parts: sbom.cdx.json (CycloneDX 1.6) and LICENSES/rust-crates.txt.

    python deploy/dist.py FOLDER PACKAGE     # an archive's folder, as deploy/tree.sh lays it out

The crates are those that `cargo metadata` finds linked into PACKAGE, the program or the Python module (or run by the
compiler for it, as derive macros are); their licence texts are those in the published packages. Equal inputs give equal
bytes.
"""

import datetime
import hashlib
import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TARGET = "x86_64-unknown-linux-gnu"
LICENCE_FILE = re.compile(r"(?i)^(licen[cs]e|copying|notice|unlicense|copyright|readme\.ijg)")


def metadata() -> dict:
    command = ["cargo", "metadata", "--locked", "--format-version", "1", "--filter-platform", TARGET]
    return json.loads(subprocess.run(command, cwd=ROOT, check=True, capture_output=True).stdout)


def built(package: str) -> set[tuple[str, str]]:
    """Name and version of every crate in the build. `cargo metadata` also lists optional dependencies that only a weak
    feature (`name?/feature`) mentions."""
    command = ["cargo", "tree", "--locked", "--package", package, "--edges", "normal", "--target", TARGET]
    command += ["--prefix", "none", "--format", "{p}"]
    lines = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout.splitlines()
    return {(name, version.removeprefix("v")) for name, version in (line.split()[:2] for line in lines if line)}


def linked(meta: dict, root: str) -> tuple[dict[str, dict], dict[str, list[str]]]:
    """The packages below the root by normal dependencies, the root among them, and who depends on whom."""
    packages = {package["id"]: package for package in meta["packages"]}
    nodes = {node["id"]: node for node in meta["resolve"]["nodes"]}
    edges: dict[str, list[str]] = {}
    crates = built(packages[root]["name"])
    really = {i for i, package in packages.items() if (package["name"], package["version"]) in crates}
    waiting = [root]
    while waiting:
        package = waiting.pop()
        if package in edges:
            continue
        dependencies = nodes[package]["deps"]
        normal = (d["pkg"] for d in dependencies if any(k["kind"] is None for k in d["dep_kinds"]))
        edges[package] = sorted(i for i in normal if i in really)
        waiting += edges[package]
    found = sorted(edges, key=lambda i: (packages[i]["name"], packages[i]["version"]))
    return {i: packages[i] for i in found}, edges


def purl(package: dict) -> str:
    return f"pkg:cargo/{package['name']}@{package['version']}"


def expression(package: dict) -> str:
    """The SPDX expression; old packages write a slash for OR."""
    return re.sub(r"\s*/\s*", " OR ", package["license"])


def sha256(path: Path) -> list[dict]:
    return [{"alg": "SHA-256", "content": hashlib.sha256(path.read_bytes()).hexdigest()}]


def crate(package: dict, checksums: dict) -> dict:
    component = {
        "type": "library",
        "bom-ref": purl(package),
        "name": package["name"],
        "version": package["version"],
        "licenses": [{"expression": expression(package)}],
        "purl": purl(package),
    }
    if checksum := checksums.get((package["name"], package["version"])):
        component["hashes"] = [{"alg": "SHA-256", "content": checksum}]
    if package["repository"]:
        component["externalReferences"] = [{"type": "vcs", "url": package["repository"]}]
    return component


def foreign(folder: Path, packages: dict[str, dict]) -> list[dict]:
    """The parts that are no crates."""
    lock = (ROOT / "deploy/onnxruntime.lock").read_text()
    onnxruntime = re.search(r"^onnxruntime==(\S+)", lock, re.M).group(1)
    turbo = next(p for p in packages.values() if p["name"] == "turbojpeg-sys")
    cmake = (Path(turbo["manifest_path"]).parent / "libjpeg-turbo/CMakeLists.txt").read_text()
    libjpeg = re.search(r"^set\(VERSION (\S+)\)", cmake, re.M).group(1)
    rustc = subprocess.run(["rustc", "--version"], check=True, capture_output=True, text=True).stdout.split()[1]
    model = json.loads((folder / "share/lfm-serve/model/manifest.json").read_text())
    research = {"license": {"name": model["licence_class"]}}
    parts = [
        ("library", "onnxruntime", onnxruntime, {"expression": "MIT"}, folder / "lib/libonnxruntime.so"),
        ("library", "libjpeg-turbo", libjpeg, {"expression": "IJG AND BSD-3-Clause AND Zlib"}, None),
        ("library", "rust-std", rustc, {"expression": "MIT OR Apache-2.0"}, None),
        ("machine-learning-model", "lfm", model["version"], research, folder / "share/lfm-serve/model/lfm.onnx"),
    ]
    components = []
    for kind, name, version, licence, file in parts:
        component = {"type": kind, "bom-ref": f"{name}@{version}", "name": name, "version": version}
        component["licenses"] = [licence]
        if file:
            component["hashes"] = sha256(file)
        components.append(component)
    components[0]["purl"] = f"pkg:pypi/onnxruntime@{onnxruntime}"
    return components


def sbom(folder: Path, root: str, packages: dict[str, dict], edges: dict[str, list[str]]) -> dict:
    lock = tomllib.loads((ROOT / "Cargo.lock").read_text())
    checksums = {(p["name"], p["version"]): p.get("checksum") for p in lock["package"]}
    program = crate(packages[root], checksums) | {"type": "application", "hashes": sha256(folder / "bin/lfm-serve")}
    parts = foreign(folder, packages)
    on = {purl(packages[i]): [purl(packages[d]) for d in needed] for i, needed in edges.items()}
    on[program["bom-ref"]] += [part["bom-ref"] for part in parts]
    time = datetime.datetime.fromtimestamp(int(os.environ["SOURCE_DATE_EPOCH"]), datetime.UTC)
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {"timestamp": time.strftime("%Y-%m-%dT%H:%M:%SZ"), "component": program},
        "components": [crate(p, checksums) for i, p in packages.items() if i != root] + parts,
        "dependencies": [{"ref": ref, "dependsOn": sorted(on[ref])} for ref in sorted(on)],
    }


def licence_texts(packages: list[dict]) -> str:
    """Every text once, under the names of the packages that it came with."""
    users: dict[str, list[str]] = {}
    lines = ["The Rust crates in lfm-serve and their licences. The texts follow, each under the crates that hold it.", ""]
    for package in packages:
        name = f"{package['name']} {package['version']}"
        folder = Path(package["manifest_path"]).parent
        # One level below too: C sources that a package carries.
        files = [f for p in ("*", "*/*") for f in folder.glob(p) if LICENCE_FILE.match(f.name) and f.is_file()]
        files = sorted([*files, *folder.glob("fonts/*.txt")])
        for file in files:
            users.setdefault(file.read_text(errors="replace").strip(), []).append(name)
        none = "" if files else " (the package holds no text of it)"
        lines.append(f"{name}: {expression(package)}{none}")
    for text, names in sorted(users.items(), key=lambda item: item[1]):
        lines += ["", "=" * 80, *dict.fromkeys(names), "-" * 80, text]
    return "\n".join(lines) + "\n"


def main() -> None:
    folder = Path(sys.argv[1])
    meta = metadata()
    root = next(p["id"] for p in meta["packages"] if p["name"] == sys.argv[2] and p["id"] in meta["workspace_members"])
    packages, edges = linked(meta, root)
    bom = sbom(folder, root, packages, edges)
    (folder / "sbom.cdx.json").write_text(json.dumps(bom, indent=1, ensure_ascii=False) + "\n")
    texts = licence_texts([p for i, p in packages.items() if i != root])
    (folder / "LICENSES/rust-crates.txt").write_text(texts)


if __name__ == "__main__":
    main()
