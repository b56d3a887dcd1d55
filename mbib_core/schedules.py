"""How long and how fast to train: epochs, batch, learning rates and picture sizes, by name."""

import json
import math
from dataclasses import asdict, dataclass, replace
from typing import Any

from mbib_core.settings import Settings, named


@dataclass(frozen=True)
class Schedule:
    """How to train: network, epochs, images a batch, SGD's settings, and the steps of the learning rate.

    Linear warm-up over the first 1/40 of the epochs (5 of 200); the rate is multiplied by `decay` after each of the
    `drops`, shares of the epochs (160 and 180 of 200; Cao et al. 2019), so schedules of other lengths keep the shape.
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
    drops: tuple[float, ...] = (0.8, 0.9)
    warm_up: float = 40.0  # one epoch in so many
    augmentation: str = "crop+flip"
    average: str | None = None  # of the weights, in each stage: "ema" or "swa"
    cosine: bool = False  # down a cosine to nothing, in place of the drops
    backbone: str = ""  # in place of the CIFAR ResNet of `depth`
    trunk_rate: float = 1.0  # factor of the rate in the backbone
    frozen: float = 0.0  # share of the first stage's epochs, rounded, in which the backbone stands still, before others
    size: int = 32  # pixels a side of images that may have any

    @property
    def recipe(self) -> dict[str, Any]:
        """All of it as plain values, as a record and a checkpoint keep it."""
        return json.loads(json.dumps(asdict(self)))

    def learning_rate(self, epoch: int, epochs: int) -> float:
        """The learning rate of `epoch` (from 0) of `epochs`."""
        warm_up = max(1, round(epochs / self.warm_up))
        if epoch < warm_up:
            return self.rate * (epoch + 1) / warm_up
        if self.cosine:
            return self.rate * (1 + math.cos(math.pi * epoch / epochs)) / 2
        return self.rate * self.decay ** sum(epoch >= drop * epochs for drop in self.drops)

    def scale(self, epoch: int, epochs: int) -> float:
        """The height and width of `epoch`'s images, as a share of the full ones."""
        return 1.0

    def full_epochs(self, epochs: int) -> float:
        """How many epochs of full-size images cost the convolutions as much as `epochs` of this schedule."""
        return math.fsum(self.scale(epoch, epochs) ** 2 for epoch in range(epochs))


@dataclass(frozen=True)
class OneCycle(Schedule):
    """The rate climbs once and falls to nothing along a cosine (Smith & Topin 2018) while the images grow.

    `climb` is the share of the epochs in which the rate climbs; `growth` says until which share of them the images
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


PHOTOGRAPHS: dict[str, Any] = {
    **{"depth": 32, "cosine": True, "warm_up": 1e6, "augmentation": "resized-crop", "padding": 16, "size": 224}
}

SCHEDULES: dict[str, Schedule] = {
    "paper": Schedule(depth=32, epochs=200, batch=128),
    "short": Schedule(depth=32, epochs=60, batch=128),
    # A third of the multiply-adds of "paper", and another recipe: never in one table with it.
    "fast": OneCycle(depth=32, epochs=100, batch=128, weight_decay=5e-4),
    # Its own batch, rate and decay: of four combinations the best for its time on validation images, over methods and
    # seeds 0 and 1 (BSCE 86.8 %, MBIB 85.1 %; batches of 64 at the paper's rate, decay 0.1: 82.9 % and 77.4 %).
    # In float32 everywhere: the chapters' live runs and records made on different machines are compared.
    "glyphs": Schedule(depth=8, epochs=24, batch=32, rate=0.05, decay=0.1, precision="float32"),
    "folder": Schedule(depth=20, epochs=100, batch=64),  # for some hundred to some ten thousand images of one's own
    # Epochs, momentum, weight decay, the crop and, for ResNet-10 and ResNeXt-50, batch and rate are the paper's, which
    # mentions no warm-up here. Inferred: the cosine goes down by epochs, and other backbones have ResNeXt-50's batch.
    # Kang et al. 2020, whose rate over batch it is, also jitter the colours: "resized-crop+jitter".
    "imagenet-lt": Schedule(**PHOTOGRAPHS, backbone="resnet10", epochs=90, batch=64, rate=0.025, weight_decay=5e-4),
    # As stated in the paper, which trains for 90 or for 200 epochs.
    "inaturalist": Schedule(**PHOTOGRAPHS, backbone="resnet50", epochs=90, batch=64, rate=0.025, weight_decay=1e-4),
    # For photographs of one's own and pretrained weights: chosen, not tuned. Images in memory have crops of 16 pixels.
    "finetune": Schedule(
        **PHOTOGRAPHS,
        backbone="resnet50",
        epochs=30,
        batch=64,
        rate=0.01,
        weight_decay=1e-4,
        trunk_rate=0.1,
        frozen=0.1,
    ),
}
# What a schedule has with one backbone and not with the others.
ON_BACKBONE: dict[tuple[str, str], dict[str, Any]] = {("imagenet-lt", "resnet10"): {"batch": 128, "rate": 0.05}}

# What a run may ask for instead.
OVERRIDES = "batch", "rate", "weight_decay", "depth", "backbone", "trunk_rate", "frozen", "augmentation", "average"


def schedule_of(settings: Settings) -> Schedule:
    """The schedule of settled `settings`, with what they ask for in its place. Raises ValueError on an unknown one."""
    asked = {name: getattr(settings, name) for name in (*OVERRIDES, "size")}
    schedule = usual_schedule(str(settings.schedule), settings.backbone)
    return replace(schedule, **{name: value for name, value in asked.items() if value is not None})


def usual_schedule(name: str, backbone: str | None = None) -> Schedule:
    """The schedule of that name as it is for the `backbone` that is asked for, or else its own. Raises ValueError on an
    unknown one."""
    schedule = named(SCHEDULES, name, "schedule")
    return replace(schedule, **ON_BACKBONE.get((name, backbone or schedule.backbone), {}))


def same_recipe(found: dict[str, Any], schedule: Schedule) -> bool:
    """Whether the recipe of a record or checkpoint, which may be older than a rule of today's, is `schedule`'s."""
    return all(schedule.recipe.get(rule) == value for rule, value in found.items())
