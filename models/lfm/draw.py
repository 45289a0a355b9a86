"""Samples the crops of a training.

They are sampled in couples, a real and a generated one, stored and treated alike: two images of a
pair, two pictures of one web bucket, or a photograph and its version by a generator of the zoo. So
the label depends only on the pixels.
"""

import random
from collections import Counter
from dataclasses import dataclass
from itertools import accumulate

import numpy as np

from lfm import history
from lfm.data import Source, recompress
from lfm.generate import Maker
from lfm.history import Step
from lfm.web import LEAST, Picture

MARGIN = 16  # cut off at the end, so that an 8x8 grid lies at any even offset in the crop
FEWEST = 5  # of either class in a bucket, or it would be memorised
WORST = 0.1  # share of the real pictures that is mined ...
OFTEN = 4.0  # ... and how many times as often they are drawn
MADE = 360  # pixels a side of a couple that is made before the training, where there are so many


@dataclass
class Recipe:
    """Probabilities: of each kind of couple, of a history, and of a final lossy save of quality
    `quality`..100."""

    pairs: float = 0.3
    web: float = 0.4
    zoo: float = 0.3
    hard: float = 0.4
    lossy: float = 0.0
    quality: int = 70


@dataclass
class Photograph:
    """A real picture by its index in the table of false alarms."""

    id: int
    origin: str
    pixels: np.ndarray


class Chooser:
    """Samples by weight: origins by the root of their size, and in them the worst more often."""

    def __init__(self, origins: list[str]) -> None:
        sizes = Counter(origins)
        self.base = np.array([sizes[origin] ** -0.5 for origin in origins])
        self.weigh(np.ones(len(origins)))

    def weigh(self, factors: np.ndarray) -> None:
        self.cumulative = list(accumulate(self.base * factors))

    def draw(self, rng: random.Random) -> int:
        return rng.choices(range(len(self.base)), cum_weights=self.cumulative)[0]


