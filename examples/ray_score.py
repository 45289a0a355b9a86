"""Scores an archive with Ray Data: an actor a CPU core, each with the model in memory.

    python ray_score.py s3://bucket/pictures s3://bucket/scores --actors 64

Ray reads and writes what PyArrow can: folders, s3://, gs://. The columns are named as those of `lfm-serve score --from`
(docs/bulk.md). What a run has not written when it ends is lost: for archives that must go on where they were, use that command.
"""

import argparse
import json

import lfm_serve
import pyarrow
import ray

SCHEMA = pyarrow.schema(
    [
        ("path", pyarrow.string()),
        ("model", pyarrow.string()),
        ("error_code", pyarrow.string()),
        ("error_detail", pyarrow.string()),
        ("verdict", pyarrow.string()),
        ("score", pyarrow.float64()),
        ("logit", pyarrow.float32()),
        ("logit_raw", pyarrow.float32()),
        ("warnings", pyarrow.list_(pyarrow.string())),
        ("class", pyarrow.string()),
        ("sha256", pyarrow.string()),
        # All of it, in the service's words.
        ("result", pyarrow.string()),
    ]
)


class Score:
    """An actor: the model is loaded once."""

    def __init__(self):
        # Ray places the actors: each has a core.
        self.scorer = lfm_serve.Scorer(threads=1)
        self.model = self.scorer.model.digest

    def __call__(self, batch):
        """From columns `path` and `bytes` to columns of scores."""
        results = self.scorer.score_many(batch["bytes"], progress=False)
        rows = [self.row(path, result) for path, result in zip(batch["path"], results, strict=True)]
        return pyarrow.Table.from_pylist(rows, schema=SCHEMA)

    def row(self, path, result):
        """What is not named is null."""
        row = {"path": path, "model": self.model, "warnings": []}
        if isinstance(result, lfm_serve.ScoreError):
            return row | {"error_code": result.code, "error_detail": result.detail}
        return row | {
            "verdict": result.verdict,
            "score": result.score,
            "logit": result.logit,
            "logit_raw": result.logit_raw,
            "warnings": list(result.warnings),
            "class": result.evidence and result.evidence.class_,
            "sha256": result.image.sha256,
            "result": json.dumps(result.to_dict()),
        }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", help="a folder, or s3://BUCKET/PREFIX")
    parser.add_argument("out", help="a folder or prefix for Parquet files")
    parser.add_argument("--actors", type=int, default=2, help="actors, each with a CPU core")
    parser.add_argument("--batch", type=int, default=32, help="pictures that an actor gets at a time")
    asked = parser.parse_args()
    # Reading and writing wait for the network: the cores are the actors'.
    without_a_core = {"num_cpus": 0}
    pictures = ray.data.read_binary_files(asked.source, include_paths=True, ray_remote_args=without_a_core)
    scored = pictures.map_batches(Score, batch_size=asked.batch, concurrency=asked.actors, num_cpus=1)
    scored.write_parquet(asked.out, ray_remote_args=without_a_core)


if __name__ == "__main__":
    main()
