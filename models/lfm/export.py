"""Converts a checkpoint of `lfm.train` to a model folder with its evidence and figures.

    python -m lfm.export CHECKPOINT MODEL --val DIR --web DIR,DIR --pool DIR

The manifest's format is 2: unmodified weights in the graphs, and by class of file a calibration and
the scores of validation pictures never trained on (`lfm.evidence`).
"""

import argparse
import hashlib
import json
import sys
from pathlib import Path

import numpy as np

from lfm import evaluate, evidence, folder, graph, web
from lfm.checkpoint import CheckpointError, read_checkpoint
from lfm.data import load
from lfm.weights import WeightsError, canonical, digest

JPEG = 90  # the quality of the second set of figures


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="lfm.export", description=__doc__.splitlines()[0])
    parser.add_argument("checkpoint", type=Path, help="best.pth of a training")
    parser.add_argument("model", type=Path, help="the model folder to write")
    parser.add_argument("--val", type=Path, required=True, help="the validation images")
    parser.add_argument("--web", type=web.folders, required=True,
                        help="folders with a MANIFEST.tsv, by commas")  # fmt: skip
    parser.add_argument("--pool", type=Path, required=True, help="holds real_imagenet/")
    parser.add_argument("--shots", type=Path, help="keep the scores there, to export again at once")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--voiding", nargs="*", default=["no_signal"],
                        help="warnings that make a verdict uncertain")  # fmt: skip
    parser.add_argument("--lossy-below-quality", type=int, default=70,
                        help="JPEG quality under which `lossy_source` is given")  # fmt: skip
    parser.add_argument("--name", default="lfm")
    parser.add_argument("--version", default="3")
    parser.add_argument("--licence-class", default="research-only", help="of the training data")
    args = parser.parse_args(argv)
    try:
        tensors, facts = read_checkpoint(args.checkpoint)
        weights = canonical(tensors)
        meta = folder.Metadata(
            name=args.name,
            version=args.version,
            preprocessing="crop",
            voiding=args.voiding,
            lossy_below_quality=args.lossy_below_quality,
            licence_class=args.licence_class,
            provenance={
                "tool": "lfm.export",
                "source_sha256": hashlib.sha256(args.checkpoint.read_bytes()).hexdigest(),
                "training": training_facts(facts),
            },
        )
        if absent := web.absent(args.web):
            print(f"the evidence is narrower: --web has no pictures of {', '.join(absent)}, which "
                  "val2.txt lists (`make registry` fetches some)", file=sys.stderr)  # fmt: skip
        measure(meta, weights, args)
        manifest = folder.write(args.model, weights, meta)
    except (CheckpointError, WeightsError) as e:
        print(f"{args.checkpoint}: {e}", file=sys.stderr)
        return 1
    except (OSError, ValueError) as e:
        print(e, file=sys.stderr)
        return 1
    print(f"{args.model}: {manifest['name']}, k={manifest['k']}, {manifest['digest']}")
    print(json.dumps(meta.regions))
    for name, held in meta.metrics["classes"].items():
        print(name, json.dumps(held))
    return 0


def training_facts(facts: dict) -> dict:
    """The checkpoint's facts about its training, without local paths."""
    settings = facts.get("settings", {})
    paths = ("data", "web", "zoo", "more", "start", "val", "out")
    return {
        "step": facts.get("step"),
        "crops": facts.get("crops"),  # including those of the checkpoint that it started from
        "minutes": round(facts.get("seconds", 0.0) / 60, 1),
        **{k: v for k, v in settings.items() if k not in (*paths, "minutes", "step")},
    }


def measure(meta: folder.Metadata, weights: dict[str, np.ndarray], args) -> None:
    """Fills in evidence, regions, figures and histogram."""
    scorer = evaluate.make_scorer(graph.build(weights, standard=True), args.threads)
    pictures = evidence.gather(args.val, args.web, args.pool)
    shots = kept_shots(args.shots, digest(weights), len(pictures))
    if shots is None:
        shots = evidence.shoot(pictures, scorer)
        if args.shots:
            known = {"digest": digest(weights), "pictures": len(pictures)}
            args.shots.parent.mkdir(parents=True, exist_ok=True)
            rows = [list(vars(shot).values()) for shot in shots]
            args.shots.write_text(json.dumps({**known, "shots": rows}))
    by_class, held = evidence.classes(shots)
    point = {"false_alarms": evidence.FALSE_ALARMS, "misses": evidence.MISSES}
    meta.evidence = {"operating_point": point, "classes": by_class}
    meta.regions = evidence.spread(pictures, scorer, meta.evidence)
    meta.val_score_histogram = histogram(shots, by_class)
    meta.metrics = {
        "split": "val and val2, all of it; evidence: sources left out in turn",
        **{name: precisions(args, scorer, jpeg) for name, jpeg in
           (("as_stored", None), (f"jpeg_{JPEG}", JPEG))},
        "expected_calibration_error": evidence.calibration_errors(shots, by_class),
        "classes": held,
    }  # fmt: skip


def kept_shots(path: Path | None, digest: str, pictures: int) -> list[evidence.Shot] | None:
    if path is None or not path.exists():
        return None
    kept = json.loads(path.read_text())
    if (kept["digest"], kept["pictures"]) != (digest, pictures):
        return None
    return [evidence.Shot(*row) for row in kept["shots"]]


def precisions(args, scorer: evaluate.Scorer, jpeg: int | None) -> dict:
    """Average precision by source of val and val2, on the network's own logits."""
    result = {}
    for name, sources in (("val", load(args.val)), ("val2", web.val2(args.web))):
        scored = evaluate.score(sources, scorer, "crop", jpeg)
        report = evaluate.report(scored)
        result[name] = {
            "sources": {source: f["average_precision"] for source, f in report["sources"].items()},
            "mean": report["mean"]["average_precision"],
            "mean_95": evaluate.interval(scored),
        }
    return result


def histogram(shots: list[evidence.Shot], by_class: dict, bins: int = 20) -> dict:
    """Counts of scores of stored files in equal bins of 0..1, by label: the reference for drift."""
    edges = np.linspace(0, 1, bins + 1)
    counts = {}
    for label, name in enumerate(("real", "fake")):
        stored = [s for s in shots if s.label == label and s.way == "as stored"]
        tables = [by_class[s.file_class]["regions"]["1"] for s in stored]
        logits = np.array([t["a"] * s.raw + t["b"] for s, t in zip(stored, tables, strict=True)])
        counts[name] = np.histogram(1 / (1 + np.exp(-logits)), edges)[0].tolist()
    return {"edges": [round(float(edge), 4) for edge in edges], **counts}


if __name__ == "__main__":
    sys.exit(main())