class Feed:
    """All sources of a training's samples. `alarms` is the mean score of every real picture, kept
    by the trainer: after `mine` the worst of them are sampled more often."""

    def __init__(
        self,
        pairs: list[Source],
        buckets: dict[str, tuple[list[Picture], list[Picture]]],
        zoo: dict[str, Maker],
        recipe: Recipe,
    ) -> None:
        self.pairs, self.zoo, self.recipe = pairs, list(zoo.values()), recipe
        self.photographs: list[Photograph] = []
        self.pair_ids = [
            [self._register(source.name, pixels) for pixels in source.images[0]] for source in pairs
        ]
        self.buckets = []
        for real, fake in buckets.values():
            if min(len(real), len(fake)) >= FEWEST:
                ids = [self._register(p.origin, p.pixels) for p in real]
                choosers = [Chooser([p.origin for p in side]) for side in (real, fake)]
                self.buckets.append((ids, real, fake, *choosers))
        usable = [p for p in self.photographs if min(p.pixels.shape[:2]) >= LEAST]
        self.models, self.model_chooser = usable, Chooser([p.origin for p in usable])
        self.alarms = np.zeros(len(self.photographs))
        self.made: list[
            tuple[int, np.ndarray, np.ndarray]
        ] = []  # couples of the zoo, if made before
        kinds = {"pairs": self.pairs, "web": self.buckets, "zoo": self.zoo}
        self.kinds = {kind: getattr(recipe, kind) for kind, there in kinds.items() if there}

    def _register(self, origin: str, pixels: np.ndarray) -> int:
        self.photographs.append(Photograph(len(self.photographs), origin, pixels))
        return len(self.photographs) - 1

    def saw(self, ids: np.ndarray, scores: np.ndarray) -> None:
        """Updates the running means of pictures with the scores of real crops."""
        self.alarms[ids] += 0.3 * (scores - self.alarms[ids])

    def mine(self) -> None:
        worst = np.zeros(len(self.alarms), bool)
        count = int(WORST * len(worst))
        worst[np.argsort(self.alarms)[len(worst) - count :]] = True
        worst &= self.alarms > 0.5
        factors = np.where(worst, OFTEN, 1.0)
        for ids, *_, chooser, _ in self.buckets:
            chooser.weigh(factors[ids])
        self.model_chooser.weigh(factors[[p.id for p in self.models]])

    def batch(
        self, size: int, side: int, rng: random.Random
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """`size` crops, real and generated alternating: uint8 (size, side, side, 3), labels float32
        (size,) and the number of every real crop's picture (size / 2,)."""
        crops, ids = [], []
        for kind in rng.choices(list(self.kinds), list(self.kinds.values()), k=size // 2):
            id, real, fake, steps = getattr(self, f"_{kind}")(side + MARGIN, rng)
            place = rng.random()
            crops += [
                self._crop(pixels, steps, side, random.Random(place)) for pixels in (real, fake)
            ]
            ids.append(id)
        labels = np.tile(np.float32([0, 1]), size // 2)
        return np.stack(crops), labels, np.array(ids)

    def _pairs(self, side: int, rng: random.Random):
        weights = [len(source.images[0]) ** 0.5 for source in self.pairs]
        which = rng.choices(range(len(self.pairs)), weights)[0]
        i = rng.randrange(len(self.pair_ids[which]))
        real, fake = (images[i] for images in self.pairs[which].images)
        return self.pair_ids[which][i], real, fake, self._steps(side, rng, real, fake)

    def _web(self, side: int, rng: random.Random):
        weights = [min(len(real), len(fake)) ** 0.5 for _, real, fake, *_ in self.buckets]
        ids, real, fake, *choosers = rng.choices(self.buckets, weights)[0]
        i, j = (chooser.draw(rng) for chooser in choosers)
        a, b = real[i].pixels, fake[j].pixels
        return ids[i], a, b, self._steps(side, rng, a, b)

    def _zoo(self, side: int, rng: random.Random):
        if self.made:
            id, real, fake = rng.choice(self.made)
            return id, real, fake, self._steps(side, rng, real)
        photograph = self.models[self.model_chooser.draw(rng)]
        after = self._steps(side, rng, photograph.pixels)
        real, maker = self._original(photograph, history.needed(after, side), rng)
        return photograph.id, real, maker.make(real), after

    def original(self, rng: random.Random) -> tuple[int, np.ndarray, Maker]:
        """A photograph for the zoo: its number, its pixels and the generator."""
        photograph = self.models[self.model_chooser.draw(rng)]
        return photograph.id, *self._original(photograph, MADE, rng)

    def _original(
        self, photograph: Photograph, side: int, rng: random.Random
    ) -> tuple[np.ndarray, Maker]:
        """A square of about `side` pixels with a history, as the input of a random generator."""
        maker = rng.choice(self.zoo)
        block = maker.block
        window = min(photograph.pixels.shape[:2]) // block * block
        window = min(window, -(-side // block) * block)
        before = self._fitting(0.5, window, rng, photograph.pixels)
        real = self._cut(photograph.pixels, history.needed(before, window), rng)
        return self._cut(history.apply(real, before), window, rng), maker

    def _steps(self, side: int, rng: random.Random, *images: np.ndarray) -> list[Step]:
        return self._fitting(self.recipe.hard, side, rng, *images)

    @staticmethod
    def _fitting(chance: float, side: int, rng: random.Random, *images: np.ndarray) -> list[Step]:
        """A history that keeps enough of all `images`; sometimes none."""
        least = min(n for pixels in images for n in pixels.shape[:2])
        if rng.random() < chance:
            for _ in range(4):
                steps = history.draw(rng)
                if history.needed(steps, side) <= least:
                    return steps
        return []

    def _crop(
        self, pixels: np.ndarray, steps: list[Step], side: int, rng: random.Random
    ) -> np.ndarray:
        lossy, flipped = rng.random() < self.recipe.lossy, rng.random() < 0.5
        format = rng.choices(["JPEG", "WEBP"], [4, 1])[0]
        save = format, rng.randint(self.recipe.quality, 100), rng.choice(history.CHROMAS)
        pixels = self._cut(pixels, history.needed(steps, side + MARGIN), rng)
        pixels = history.apply(pixels, steps)
        pixels = self._cut(recompress(pixels, *save) if lossy else pixels, side, rng)
        return pixels[:, ::-1] if flipped else pixels

    @staticmethod
    def _cut(pixels: np.ndarray, side: int, rng: random.Random) -> np.ndarray:
        """A square at a random even offset, smaller only if the image is."""
        y, x = (2 * rng.randint(0, max(0, n - side) // 2) for n in pixels.shape[:2])
        return pixels[y : y + side, x : x + side]
