"""Measures a GPU and writes one report: `make gpu-check`. Its parts ran once on an H200 (docs/gpu.md), all of it never.

    python3 gpu/check.py [--quick] [--only cpu,cuda,...] [--out gpu-report.md]

For the CPU, CUDA, also with CUDA graphs, and TensorRT (TensorRT RTX only by --only), in fp32 and, where supported, fp16: node placement, golden images against the CPU and,
with ../shared, against the reference's float64, the operator against a stable sort, throughput by batch size with its
share of the roofline, a load test. Exit status: 0 if every provider ran and passed, 1 otherwise.
"""

import argparse
import base64
import json
import os
import subprocess
import sys
import tempfile
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import roofline

ROOT = Path(__file__).resolve().parent.parent
BINARY = ROOT / "target/release/lfm-serve"
PYTHON = ROOT / ".venv-gpu/bin/python"  # with onnxruntime-gpu, for the operator's tests
LOAD = ROOT / ".venv-load/bin/python"
ENGINES = ROOT / "target/gpu-engines"
# Provider, precision, CUDA graphs.
RUNS = [
    ("cpu", "fp32", False),
    ("cuda", "fp32", False),
    ("cuda", "fp32", True),
    ("tensorrt", "fp32", False),
    ("tensorrt", "fp16", False),
    ("tensorrt-rtx", "fp32", False),
]
ORT_NAMES = {"cpu": "CPU", "cuda": "CUDA", "tensorrt": "Tensorrt"}
IMAGES = ROOT / "tests/golden/images"
GOLDEN = ROOT / "../shared/reference"
REFERENCE_TOLERANCE = 5e-4  # the CPU's limit too


class Failed(Exception):
    """A program failed: its last line."""


def run(*command, **environment: str) -> str:
    """Standard output of a program."""
    given = {**os.environ, **environment}
    ended = subprocess.run([str(part) for part in command], cwd=ROOT, env=given, capture_output=True, text=True)
    if ended.returncode:
        lines = (ended.stderr.strip() or ended.stdout.strip()).splitlines() or [f"exit status {ended.returncode}"]
        raise Failed(f"{command[0]} {command[1]}: {lines[-1]}")
    return ended.stdout


def line_of(*command) -> str:
    """A program's output on one line, or the reason why there is none."""
    try:
        return "; ".join(run(*command).strip().splitlines())
    except (Failed, OSError) as error:
        return f"none ({error})"


def table(header: list[str], rows: list[list]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines) + "\n"


def doctor(settings: dict[str, str]) -> dict[str, dict]:
    """Doctor's checks by name; exit status 1 is accepted."""
    ended = subprocess.run([BINARY, "doctor", "--json"], cwd=ROOT, env={**os.environ, **settings}, capture_output=True)
    return {check["name"]: check for check in json.loads(ended.stdout)["checks"]}


def logits(settings: dict[str, str], model: Path | None = None) -> dict[str, tuple[float, str]]:
    """The network's logit and the verdict of every golden image; one of them is refused."""
    extra = ["--model", model] if model else []
    command = [BINARY, "score", "--json", *extra, IMAGES]
    ended = subprocess.run(command, cwd=ROOT, env={**os.environ, **settings}, capture_output=True, text=True)
    if ended.returncode not in (0, 2):
        raise Failed(ended.stderr.strip())
    scored = [json.loads(line) for line in ended.stdout.splitlines()]
    return {Path(one["path"]).name: (one["logit_raw"], one["verdict"]) for one in scored if "logit_raw" in one}


