"""Trains LFM on images in the paper's layout, on single web pictures, and on fakes by the zoo of
`lfm.generate`.

    python -m lfm.train --data DIR --val DIR [--web DIR,DIR] [--zoo DIR] --out DIR

writes to `--out`: best.pth (the weights to export), last.pth (to resume with the same command),
log.jsonl (one line per validation). The running mean of the weights (EMA) is validated and
exported. Only the "fit" halves of the validation images are read.
"""

import argparse
import contextlib
import copy
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

from lfm import evaluate, web
from lfm.checkpoint import read_checkpoint
from lfm.data import Source, load
from lfm.draw import Feed, Recipe
from lfm.generate import load_zoo
from lfm.network import LFM, normalise


@dataclass
class Settings:
    data: str = "../shared/data/train"
    web: str = ""  # folders with a MANIFEST.tsv, by commas: single pictures
    zoo: str = ""  # the folder of the decoders that `lfm.generate` trained
    zoo_kinds: int = 0  # of its generators, chosen by the seed; 0: all
    start: str = ""  # a checkpoint with the initial weights
    start_crops: int = 0  # seen by those weights, if the checkpoint does not say
    val: str = "../shared/data/val"
    out: str = "runs/lfm"
    minutes: float = 60.0  # of training, all sessions together; the schedule follows the clock ...
    steps: int = 0  # ... unless this is given: then runs are reproducible
    seed: int = 0
    batch: int = 32  # crops per step
    lr: float = 5e-4  # of Adam
    final_lr: float = 1.0  # its final share (cosine); 1: constant, for an unlimited run
    ema: float = 0.998  # decay of the running mean of the weights, per step
    leave_out: str = ""  # a source excluded from training, for testing
    share: float = 1.0  # of the pairs of every source
    pooling: str = "topk"  # or average: the NPR-like baseline, which cannot be exported
    k: int = 16
    drop_most: str = "strongest"  # RBLD: strongest, weakest or none
    rks_weight: float = 0.1  # of the RKS branch in the loss; 0 turns it off
    crop: int = 128
    large_crop: int = 224  # some steps use larger crops, closer to the service's input,
    large: float = 0.15  # since the 16 largest of more values are larger: their share of the steps
    web_share: float = 0.4  # of the couples, if there are web pictures,
    zoo_share: float = 0.3  # and if there is a zoo; the rest are pairs
    hard: float = 0.4  # share of the couples with a history of resampling, sharpening, noise ...
    lossy: float = 0.0  # share of the couples recompressed at the end
    quality: int = 70  # lowest quality of such a recompression
    mine_minutes: float = 10.0  # between two searches for the real pictures most often called fake
    preprocess: str = "crop"  # of the validation: resize or crop
    val_minutes: float = 5.0  # between validations and checkpoints
    bfloat16: bool = False  # mixed precision, for processors and GPUs that have it
    threads: int = 1
    workers: int = 0  # processes that cut crops in parallel
    device: str = "cpu"
    compile: bool = False  # the network by Inductor: half a minute, then faster on a GPU
    zoo_pairs: int = 0  # couples of the zoo made on the device before the training, kept in memory;
    # 0: made for every sample by the workers, which is slow beside a GPU

    def rate(self, progress: float, step: int) -> float:
        warm_up = min(1.0, (step + 1) / 50)
        cosine = 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
        return self.lr * warm_up * (self.final_lr + (1 - self.final_lr) * cosine)

    def feed(self) -> Feed:
        sources = [source for source in load(Path(self.data)) if source.name != self.leave_out]
        pictures = web.pictures(web.folders(self.web), held_out=False)
        device = self.device if self.zoo_pairs else "cpu"
        zoo = load_zoo(Path(self.zoo), device=device) if self.zoo else {}
        if self.zoo_kinds:
            chosen = random.Random(self.seed).sample(sorted(zoo), self.zoo_kinds)
            zoo = {name: zoo[name] for name in chosen}
        pairs = 1 - self.web_share - self.zoo_share
        return Feed(
            [source.share(self.share) for source in sources],
            web.buckets(pictures),
            zoo,
            Recipe(pairs, self.web_share, self.zoo_share, self.hard, self.lossy, self.quality),
        )


