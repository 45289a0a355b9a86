"""Accuracy and average precision of a model folder, source by source.

python -m lfm.evaluate MODEL DATA [--jpeg-quality 95,90,75] [--half fit|report]
python -m lfm.evaluate MODEL --web DIR,DIR [--preprocess crop+resize]
python -m lfm.evaluate MODEL DATA --zoo runs/zoo
"""

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
from sklearn.metrics import average_precision_score

from lfm import web
from lfm.data import PREPROCESS, Source, load, recompress

Scorer = Callable[[np.ndarray], np.ndarray]  # uint8 (n, 256, 256, 3) -> logits (n,)
Scored = dict[str, tuple[np.ndarray, np.ndarray]]  # source -> logits (n,), labels (n,)


def make_scorer(graph: bytes, threads: int = 1) -> Scorer:
    """Runs a standard graph on the CPU, eight images at a time."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    providers = ["CPUExecutionProvider"]
    session = onnxruntime.InferenceSession(graph, options, providers=providers)

    def score(pixels: np.ndarray) -> np.ndarray:
        parts = [pixels[i : i + 8] for i in range(0, len(pixels), 8)]
        return np.concatenate([session.run(["logit"], {"pixels": part})[0] for part in parts])

    return score


def score(
    sources: list[Source], scorer: Scorer, preprocessing: str, jpeg: int | None = None
) -> Scored:
    """Scores every image; `preprocessing` can be several by "+", whose logits are added. With `jpeg`, each is
    first saved as a JPEG of that quality (4:2:0) at its stored size, so that both classes went through the same."""
    views = [PREPROCESS[name] for name in preprocessing.split("+")]
    scored = {}
    for source in sources:
        values = []
        for images in source.images:
            if jpeg is not None:
                images = [recompress(image, "JPEG", jpeg, "4:2:0") for image in images]
            values.append(sum(scorer(np.stack([view(i) for i in images])) for view in views))
        labels = np.repeat([0, 1], [len(v) for v in values])
        scored[source.name] = np.concatenate(values), labels
    return scored


def figures(values: np.ndarray, labels: np.ndarray, threshold: float = 0.0) -> dict:
    """`values` are logits, fake above `threshold`; average precision ranks on them."""
    right = (values > threshold) == (labels == 1)
    return {
        "n": len(labels),
        "accuracy": round(float(right.mean()), 4),
        "average_precision": round(float(average_precision_score(labels, values)), 4),
        "real_accuracy": round(float(right[labels == 0].mean()), 4),
        "fake_accuracy": round(float(right[labels == 1].mean()), 4),
    }


def report(scored: Scored, threshold: float = 0.0) -> dict:
    """`{"sources": {name: figures}, "mean": the plain mean over sources}`."""
    sources = {name: figures(*pair, threshold) for name, pair in scored.items()}
    keys = ("accuracy", "average_precision", "real_accuracy", "fake_accuracy")
    mean = {key: round(float(np.mean([f[key] for f in sources.values()])), 4) for key in keys}
    return {"sources": sources, "mean": mean}


def interval(scored: Scored, draws: int = 1000) -> list[float]:
    """The 95 % bootstrap interval of the mean average precision, images drawn anew within each
    source and class."""
    rng = np.random.default_rng(0)
    means = []
    for _ in range(draws):
        precisions = []
        for values, labels in scored.values():
            drawn = [rng.choice(np.flatnonzero(labels == c), (labels == c).sum()) for c in (0, 1)]
            index = np.concatenate(drawn)
            precisions.append(average_precision_score(labels[index], values[index]))
        means.append(np.mean(precisions))
    return [round(float(q), 4) for q in np.quantile(means, [0.025, 0.975])]


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="lfm.evaluate", description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path, help="a model folder")
    parser.add_argument("data", type=Path, nargs="?", help="<source>/{0_real,1_fake}/...")
    parser.add_argument(
        "--web",
        type=web.folders,
        help="instead of data: folders with a MANIFEST.tsv, by commas; what val2.txt lists",
    )
    parser.add_argument(
        "--zoo",
        type=Path,
        help="what its held-out decoders make of 30 photographs of data, instead of data's own",
    )
    parser.add_argument("--jpeg-quality", default="", help="also after JPEG, e.g. 95,90,75")
    parser.add_argument("--half", choices=["fit", "report"], help="only this half of the pairs")
    parser.add_argument(
        "--preprocess",
        choices=[*PREPROCESS, "crop+resize"],
        help="crop+resize: both, their logits added; default: the manifest's",
    )
    args = parser.parse_args(argv)
    if (args.data is None) == (args.web is None):
        parser.error("give either data or --web")
    manifest = json.loads((args.model / "manifest.json").read_text())
    preprocessing = args.preprocess or manifest["preprocessing"]
    threshold = float(np.log(manifest["threshold"] / (1 - manifest["threshold"])))
    sources = web.val2(args.web) if args.web else load(args.data)
    if args.zoo:
        from lfm.generate import held_out  # needs PyTorch

        sources = held_out(args.zoo, sources, 30)
    if args.half:
        sources = [source.half(args.half) for source in sources]
    scorer = make_scorer((args.model / "lfm.std.onnx").read_bytes())
    for quality in [None, *(int(q) for q in args.jpeg_quality.split(",") if q)]:
        scored = score(sources, scorer, preprocessing, quality)
        result = report(scored, threshold)
        low, high = interval(scored)
        print("as stored" if quality is None else f"JPEG quality {quality}, 4:2:0")
        for name, f in [*result["sources"].items(), ("mean", result["mean"])]:
            print(
                f"  {name:24} n {f.get('n', ''):>4}  AP {f['average_precision']:.3f}  accuracy "
                f"{f['accuracy']:.3f}  real {f['real_accuracy']:.3f}  fake {f['fake_accuracy']:.3f}"
            )
        print(f"  95 % interval of the mean AP: {low:.3f} to {high:.3f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