def golden(settings: dict[str, str], cpu: dict, published: Path | None) -> tuple[bool, list[str]]:
    """Whether every verdict equals the CPU's, and the lines of the report."""
    found = logits(settings)
    worst = max(abs(found[name][0] - cpu[name][0]) for name in cpu)
    other = sorted(name for name in cpu if found[name][1] != cpu[name][1])
    verdicts = f"other verdicts: {other or 'none'}"
    report = [f"- {len(found)} golden images: logits at most {worst:.2e} from the CPU's; {verdicts}"]
    if published:
        expected = json.loads((GOLDEN / "golden/golden.json").read_text())["images"]
        expected = {entry["file"]: entry["resize"]["logit_fp64"] for entry in expected}
        found = logits(settings, published)
        worst = max(abs(logit - expected[name]) for name, (logit, _) in found.items())
        held = "within" if worst <= REFERENCE_TOLERANCE else "NOT within"
        report.append(f"- the published model: at most {worst:.2e} from float64, {held} {REFERENCE_TOLERANCE:.0e}")
    return not other, report


@contextmanager
def server(settings: dict[str, str]):
    """The server's URL, once it is ready."""
    environment = {**os.environ, **settings, "LFM_LISTEN": "127.0.0.1:0", "LFM_DRAIN_DELAY": "0s", "LFM_LOG_LEVEL": "warn"}
    command = [BINARY, "serve", "--sessions", "1"]
    with subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True) as process:
        try:
            first = process.stdout.readline().strip()
            if not first.startswith("listening on "):
                raise Failed(f"serve ended with {process.wait()} before it was ready")
            yield first.removeprefix("listening on ")
        finally:
            process.terminate()


def batches(settings: dict[str, str], cpu: dict) -> tuple[bool, str]:
    """How much an image's logit depends on its batch: on the CPU not at all. And whether single images, which CUDA graphs
    are for, have the CPU's."""
    images = sorted(IMAGES.iterdir())
    with server({**settings, "LFM_MAX_BATCH_SIZE": "16", "LFM_REQUEST_TIMEOUT": "120s"}) as url:

        def post(route: str, body: bytes, kind: str) -> dict:
            request = urllib.request.Request(url + route, body, {"Content-Type": kind})
            with urllib.request.urlopen(request, timeout=120) as answer:
                return json.load(answer)

        encoded = [{"id": file.name, "image": base64.b64encode(file.read_bytes()).decode()} for file in images]
        results = post("/v1/score/batch", json.dumps({"images": encoded}).encode(), "application/json")["results"]
        together = {one["id"]: one["result"]["logit_raw"] for one in results if "result" in one}
        apart = {name: post("/v1/score", (IMAGES / name).read_bytes(), "image/*")["logit_raw"] for name in together}
    worst = max(abs(together[name] - apart[name]) for name in together)
    off = max(abs(apart[name] - cpu[name][0]) for name in apart)
    line = f"- {len(together)} images in one request and one by one: logits at most {worst:.2e} apart"
    return off <= REFERENCE_TOLERANCE, f"{line}; one by one at most {off:.2e} from the CPU's"


def operator(provider: str) -> tuple[bool, str]:
    """models/tests/test_op.py on this provider. TensorRT runs the standard TopK: this checks its order of ties."""
    if provider not in ORT_NAMES:
        return True, "- operator: not tested, Python has no such provider"
    if not PYTHON.is_file():
        return False, "- operator: not tested, there is no .venv-gpu"
    chosen = ["-k", "standard"] if provider == "tensorrt" else []
    command = [PYTHON, "-m", "pytest", "-q", "--tb=line", "models/tests/test_op.py", *chosen]
    environment = {**os.environ, "LFM_TEST_PROVIDER": f"{ORT_NAMES[provider]}ExecutionProvider"}
    ended = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    what = "standard TopK, order of ties" if provider == "tensorrt" else "operator against a stable sort"
    lines = [line for line in ended.stdout.splitlines() if line.startswith(("FAILED", "ERROR")) or " in " in line]
    return ended.returncode == 0, "\n  ".join([f"- {what}:", *lines])


