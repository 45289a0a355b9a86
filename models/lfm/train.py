"""Trains LFM on images in the paper's layout.

    python -m lfm.train --data DIR --val DIR --out DIR

writes to `--out`: best.pth (the weights to export), last.pth (to go on after a stop, by the same
command), log.jsonl (one line a validation). Only the "fit" half of the validation pairs is read.
"""

import argparse
import contextlib
import json
import math
import os
import random
import sys
import time
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import numpy as np
import torch
from torch.nn.functional import binary_cross_entropy_with_logits as bce
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from lfm import evaluate
from lfm.checkpoint import read_checkpoint
from lfm.data import Augmentation, Source, batch, load
from lfm.network import LFM, normalise


@dataclass
class Settings:
    data: str = "../shared/data/train"
    more: str = ""  # a second folder of sources, for half of every batch
    start: str = ""  # a checkpoint whose weights to begin with
    val: str = "../shared/data/val"
    out: str = "runs/lfm"
    minutes: float = 60.0  # of training; the schedule follows the clock ...
    steps: int = 0  # ... unless this is given: then runs repeat exactly
    seed: int = 0
    batch: int = 32  # crops a step
    lr: float = 1e-3  # Adam, cosine to zero
    leave_out: str = ""  # a source that is not trained on, to be tested on
    share: float = 1.0  # of the pairs of every source
    pooling: str = "topk"  # or average: the baseline in the manner of NPR, which does not export
    k: int = 16
    drop_most: str = "strongest"  # RBLD: strongest, weakest or none
    rks_weight: float = 0.1  # of the RKS branch in the loss; 0 turns it off
    crop: int = 128
    fine_crop: int = 224  # the last part of the run sees larger crops, as the service does,
    fine_from: float = 0.8  # since the 16 largest of more places are larger
    lossy: float = 0.6  # share of recompressed crops, once begun
    lossy_from: float = 0.1  # part of the run without any
    quality: int = 70  # lowest quality of a recompression, reached at `fine_from`
    resized: float = 0.5  # share of images above 256 pixels that are shrunk, not cropped
    scaled: float = 0.0  # share of images that are shrunk by any factor, once recompression began
    preprocess: str = "crop"  # of the validation: resize or crop
    val_minutes: float = 5.0  # between validations and checkpoints
    bfloat16: bool = False  # mixed precision, for processors and GPUs that have it
    threads: int = 1
    workers: int = 0  # processes that cut crops beside the training
    device: str = "cpu"

    def augmentation(self, progress: float) -> Augmentation:
        begun = progress >= self.lossy_from
        hardness = (progress - self.lossy_from) / max(1e-9, self.fine_from - self.lossy_from)
        return Augmentation(
            crop=self.crop if progress < self.fine_from else self.fine_crop,
            lossy=self.lossy if begun else 0.0,
            quality=round(95 + (self.quality - 95) * min(1.0, max(0.0, hardness))),
            resized=self.resized,
            scaled=self.scaled if begun else 0.0,
        )

    def rate(self, progress: float) -> float:
        warm_up = min(1.0, (progress + 1e-4) / 0.01)
        return self.lr * warm_up * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))


class Batches(Dataset):
    """The batch of a step follows from the seed, the step and the progress alone."""

    def __init__(self, folders: list[list[Source]], settings: Settings) -> None:
        self.folders, self.settings = folders, settings  # each gives the same share of a batch
        self.progress = torch.zeros(()).share_memory_()  # set by the trainer, seen by workers

    def __getitem__(self, step: int) -> tuple[torch.Tensor, torch.Tensor]:
        s = self.settings
        how = s.augmentation(float(self.progress))
        size = s.batch * (s.crop / how.crop) ** 2 / len(self.folders)  # the same pixels a step
        rng = random.Random(f"{s.seed}/{step}")
        parts = [batch(sources, max(2, round(size)), how, rng) for sources in self.folders]
        pixels, labels = (np.concatenate(part) for part in zip(*parts, strict=True))
        return torch.from_numpy(pixels), torch.from_numpy(labels)


