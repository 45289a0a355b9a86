"""Converts a checkpoint with the official names to a model folder, without PyTorch.

python -m lfm.importer WEIGHTS.pth MODEL [--preprocess resize|crop]
"""

import argparse
import hashlib
import re
import sys
from pathlib import Path

from lfm import folder
from lfm.checkpoint import CheckpointError, read_checkpoint
from lfm.weights import WeightsError, canonical


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="lfm.importer", description=__doc__.splitlines()[0])
    parser.add_argument("weights", type=Path, help="the checkpoint, a PyTorch zip file")
    parser.add_argument("model", type=Path, help="the model folder to write")
    parser.add_argument("--preprocess", choices=folder.PREPROCESSING, default="resize")
    parser.add_argument("--name", help="the model's name (default: the checkpoint's file name)")
    parser.add_argument("--version", default="1", help="the model's version (default: 1)")
    args = parser.parse_args(argv)
    name = args.name or re.sub(r"[^A-Za-z0-9._-]", "_", args.weights.stem)
    try:
        tensors, _ = read_checkpoint(args.weights)
        weights = canonical(tensors)
        source_sha256 = hashlib.sha256(args.weights.read_bytes()).hexdigest()
        meta = folder.Metadata(
            name=name,
            version=args.version,
            preprocessing=args.preprocess,
            provenance={"tool": "lfm.importer", "source": args.weights.name,
                        "source_sha256": source_sha256},
        )  # fmt: skip
        manifest = folder.write(args.model, weights, meta)
    except (CheckpointError, WeightsError) as e:
        print(f"{args.weights}: {e}", file=sys.stderr)
        return 1
    except OSError as e:
        print(f"{e.filename}: {e.strerror}", file=sys.stderr)
        return 1
    print(f"{args.model}: {manifest['name']}, k={manifest['k']}, {manifest['digest']}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