def throughput(settings: dict[str, str], gpu: roofline.Gpu | None, quick: bool) -> str:
    sizes, rounds = ("1,2", "1") if quick else ("1,2,4,8,16,32,64", "5")
    out = run(BINARY, "bench", "--json", "--only", "session", "--batch-sizes", sizes, "--rounds", rounds, **settings)
    rows = []
    for row in json.loads(out)["sessions"]["rows"]:
        speed = row["images_per_second"]["median"]
        share = "-"
        if gpu and settings["LFM_PROVIDER"] != "cpu":
            bound = roofline.images_per_second(gpu, settings["LFM_PRECISION"], row["batch_size"])
            share = f"{speed / bound:.0%} of {bound:,.0f}"
        rows.append([f"{row['sessions']} x {row['intra_threads']}", row["batch_size"], f"{speed:,.1f}", share])
    return table(["sessions x threads", "batch", "images/s", "share of the bound"], rows)


def load(settings: dict[str, str]) -> str:
    if not LOAD.is_file():
        return "Load test: not run, there is no .venv-load\n"
    return f"```\n{run(LOAD, ROOT / 'loadtest/load.py', 'short', **settings)}```\n"


def examine(provider: str, precision: str, graphs: bool, context: dict) -> tuple[bool, list[str]]:
    """A provider's section of the report, and whether it ran and passed."""
    settings = {"LFM_PROVIDER": provider, "LFM_PRECISION": precision, "LFM_ENGINE_CACHE_DIR": str(ENGINES)}
    on_cpu = {**settings, "LFM_PROVIDER": "cpu", "LFM_PRECISION": "fp32"}
    if graphs:
        settings["LFM_CUDA_GRAPHS"] = "on"
    checks = doctor(settings)
    if checks["providers"]["status"] != "ok":
        return False, [f"Cannot run: {checks['providers']['detail']}"]
    report = [f"- nodes: {checks['placement']['detail']}"]
    try:
        context.setdefault("cpu", logits(on_cpu))
        same, line = batches(settings, context["cpu"])
        report.append(line)
        held = True
        # `score` has no CUDA graphs, and the operator is the same.
        if not graphs:
            same, lines = golden(settings, context["cpu"], context["published"])
            report += lines
            held, line = (True, "") if context["quick"] else operator(provider)
            report.append(line)
        report += ["", throughput(settings, context["gpu"], context["quick"])]
        if not context["quick"]:
            report.append(load(settings))
    except (Failed, OSError) as error:
        return False, [*report, f"- FAILED: {error}"]
    return same and held, report


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--quick", action="store_true", help="few batch sizes, no operator tests, no load")
    arguments.add_argument("--only", default=",".join(ORT_NAMES), help="providers, by commas")
    arguments.add_argument("--out", type=Path, default=ROOT / "gpu-report.md")
    given = arguments.parse_args()

    name = line_of("nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader")
    gpu = next((one for one in roofline.GPUS if one.name in name), None)
    weights = GOLDEN / "weights/lfm_bmvc2025.pth"
    with tempfile.TemporaryDirectory() as folder:
        published = Path(folder, "model") if weights.is_file() else None
        if published:
            run("make", "import", f"WEIGHTS={weights}", f"MODEL={published}")
        checks = doctor({})
        context = {"gpu": gpu, "published": published, "quick": given.quick}
        report = ["# What a GPU gave", "", "Written by `make gpu-check`; what the terms mean is in docs/gpu.md.", ""]
        report.append(table(["", ""], [
            ["GPU, driver, memory", name],
            ["roofline of", gpu.name if gpu else "no GPU of docs/gpu.md: no shares"],
            ["CPU", checks["cpu"]["detail"]],
            ["program", line_of(BINARY, "--version")],
            ["library", checks["library"]["detail"]],
            ["`--provider auto`", checks["providers"]["detail"]],
        ]))  # fmt: skip
        good = True
        for provider, precision, graphs in RUNS:
            if provider in given.only.split(","):
                title = f"{provider}, {precision}" + (", CUDA graphs" if graphs else "")
                print(title, file=sys.stderr)
                held, section = examine(provider, precision, graphs, context)
                good &= held
                report += [f"## {title}", "", *section, ""]
    given.out.write_text("\n".join(report))
    print(given.out)
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
