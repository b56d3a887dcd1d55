"""How long and how fast to train: epochs, batch, learning rates and picture sizes, by name."""

import json
import math
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Schedule:
    """How to train: ResNet depth, epochs, pictures a batch, SGD's settings, and the steps of the learning rate.

    The rate climbs for the first fortieth of the epochs (5 of 200) and is multiplied by `decay` after 80 % and 90 %
    of them (160 and 180 of 200; Cao et al. 2019), so schedules of other lengths keep the shape.
    """

    depth: int
    epochs: int
    batch: int
    rate: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 3e-4
    decay: float = 0.01
    padding: int = 4
    precision: str = "auto"  # what a run takes that asks for none

    @property
    def recipe(self) -> dict[str, Any]:
        """All of it as plain values, as a record and a checkpoint keep it."""
        return json.loads(json.dumps(asdict(self)))

    def learning_rate(self, epoch: int, epochs: int) -> float:
        """The learning rate of `epoch` (from 0) of `epochs`."""
        warm_up = max(1, round(epochs / 40))
        if epoch < warm_up:
            return self.rate * (epoch + 1) / warm_up
        return self.rate * self.decay ** ((epoch >= 0.8 * epochs) + (epoch >= 0.9 * epochs))

    def scale(self, epoch: int, epochs: int) -> float:
        """The height and width of `epoch`'s pictures, as a share of the full ones."""
        return 1.0

    def full_epochs(self, epochs: int) -> float:
        """How many epochs of full-size pictures cost the convolutions as much as `epochs` of this schedule."""
        return math.fsum(self.scale(epoch, epochs) ** 2 for epoch in range(epochs))


@dataclass(frozen=True)
class OneCycle(Schedule):
    """The rate climbs once and falls to nothing along a cosine (Smith & Topin 2018) while the pictures grow.

    `climb` is the share of the epochs in which the rate climbs; `growth` says until which share of them the pictures
    have which scale; the last epoch has full ones.
    """

    decay: float = 0.0
    climb: float = 0.2
    growth: tuple[tuple[float, float], ...] = ((0.3, 0.625), (0.7, 0.75))  # 20 and 24 of 32 pixels

    def learning_rate(self, epoch: int, epochs: int) -> float:
        """The learning rate of `epoch` (from 0) of `epochs`: that of its middle, so never 0."""
        done = (epoch + 0.5) / epochs
        if done < self.climb:
            return self.rate * done / self.climb
        return self.rate * (1 + math.cos(math.pi * (done - self.climb) / (1 - self.climb))) / 2

    def scale(self, epoch: int, epochs: int) -> float:
        scales = (scale for until, scale in self.growth if epoch < until * epochs)
        return next(scales, 1.0) if epoch < epochs - 1 else 1.0


SCHEDULES: dict[str, Schedule] = {
    "paper": Schedule(depth=32, epochs=200, batch=128),
    "short": Schedule(depth=32, epochs=60, batch=128),
    # A third of the multiply-adds of "paper", and another recipe: never in one table with it.
    "fast": OneCycle(depth=32, epochs=100, batch=128, weight_decay=5e-4),
    # Its own batch, rate and decay: of four combinations the best for its time on validation pictures, over methods and
    # seeds 0 and 1 (BSCE 86.8 %, MBIB 85.1 %; batches of 64 at the paper's rate, decay 0.1: 82.9 % and 77.4 %).
    # In float32 everywhere: the chapters' live runs and records made on different machines are compared.
    "glyphs": Schedule(depth=8, epochs=24, batch=32, rate=0.05, decay=0.1, precision="float32"),
    "folder": Schedule(depth=20, epochs=100, batch=64),  # for some hundred to some ten thousand pictures of one's own
}
