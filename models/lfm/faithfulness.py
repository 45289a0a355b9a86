"""Faithfulness of the explanation: blurs the positions that contribute most to a logit, and as many
random ones, and compares how far the logit moves.

    python -m lfm.faithfulness MODEL DATA [--places 1,5,20,50]

A place is the 23x23 pixels of the receptive field of one value of the last map. Only the "fit" half
of the pairs is used. Prints a table in Markdown.
"""

import argparse
import base64
import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime
from PIL import Image, ImageFilter

from lfm import evaluate
from lfm.data import PREPROCESS, load
from lfm.weights import MAPS

PLACES = 30  # a side of the last map
FIELD, STRIDE = 23, 8  # receptive field of a place in pixels; distance between places
DRAWS = 3  # of random places


def contributions(session, pixels: np.ndarray) -> np.ndarray:
    """The logit's terms by place: (30, 30), as `lfm-serve score --explain` does."""
    values, indices = session.run(["topk_values", "topk_indices"], {"pixels": pixels[None]})
    stored = session.get_modelmeta().custom_metadata_map["lfm.linear.weight"]
    weight = np.frombuffer(base64.b64decode(stored), "<f4").reshape(MAPS, -1)  # (64, k)
    terms = np.float64(values[0]) * weight
    place = np.zeros(PLACES * PLACES)
    np.add.at(place, indices[0].ravel(), terms.ravel())
    return place.reshape(PLACES, PLACES)


def blurred(pixels: np.ndarray, soft: np.ndarray, places: np.ndarray) -> np.ndarray:
    """`pixels` with the squares of `places` (flat indices) replaced from `soft`."""
    result = pixels.copy()
    for row, column in zip(*np.unravel_index(places, (PLACES, PLACES)), strict=True):
        y, x = STRIDE * row, STRIDE * column
        result[y : y + FIELD, x : x + FIELD] = soft[y : y + FIELD, x : x + FIELD]
    return result


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="lfm.faithfulness", description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path, help="a model folder")
    parser.add_argument("data", type=Path, help="<source>/{0_real,1_fake}/...")
    parser.add_argument("--places", default="1,5,20,50", help="how many are blurred")
    args = parser.parse_args(argv)
    prepare = PREPROCESS[json.loads((args.model / "manifest.json").read_text())["preprocessing"]]
    graph = (args.model / "lfm.std.onnx").read_bytes()
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    score = evaluate.make_scorer(graph)
    counts = [int(n) for n in args.places.split(",")]
    rng = np.random.default_rng(0)
    moved = []  # by image, for each count: movement by the strongest places and by random ones
    for source in load(args.data):
        for image in (image for images in source.half("fit").images for image in images):
            pixels = prepare(image)
            soft = np.asarray(Image.fromarray(pixels).filter(ImageFilter.GaussianBlur(2)))
            ranked = np.abs(contributions(session, pixels)).ravel().argsort()[::-1]
            chosen = [ranked[:n] for n in counts]
            chosen += [rng.permutation(PLACES**2)[:n] for n in counts for _ in range(DRAWS)]
            logits = score(np.stack([pixels, *(blurred(pixels, soft, c) for c in chosen)]))
            ways = np.abs(logits[1:] - logits[0])
            strongest, drawn = np.split(ways, [len(counts)])
            moved.append([strongest, drawn.reshape(-1, DRAWS).mean(1)])
    strongest, drawn = np.array(moved).transpose(1, 2, 0)  # (counts, images)
    print(f"{len(moved)} images of {args.data}\n")
    print(
        "| places blurred, of 900 | strongest: logit moves by | random: by | further, of the images |"
    )
    print("|---|---|---|---|")
    for n, ours, chance in zip(counts, strongest, drawn, strict=True):
        share = np.mean(ours > chance)
        print(f"| {n} | {np.median(ours):.2f} | {np.median(chance):.2f} | {share:.0%} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
