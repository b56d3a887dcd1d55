"""Other methods with teachers, queues of keys, pre-training or another optimizer.

All are trained by this project's schedules (its weight decay, crop and flip): the comparison is of methods, not of
recipes. Their networks pool, normalise and classify as the plain network of the paper does.
"""

from copy import deepcopy
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import UInt8
from torch import Tensor, nn

from mbib_core import contrast, losses
from mbib_core.batches import Batch
from mbib_core.data.longtailed import Images
from mbib_core.devices import autocast
from mbib_core.learners import Learner, Loss
from mbib_core.methods.balanced import BALANCED
from mbib_core.methods.method import Method, Stage, on_v
from mbib_core.methods.paper import CE, V_ALONE, adjusted
from mbib_core.rebalancing import Scalar

FEATURES = ("backbone", "observe")  # of the plain network: all but its classifier


def balanced(logits: losses.Logits, targets: losses.Targets, *, counts: losses.Counts) -> Scalar:
    return losses.balanced_softmax(logits, targets, counts=counts)


class Pupil(Learner):
    """Gives a loss the logits of a `teacher`, once there is one: in evaluation mode, of the same images."""

    still = ("teacher",)
    teacher: nn.Module

    def forward(self, batch: Batch, loss: Loss, progress: float) -> Scalar:
        if not hasattr(self, "teacher"):
            return super().forward(batch, loss, progress)
        with torch.no_grad(), autocast(batch.x.device, self.precision):
            teacher = self.teacher(batch.x).v_logits[-1]
        return loss(self.outputs(batch.x), batch.y, counts=self.counts, progress=progress, teacher=teacher)


def succeed(learner: Learner, **_own: Any) -> None:
    """The network becomes the teacher of one that is drawn anew."""
    learner.teacher = deepcopy(learner.network)
    for module in learner.network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear | nn.modules.batchnorm._BatchNorm):
            module.reset_parameters()
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(module.weight)


@torch.no_grad()
def climb(learner: Learner, *, rho: float, **_own: Any) -> None:
    """Moves the weights by `rho` along the gradient of the loss, all of them as one vector (Foret et al. 2021)."""
    moved: list[Tensor] = [p for p in learner.parameters() if p.grad is not None]
    gradients = [p.grad for p in moved if p.grad is not None]
    length = torch.stack(torch._foreach_norm(gradients)).norm()
    torch._foreach_add_(moved, list(torch._foreach_mul(gradients, rho / (length + 1e-12))))


class WithClassifier(Learner):
    """Gives a loss the features and the parameters of the classifier, too."""

    def forward(self, batch: Batch, loss: Loss, progress: float) -> Scalar:
        outputs, classifiers = self.outputs(batch.x), self.network.v_classifiers
        given = {"features": outputs.observations[-1], **dict(classifiers[-1].named_parameters())}  # type: ignore
        return loss(outputs, batch.y, counts=self.counts, progress=progress, **given)


class Turning(Learner):
    """While it has `turns`, a classifier of four, the images are turned and their labels are the quarters."""

    turns: nn.Module

    def forward(self, batch: Batch, loss: Loss, progress: float) -> Scalar:
        if not hasattr(self, "turns"):
            return super().forward(batch, loss, progress)
        outputs = self.outputs(turned(batch.x))
        quarters = torch.arange(len(batch.x), device=batch.x.device) % 4
        logits = self.turns(outputs.observations[-1])
        return loss(outputs._replace(v_logits=(logits,)), quarters, counts=self.counts, progress=progress)


def turned(x: UInt8[Tensor, "b 3 s s"]) -> UInt8[Tensor, "b 3 s s"]:
    """Row i counter-clockwise by i quarters: in a batch drawn in random order, a random share of each."""
    x = x.clone()
    for quarters in (1, 2, 3):
        x[quarters::4] = x[quarters::4].rot90(quarters, (2, 3))
    return x


def width_of(learner: Learner) -> int:
    """The dimensions of the network's features."""
    backbone: Any = learner.network.backbone
    return backbone.channels[-1]


def start_turning(learner: Learner, *, images: Images, **_own: Any) -> None:
    """Adds the classifier of quarters. Raises ValueError unless the images are square."""
    height, width = images.x.shape[2:]
    if height != width:
        raise ValueError(f"images are turned by quarters, and these are {height} x {width}: give square ones")
    learner.turns = nn.Linear(width_of(learner), 4).to(learner.counts.device)


def stop_turning(learner: Learner, **_own: Any) -> None:
    del learner.turns


CONTRAST: dict[str, Method] = {
    # The teacher is the first half of the run, by the same schedule as its student. Published for factors 50 and 100.
    "dive": Method(
        "DiVE",
        (Stage(on_v(balanced)), Stage(on_v(contrast.dive), begin=succeed)),
        V_ALONE,
        {"distil_temperature": 2.0, "distil_share": 0.5},
        learner=Pupil,
        source="He et al. 2021",
        about="a balanced softmax network teaches a fresh one with flattened probabilities; twice the epochs",
    ),
    # rho as Foret et al. choose it for CIFAR. Batch norm's running statistics follow the first pass alone.
    "sam": Method(
        "SAM",
        (replace(CE, ascent=climb),),
        V_ALONE,
        {"rho": 0.05},
        predict=adjusted,
        biased=True,
        source="Foret et al. 2021",
        about="cross-entropy, stepping with the gradient of a point uphill; two passes a step",
    ),
    "bsce-sam": Method(
        "balanced softmax with SAM",
        (Stage(on_v(balanced), ascent=climb),),
        V_ALONE,
        {"rho": 0.05},
        source="Foret et al. 2021",
        about="balanced softmax, stepping with the gradient of a point uphill; two passes a step",
    ),
    # Without the mixup of the official recipe. Its noise is that of the official settings for factor 200, with which
    # the first stage is cross-entropy in all but name: to be chosen on validation images. There batch norm follows the
    # class-balanced images of the second stage, here it stands still.
    "cc-sam": Method(
        "CC-SAM",
        (
            Stage(on_v(contrast.cc_sam)),
            Stage(on_v(contrast.cc_sam_head), q=0.0, trains=("v_classifiers",), epochs=0.15, recipe={"rate": 0.01}),
        ),
        V_ALONE,
        {"class_noise": 1e-6},
        learner=WithClassifier,
        source="Zhou et al. 2023",
        about="the classifier, then the features, are moved uphill for each class by the rarity of its images",
    ),
    # The peer whose numbers are quoted is, as remembered, LDAM-DRW on pre-trained features.
    "ssp": Method(
        "SSP",
        (
            Stage(CE.loss, trains=(*FEATURES, "turns"), begin=start_turning),
            replace(BALANCED["ldam-drw"].stages[0], begin=stop_turning),
        ),
        BALANCED["ldam-drw"].parts,
        BALANCED["ldam-drw"].own,
        learner=Turning,
        source="Yang & Xu 2020",
        about="learns by how many quarters images are turned, then LDAM-DRW from these features; twice the epochs",
    ),
}