class Batches(Dataset):
    """The batch of a step is determined by the seed, the step and the previous mining."""

    def __init__(self, feed: Feed, settings: Settings) -> None:
        self.feed, self.settings = feed, settings

    def __getitem__(self, step: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        s = self.settings
        rng = random.Random(f"{s.seed}/{step}")
        side = s.large_crop if rng.random() < s.large else s.crop
        size = max(2, round(s.batch * (s.crop / side) ** 2 / 2) * 2)  # equal pixels per step
        return tuple(torch.from_numpy(part) for part in self.feed.batch(size, side, rng))


class Originals(Dataset):
    """The photographs of `zoo_pairs` couples; the generator by its place in the feed's zoo."""

    def __init__(self, feed: Feed, settings: Settings) -> None:
        self.feed, self.settings = feed, settings

    def __len__(self) -> int:
        return self.settings.zoo_pairs

    def __getitem__(self, i: int) -> tuple[int, np.ndarray, int]:
        id, real, maker = self.feed.original(random.Random(f"{self.settings.seed}/zoo/{i}"))
        return id, real, self.feed.zoo.index(maker)


class Trainer:
    def __init__(self, settings: Settings) -> None:
        s = self.settings = settings
        torch.set_num_threads(s.threads)
        torch.backends.cudnn.benchmark = True  # the few shapes of a training repeat
        torch.manual_seed(s.seed)
        model = LFM(s.k, s.drop_most, s.pooling)
        self.crops = s.start_crops
        if s.start:
            tensors, facts = read_checkpoint(Path(s.start))
            model.load_state_dict({name: torch.as_tensor(t) for name, t in tensors.items()})
            self.crops = facts.get("crops", s.start_crops)
        self.model = model.to(s.device, memory_format=torch.channels_last).train()
        self.mean = copy.deepcopy(self.model).eval()
        if s.compile:
            self.model.compile(dynamic=False)
        learnt = [p for p in self.model.parameters() if p.requires_grad]
        self.optimizer = torch.optim.Adam(learnt, lr=s.lr)
        self.step, self.seconds, self.best = 0, 0.0, -1.0
        self.alarms: np.ndarray | None = None  # of the feed, when resuming
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
        self.mean.load_state_dict(state["model"])
        self.model.load_state_dict(state["raw"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step, self.seconds, self.best = state["step"], state["seconds"], state["best"]
        self.crops, self.alarms = state["crops"], state["alarms"].numpy()

    def run(self) -> None:
        s = self.settings
        feed = s.feed()
        if self.alarms is not None and len(self.alarms) == len(feed.alarms):
            feed.alarms = self.alarms
            feed.mine()
        self.alarms = feed.alarms
        fit = {"val_fit": [source.half("fit") for source in load(Path(s.val))]}
        if s.web:
            fit["val2_fit"] = [source.half("fit") for source in web.val2(web.folders(s.web))]
        self.make(feed)
        bar = tqdm(total=s.steps or None, initial=self.step, unit="step", mininterval=30)
        losses: list[float] = []
        last = checked = mined = time.monotonic()
        images = 0
        while self.progress < 1:
            for pixels, labels, ids in self.loader(feed):
                loss, logits = self.update(pixels.to(s.device), labels.to(s.device))
                losses.append(loss)
                feed.saw(ids.numpy(), 1 / (1 + np.exp(-logits[::2])))
                images += len(labels)
                self.step, self.crops = self.step + 1, self.crops + len(labels)
                now = time.monotonic()
                self.seconds, last = self.seconds + now - last, now
                bar.update()
                bar.set_postfix(loss=f"{np.mean(losses[-100:]):.4f}", refresh=False)
                done = self.progress >= 1
                if done or now - checked >= 60 * s.val_minutes:
                    self.check(fit, float(np.mean(losses)), images / (now - checked))
                    losses, images = [], 0
                    last = checked = time.monotonic()  # validation is not training time
                if done:
                    break
                if now - mined >= 60 * s.mine_minutes:
                    feed.mine()
                    mined = now
                    break  # the workers have a copy of the feed: start new ones
        bar.close()

    def loader(self, feed: Feed) -> DataLoader:
        """Batches from the current step on."""
        s = self.settings
        steps = range(self.step, 1 << 31)
        return DataLoader(
            Batches(feed, s), batch_size=None, sampler=steps, num_workers=s.workers,
            pin_memory=s.device != "cpu",
        )  # fmt: skip

    def make(self, feed: Feed) -> None:
        """Makes the couples of `zoo_pairs`: photographs by the workers, fakes on the device."""
        s = self.settings
        originals = DataLoader(
            Originals(feed, s), batch_size=None, num_workers=s.workers, collate_fn=tuple
        )
        for id, real, maker in tqdm(
            originals, "couples of the zoo", mininterval=10, disable=not s.zoo_pairs
        ):
            feed.made.append((id, real, feed.zoo[maker].make(real)))

    def update(self, pixels: torch.Tensor, labels: torch.Tensor) -> tuple[float, np.ndarray]:
        """One step of Adam; returns the loss of the main branch and its logits."""
        s = self.settings
        torch.manual_seed(s.seed + 1_000_003 * self.step)  # so that a resumed run is reproducible
        for group in self.optimizer.param_groups:
            group["lr"] = s.rate(self.progress, self.step)
        x = normalise(pixels).contiguous(memory_format=torch.channels_last)
        low = torch.autocast(s.device.split(":")[0], torch.bfloat16)
        with low if s.bfloat16 else contextlib.nullcontext():
            logit, random_logit = self.model(x)
        loss = bce(logit.float(), labels)
        total = loss + s.rks_weight * bce(random_logit.float(), labels)
        self.optimizer.zero_grad()
        total.backward()
        self.optimizer.step()
        self.average()
        return loss.item(), logit.detach().float().cpu().numpy()

    @torch.no_grad()
    def average(self) -> None:
        """Updates the running mean, faster at the beginning of a run."""
        decay = min(self.settings.ema, (1 + self.step) / (10 + self.step))
        new = self.model.state_dict()
        for name, tensor in self.mean.state_dict().items():
            if tensor.is_floating_point():
                tensor.lerp_(new[name], 1 - decay)
            else:
                tensor.copy_(new[name])

    def score(self, pixels: np.ndarray) -> np.ndarray:
        """Logits of the running mean: the `Scorer` of a validation."""
        with torch.inference_mode():
            parts = torch.from_numpy(pixels).split(8)
            device = self.settings.device
            values = [self.mean(normalise(part.to(device)))[0].cpu() for part in parts]
        return torch.cat(values).numpy()

    def check(self, fit: dict[str, list[Source]], loss: float, rate: float) -> None:
        """Validates on the images as stored, logs, and writes the checkpoints."""
        reports = {
            name: evaluate.report(evaluate.score(sources, self.score, self.settings.preprocess))
            for name, sources in fit.items()
        }
        precisions = {name: r["mean"]["average_precision"] for name, r in reports.items()}
        value = float(np.mean(list(precisions.values())))
        line = {
            "step": self.step,
            "crops": self.crops,
            "minutes": round(self.seconds / 60, 1),
            "progress": round(self.progress, 4),
            "loss": round(loss, 4),
            "images_per_second": round(rate, 1),
            "selected_by": round(value, 4),
            **reports,
        }
        with (self.out / "log.jsonl").open("a") as log:
            print(json.dumps(line), file=log)
        tqdm.write(f"{line['minutes']} min, {self.crops} crops, loss {loss:.4f}, AP {precisions}")

        state = {"model": self.mean.state_dict(), "settings": asdict(self.settings),
                 "step": self.step, "crops": self.crops, "seconds": self.seconds}  # fmt: skip
        if value >= self.best:
            self.best = value
            save(state, self.out / "best.pth")
        more = {"raw": self.model.state_dict(), "optimizer": self.optimizer.state_dict(),
                "best": self.best, "alarms": torch.as_tensor(self.alarms)}  # fmt: skip
        save({**state, **more}, self.out / "last.pth")


def save(state: dict, path: Path) -> None:
    """Saves atomically: a reader finds the old file or the new one."""
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