class Trainer:
    def __init__(self, settings: Settings) -> None:
        s = self.settings = settings
        torch.set_num_threads(s.threads)
        torch.manual_seed(s.seed)
        model = LFM(s.k, s.drop_most, s.pooling)
        if s.start:
            tensors, _ = read_checkpoint(Path(s.start))
            model.load_state_dict({name: torch.as_tensor(t) for name, t in tensors.items()})
        self.model = model.to(s.device, memory_format=torch.channels_last).train()
        learnt = [p for p in self.model.parameters() if p.requires_grad]
        self.optimizer = torch.optim.Adam(learnt, lr=s.lr)
        self.step, self.seconds, self.best = 0, 0.0, -1.0
        self.out = Path(s.out)
        self.out.mkdir(parents=True, exist_ok=True)

    @property
    def progress(self) -> float:
        s = self.settings
        return self.step / s.steps if s.steps else self.seconds / (60 * s.minutes)

    def resume(self) -> None:
        if not (self.out / "last.pth").exists():
            return
        state = torch.load(self.out / "last.pth", map_location=self.settings.device)
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step, self.seconds, self.best = state["step"], state["seconds"], state["best"]

    def run(self) -> None:
        s = self.settings
        sources = [source for source in load(Path(s.data)) if source.name != s.leave_out]
        folders = [sources, load(Path(s.more))] if s.more else [sources]
        batches = Batches([[source.share(s.share) for source in f] for f in folders], s)
        batches.progress.fill_(self.progress)
        fit = [source.half("fit") for source in load(Path(s.val))]
        loader = DataLoader(
            batches, batch_size=None, sampler=range(self.step, 1 << 31), num_workers=s.workers
        )
        bar = tqdm(total=s.steps or None, initial=self.step, unit="step", mininterval=5)
        losses: list[float] = []
        last = checked = time.monotonic()
        images = 0
        for pixels, labels in loader:
            losses.append(self.update(pixels.to(s.device), labels.to(s.device)))
            images += len(labels)
            self.step += 1
            now = time.monotonic()
            self.seconds, last = self.seconds + now - last, now
            batches.progress.fill_(self.progress)
            bar.update()
            bar.set_postfix(loss=f"{np.mean(losses[-100:]):.4f}", refresh=False)
            done = self.progress >= 1
            if done or now - checked >= 60 * s.val_minutes:
                rate = images / (now - checked)
                self.check(fit, float(np.mean(losses)), rate)
                losses, images = [], 0
                last = checked = time.monotonic()  # validation is not training time
            if done:
                break
        bar.close()

    def update(self, pixels: torch.Tensor, labels: torch.Tensor) -> float:
        """One step of Adam; returns the loss of the main branch."""
        s = self.settings
        torch.manual_seed(s.seed + 1_000_003 * self.step)  # so that a resumed run repeats
        for group in self.optimizer.param_groups:
            group["lr"] = s.rate(self.progress)
        x = normalise(pixels).contiguous(memory_format=torch.channels_last)
        low = torch.autocast(s.device.split(":")[0], torch.bfloat16)
        with low if s.bfloat16 else contextlib.nullcontext():
            logit, random_logit = self.model(x)
        loss = bce(logit.float(), labels)
        total = loss + s.rks_weight * bce(random_logit.float(), labels)
        self.optimizer.zero_grad()
        total.backward()
        self.optimizer.step()
        return loss.item()

    def score(self, pixels: np.ndarray) -> np.ndarray:
        """Logits: the `Scorer` of a validation."""
        self.model.eval()
        with torch.inference_mode():
            parts = torch.from_numpy(pixels).to(self.settings.device).split(8)
            values = [self.model(normalise(part))[0].cpu() for part in parts]
        self.model.train()
        return torch.cat(values).numpy()

    def check(self, fit: list[Source], loss: float, rate: float) -> None:
        """Validates, logs, and writes the checkpoints."""
        reports = {
            name: evaluate.report(evaluate.score(fit, self.score, self.settings.preprocess, jpeg))
            for name, jpeg in (("as_stored", None), ("jpeg_90", 90))
        }
        precisions = {name: r["mean"]["average_precision"] for name, r in reports.items()}
        value = float(np.mean(list(precisions.values())))
        line = {
            "step": self.step,
            "minutes": round(self.seconds / 60, 1),
            "progress": round(self.progress, 4),
            "loss": round(loss, 4),
            "images_per_second": round(rate, 1),
            "selected_by": round(value, 4),
            "val_fit": reports,
        }
        with (self.out / "log.jsonl").open("a") as log:
            print(json.dumps(line), file=log)
        tqdm.write(f"{line['minutes']} min, step {self.step}, loss {loss:.4f}, AP {precisions}")

        state = {"model": self.model.state_dict(), "settings": asdict(self.settings),
                 "step": self.step, "seconds": self.seconds}  # fmt: skip
        if value >= self.best:
            self.best = value
            save(state, self.out / "best.pth")
        more = {"optimizer": self.optimizer.state_dict(), "best": self.best}
        save({**state, **more}, self.out / "last.pth")


def save(state: dict, path: Path) -> None:
    """Atomically: a reader finds the old file or the new one."""
    scratch = path.with_suffix(".tmp")
    torch.save(state, scratch)
    os.replace(scratch, path)


def parse(argv: list[str] | None) -> Settings:
    """One flag for each field of `Settings`."""
    parser = argparse.ArgumentParser(
        prog="lfm.train", formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    for f in fields(Settings):
        flag = "--" + f.name.replace("_", "-")
        if f.type is bool:
            action = argparse.BooleanOptionalAction
            parser.add_argument(flag, action=action, default=f.default)
        else:
            parser.add_argument(flag, type=f.type, default=f.default)
    return Settings(**vars(parser.parse_args(argv)))


def main(argv: list[str] | None = None) -> int:
    trainer = Trainer(parse(argv))
    trainer.resume()
    trainer.run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
