"""Screening: many short trainings that differ in one setting, three seeds each.

    python -m lfm.screen --data DIR --val DIR [--web DIR,DIR --zoo DIR] --out DIR

Every run sees 10,000 crops and is evaluated on the "fit" half of the validation pairs; runs that
leave a source out are also evaluated on that source, and runs with the zoo on the pictures of
`val2.txt` and on the kinds of decoders that were held out. Finished runs are skipped, so the command
can be resumed. `--table` prints the results so far.
"""

import argparse
import json
import sys
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from lfm import evaluate, web
from lfm.data import load
from lfm.generate import held_out
from lfm.train import Settings, Trainer

CROPS = 10_000
SEEDS = (0, 1, 2)
QUALITIES = {"as_stored": None, "jpeg_90": 90}
BOTH = {"drop_most": "strongest", "rks_weight": 0.1}


@dataclass
class Trial:
    """One row of the table: the settings that differ from no regulariser at all."""

    name: str
    changes: dict = field(default_factory=dict)
    seeds: tuple[int, ...] = SEEDS

    def settings(self, common: dict, out: Path, seed: int, crops: int) -> Settings:
        """`common` are those of all runs: the data and the machine."""
        base = {"drop_most": "none", "rks_weight": 0.0, "val_minutes": 1e9, "lr": 1e-3,
                "final_lr": 0.0, "ema": 0.0, "large": 0.0}  # fmt: skip
        s = Settings(**{**base, **common, **self.changes}, out=str(out), seed=seed)
        s.steps = -(-crops // s.batch)
        return s


def trials(sources: list[str], wide: dict | None = None) -> list[Trial]:
    """Those on the pairs alone; with `wide`, the settings of the web's pictures and the zoo, those on all data."""
    return [*on_pairs(sources), *(on_all(sources, wide) if wide else [])]


def on_all(sources: list[str], wide: dict) -> list[Trial]:
    """These learn little in 10,000 crops: from histories and a zoo there is more to learn than from the pairs alone."""
    wide = {**BOTH, **wide}
    return [
        Trial("all data, 10 kinds of the zoo", {**wide, "zoo_kinds": 10}),
        Trial("all data, 30 kinds of the zoo", {**wide, "zoo_kinds": 30}),
        Trial("all data", wide),
        Trial("all data, no histories", {**wide, "hard": 0.0}),
        Trial("all data, no regulariser", {**wide, "drop_most": "none", "rks_weight": 0.0}),
        Trial("all data, RBLD alone", {**wide, "rks_weight": 0.0}),
        Trial("all data, RKS alone", {**wide, "drop_most": "none"}),
        *(Trial(f"all data without {name}", {**wide, "leave_out": name}, (0,)) for name in sources),
    ]


def on_pairs(sources: list[str]) -> list[Trial]:
    return [
        Trial("no regulariser"),
        Trial("RBLD, strongest dropped most", {"drop_most": "strongest"}),
        Trial("RBLD, weakest dropped most", {"drop_most": "weakest"}),
        Trial("RKS", {"rks_weight": 0.1}),
        Trial("RBLD strongest and RKS", BOTH),
        Trial("average pooling (NPR-style baseline)", {"pooling": "average"}),
        Trial("RBLD strongest and RKS, recompression", {**BOTH, "lossy": 0.6}),
        Trial("RBLD strongest and RKS, no histories", {**BOTH, "hard": 0.0}),
        *(Trial(f"without {name}", {**BOTH, "leave_out": name}, (0,)) for name in sources),
        Trial("half of the pairs", {**BOTH, "share": 0.5}),
        Trial("a quarter of the pairs", {**BOTH, "share": 0.25}),
        Trial("RBLD weakest and RKS", {"drop_most": "weakest", "rks_weight": 0.1}),
    ]


def run(settings: Settings) -> dict:
    """Trains, and returns the mean figures on each set."""
    trainer = Trainer(settings)
    trainer.run()
    sets = {"val_fit": [source.half("fit") for source in load(Path(settings.val))]}
    if settings.leave_out:
        sets["left_out"] = [s for s in load(Path(settings.data)) if s.name == settings.leave_out]
    if settings.web:
        sets["val2_fit"] = [source.half("fit") for source in web.val2(web.folders(settings.web))]
    if settings.zoo:
        sets["held_out_kinds"] = held_out(Path(settings.zoo), load(Path(settings.val)), 12)
    result = {}
    for name, sources in sets.items():
        for quality, jpeg in QUALITIES.items():
            scored = evaluate.score(sources, trainer.score, settings.preprocess, jpeg)
            result[f"{name}_{quality}"] = evaluate.report(scored)["mean"]
    return result


def table(results: list[dict]) -> str:
    """Markdown: mean average precision over seeds, with minimum and maximum."""
    rows = defaultdict(list)
    for result in results:
        rows[result["trial"]].append(result)
    parts = {
        "val_fit": "AP",
        "left_out": "left out",
        "val2_fit": "val2",
        "held_out_kinds": "held-out kinds",
    }
    heads = [f"{title}{q}" for title in parts.values() for q in (" as stored", " at JPEG 90")]
    lines = ["| trial | seeds | " + " | ".join(heads) + " |", "|---" * (2 + len(heads)) + "|"]
    for name, runs in rows.items():
        cells = [name, str(len(runs))]
        for key in (f"{part}_{q}" for part in parts for q in QUALITIES):
            values = [run[key]["average_precision"] for run in runs if key in run]
            spread = f" ({min(values):.3f}-{max(values):.3f})" if len(values) > 1 else ""
            cells.append(f"{np.mean(values):.3f}{spread}" if values else "")
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="lfm.screen", description=__doc__.splitlines()[0])
    parser.add_argument("--data", default=Settings.data)
    parser.add_argument("--val", default=Settings.val)
    parser.add_argument("--web", default="", help="folders with a MANIFEST.tsv, by commas")
    parser.add_argument(
        "--zoo", default="", help="decoders of lfm.generate: with --web also the trials on all data"
    )
    parser.add_argument("--out", type=Path, default=Path("runs/screen"))
    parser.add_argument("--crops", type=int, default=CROPS)
    parser.add_argument("--crop", type=int, default=Settings.crop, help="pixels of a side")
    parser.add_argument("--only", default="", help="trials whose name contains this")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--bfloat16", action="store_true")
    parser.add_argument("--workers", type=int, default=0, help="processes that cut crops")
    parser.add_argument("--zoo-pairs", type=int, default=0, help="as of lfm.train, beside a GPU")
    parser.add_argument("--table", action="store_true", help="only print what is done")
    args = parser.parse_args(argv)
    log = args.out / "results.jsonl"
    args.out.mkdir(parents=True, exist_ok=True)
    results = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
    if not args.table:
        done = {(result["trial"], result["seed"]) for result in results}
        machine = {name: getattr(args, name) for name in ("crop", "device", "bfloat16", "workers")}
        common = {"data": args.data, "val": args.val, **machine}
        wide = {"web": args.web, "zoo": args.zoo, "zoo_pairs": args.zoo_pairs}
        names = [source.name for source in load(Path(args.data))]
        for trial in trials(names, wide if args.web and args.zoo else None):
            if args.only not in trial.name:
                continue
            for seed in trial.seeds:
                if (trial.name, seed) in done:
                    continue
                out = args.out / f"{trial.name}-{seed}".replace(" ", "_").replace("/", "_")
                print(f"{trial.name}, seed {seed}", flush=True)
                settings = trial.settings(common, out, seed, args.crops)
                results.append({"trial": trial.name, "seed": seed, **run(settings)})
                with log.open("a") as file:
                    print(json.dumps(results[-1]), file=file)
    print(table(results))
    return 0


if __name__ == "__main__":
    sys.exit(main())
