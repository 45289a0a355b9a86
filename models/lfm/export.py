"""Turns a checkpoint of `lfm.train` into a model folder with its calibration and figures.

    python -m lfm.export CHECKPOINT MODEL --val DIR [--final]

The calibration and the uncertain band are fitted on the "fit" half of the validation pairs. The
manifest's figures come from that half too, and so flatter, unless `--final` opens the "report"
half, which nothing else reads: once, for the checkpoint that is released.
"""

import argparse
import hashlib
import json
import sys
from pathlib import Path

import numpy as np
from sklearn.linear_model import LogisticRegression

from lfm import evaluate, folder, graph
from lfm.checkpoint import CheckpointError, read_checkpoint
from lfm.data import Source, load
from lfm.weights import WeightsError, calibrate, canonical

JPEG = 90  # the quality at which the second set of figures is taken


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="lfm.export", description=__doc__.splitlines()[0])
    parser.add_argument("checkpoint", type=Path, help="best.pth of a training")
    parser.add_argument("model", type=Path, help="the model folder to write")
    parser.add_argument("--val", type=Path, required=True, help="the validation images")
    parser.add_argument("--final", action="store_true", help="figures from the report half")
    parser.add_argument("--preprocess", choices=folder.PREPROCESSING, default="crop")
    parser.add_argument("--voiding", nargs="*", default=["no_signal"],
                        help="warnings that make a verdict uncertain")  # fmt: skip
    parser.add_argument("--lossy-below-quality", type=int, default=70,
                        help="JPEG quality under which `lossy_source` is given: one verdict in three wrong")  # fmt: skip
    parser.add_argument("--name", default="lfm")
    parser.add_argument("--version", default="1")
    parser.add_argument("--licence-class", default="research-only", help="of the training data")
    args = parser.parse_args(argv)
    try:
        tensors, facts = read_checkpoint(args.checkpoint)
        weights = canonical(tensors)
        sources = load(args.val)
        meta = folder.Metadata(
            name=args.name,
            version=args.version,
            preprocessing=args.preprocess,
            voiding=args.voiding,
            lossy_below_quality=args.lossy_below_quality,
            licence_class=args.licence_class,
            provenance={
                "tool": "lfm.export",
                "source_sha256": hashlib.sha256(args.checkpoint.read_bytes()).hexdigest(),
                "training": training_facts(facts),
            },
        )
        measure(meta, weights, sources, "report" if args.final else "fit")
        manifest = folder.write(args.model, weights, meta)
    except (CheckpointError, WeightsError) as e:
        print(f"{args.checkpoint}: {e}", file=sys.stderr)
        return 1
    except (OSError, ValueError) as e:
        print(e, file=sys.stderr)
        return 1
    print(f"{args.model}: {manifest['name']}, k={manifest['k']}, {manifest['digest']}")
    shown = {key: meta.metrics[key]["mean"] for key in ("as_stored", f"jpeg_{JPEG}")}
    print(json.dumps({"preprocessing": meta.preprocessing, **meta.calibration, **shown}, indent=1))
    return 0


def training_facts(facts: dict) -> dict:
    """What the checkpoint says of its training, without the paths of the machine it ran on."""
    settings = facts.get("settings", {})
    paths = ("data", "more", "start", "val", "out")
    return {
        "step": facts.get("step"),
        "minutes": round(facts.get("seconds", 0.0) / 60, 1),
        **{k: v for k, v in settings.items() if k not in (*paths, "minutes", "step")},
    }


def measure(
    meta: folder.Metadata,
    weights: dict[str, np.ndarray],
    sources: list[Source],
    part: str,
) -> None:
    """Fills in the calibration, and from the half `part` figures and histogram."""
    fit, told = ([source.half(name) for source in sources] for name in ("fit", part))

    # On images as stored: fakes that lost their traces to a JPEG would draw the threshold down
    # and make fakes of real photographs.
    scorer = evaluate.make_scorer(graph.build(weights, standard=True))
    meta.calibration = platt(evaluate.score(fit, scorer, meta.preprocessing))
    before = evaluate.calibration_error(evaluate.score(told, scorer, meta.preprocessing))

    weights = calibrate(weights, **meta.calibration)
    scorer = evaluate.make_scorer(graph.build(weights, standard=True))
    meta.band = uncertain(evaluate.score(fit, scorer, meta.preprocessing))
    scored = {
        name: evaluate.score(told, scorer, meta.preprocessing, jpeg)
        for name, jpeg in (("as_stored", None), (f"jpeg_{JPEG}", JPEG))
    }
    meta.metrics = {"split": part}
    for name, images in scored.items():
        meta.metrics[name] = {
            **evaluate.report(images),
            "mean_average_precision_95": evaluate.interval(images),
        }
    after = evaluate.calibration_error(scored["as_stored"])
    meta.metrics["expected_calibration_error"] = {
        "before": round(before, 4),
        "after": round(after, 4),
    }
    meta.val_score_histogram = histogram(scored["as_stored"])


def platt(scored: evaluate.Scored) -> dict[str, float]:
    """a and b of score = sigmoid(a * logit + b) by logistic regression (Platt 1999), every source
    and class weighing the same."""
    logits, labels = (np.concatenate(part) for part in zip(*scored.values(), strict=True))
    shares = [1 / np.bincount(truth)[truth] for _, truth in scored.values()]
    share = np.concatenate(shares)
    model = LogisticRegression(C=1.0).fit(logits[:, None], labels, share * len(share) / share.sum())
    a, b = float(model.coef_[0, 0]), float(model.intercept_[0])
    if a <= 0:
        raise ValueError("the checkpoint ranks the validation images no better than chance")
    return {"a": round(a, 6), "b": round(b, 6)}


def uncertain(scored: evaluate.Scored, right: float = 0.95) -> list[float] | None:
    """The narrowest band of scores, symmetric in the logit, outside of which of the real verdicts
    and of the fake ones at least the share `right` is true; None if all of them are that good."""
    logits, labels = (np.concatenate(part) for part in zip(*scored.values(), strict=True))
    distances = np.unique(np.abs(np.float64(logits)))
    for reach in [0.0, *(distances[:-1] + distances[1:]) / 2]:
        verdicts = labels[logits < -reach] == 0, labels[logits > reach] == 1
        if all(len(true) and true.mean() >= right for true in verdicts):
            high = round(float(1 / (1 + np.exp(-reach))), 4)
            return [round(1 - high, 4), high] if reach else None
    raise ValueError("no band of scores leaves verdicts that can be trusted")


def histogram(scored: evaluate.Scored, bins: int = 20) -> dict:
    """Counts of scores in equal bins of 0..1, by class, to hold live traffic against."""
    edges = np.linspace(0, 1, bins + 1)
    logits, labels = (np.concatenate(part) for part in zip(*scored.values(), strict=True))
    scores = 1 / (1 + np.exp(-np.float64(logits)))
    counts = {
        name: np.histogram(scores[labels == label], edges)[0].tolist()
        for label, name in enumerate(("real", "fake"))
    }
    return {"edges": [round(float(edge), 4) for edge in edges], **counts}


if __name__ == "__main__":
    sys.exit(main())
