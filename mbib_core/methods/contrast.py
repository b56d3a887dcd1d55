"""Other methods with teachers, queues of keys, pre-training or another optimizer.

All are trained by this project's schedules (its weight decay, crop and flip): the comparison is of methods, not of
recipes. Their networks pool, normalise and classify as the plain network of the paper does.
"""

from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor, nn
from torch.nn import functional as F

from mbib_core import contrast, losses
from mbib_core.augmentation import blend
from mbib_core.batches import Batch
from mbib_core.data.longtailed import Images
from mbib_core.devices import autocast
from mbib_core.learners import Learner, Loss
from mbib_core.methods.balanced import BALANCED
from mbib_core.methods.method import Method, Stage, on_experts, on_v, taken
from mbib_core.methods.paper import CE, V_ALONE, adjusted
from mbib_core.methods.staged import STAGED
from mbib_core.networks import Outputs
from mbib_core.networks.bottleneck import draw_weights
from mbib_core.ranks import gathered, own
from mbib_core.rebalancing import Scalar
from mbib_core.settings import Value

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
            teacher = gathered(self.teacher(batch.x).v_logits[-1])
        return super().forward(batch, partial(loss, teacher=teacher), progress)


def succeed(learner: Learner, **_own: Any) -> None:
    """The network becomes the teacher of one that is drawn anew."""
    learner.teacher = deepcopy(learner.network)
    for module in learner.network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear | nn.modules.batchnorm._BatchNorm):
            module.reset_parameters()
        draw_weights([module])


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
        classifiers: Any = self.network.v_classifiers
        head = dict(classifiers[-1].named_parameters())

        def given(outputs: Outputs, targets: Tensor, **more: Any) -> Scalar:
            return loss(outputs, targets, features=outputs.observations[-1], **head, **more)

        return super().forward(batch, given, progress)


class Turning(Learner):
    """While it has `turns`, a classifier of four, the images are turned and their labels are the quarters."""

    turns: nn.Module

    def forward(self, batch: Batch, loss: Loss, progress: float) -> Scalar:
        if not hasattr(self, "turns"):
            return super().forward(batch, loss, progress)
        quarters = torch.arange(len(batch.x), device=batch.x.device) % 4

        def of_turns(outputs: Outputs, targets: Tensor, **more: Any) -> Scalar:
            return loss(outputs._replace(v_logits=(self.turns(outputs.observations[-1]),)), targets, **more)

        return super().forward(Batch(turned(batch.x), quarters), of_turns, progress)


def turned(x: UInt8[Tensor, "b 3 s s"]) -> UInt8[Tensor, "b 3 s s"]:
    """Row i counter-clockwise by i quarters: in a batch drawn in random order, a random share of each.

    Rows are those of one process, so that each has all four, which its batch norm needs.
    """
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
    height, width = images.size
    if height != width:
        raise ValueError(f"images are turned by quarters, and these are {height} x {width}: give square ones")
    learner.turns = nn.Linear(width_of(learner), 4).to(learner.counts.device)


def stop_turning(learner: Learner, **_own: Any) -> None:
    del learner.turns


class Contrast(Learner):
    """Gives a loss unit features q of one view of each image, k of the other, and the queue of earlier k.

    q comes from the network and `project`, k from the running means of their weights. The queue starts as random
    directions that have no label, -1; every step its oldest keys make room. Of several processes all have the same
    queue, of everybody's keys.
    """

    still = ("key_network", "key_project")
    project: nn.Sequential
    key_network: nn.Module
    key_project: nn.Module
    keys: Tensor
    key_labels: Tensor
    key_momentum: float

    def forward(self, batch: Batch, loss: Loss, progress: float) -> Scalar:
        if batch.second is None:
            return super().forward(batch, loss, progress)
        outputs, y = self.outputs(batch.x), gathered(batch.y)
        q = gathered(F.normalize(self.project(outputs.observations[-1])))
        k = gathered(self.new_keys(batch.second.x))
        kept = self.kept(q.detach(), k, y)
        return loss(gathered(outputs), y, counts=self.counts, progress=progress, q=q, k=k, **kept)

    @torch.no_grad()
    def new_keys(self, x: UInt8[Tensor, "b 3 h w"]) -> Float[Tensor, "b d"]:
        """The running means go on by a step; then k [B, D], by the statistics of this batch."""
        means: list[Tensor] = [*self.key_network.parameters(), *self.key_project.parameters()]
        weights: list[Tensor] = [*self.network.parameters(), *self.project.parameters()]
        torch._foreach_lerp_(means, weights, 1 - self.key_momentum)
        self.key_network.train()
        self.key_project.train()
        with autocast(x.device, self.precision):
            features = self.key_network(x).observations[-1]
        return F.normalize(self.key_project(features))

    @torch.no_grad()
    def kept(self, q: Tensor, k: Tensor, y: Tensor) -> dict[str, Tensor]:
        """The queue before this step, as the loss takes it; afterwards k is in it."""
        found = {"keys": self.keys.clone(), "key_labels": self.key_labels.clone()}
        self.keys.copy_(torch.cat([k, found["keys"]])[: len(self.keys)])
        self.key_labels.copy_(torch.cat([y, found["key_labels"]])[: len(self.keys)])
        return found


class Targeted(Contrast):
    """Gives a loss the targets on the sphere, too, and which of them belongs to each image's class at present."""

    sphere: Tensor
    centroids: Tensor

    @torch.no_grad()
    def kept(self, q: Tensor, k: Tensor, y: Tensor) -> dict[str, Tensor]:
        found = super().kept(q, k, y)
        here = F.normalize((y == torch.arange(len(self.counts), device=y.device)[:, None]).to(q.dtype) @ q)
        present = here.any(1, keepdim=True)
        self.centroids.copy_(torch.where(present, F.normalize(0.9 * self.centroids + 0.1 * here), self.centroids))
        return found | {"own": contrast.matched(self.centroids, self.sphere)[y], "sphere": self.sphere}


def mlp_128(width: int) -> nn.Sequential:
    """KCL's projector."""
    return nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 128))


def mlp_32(width: int) -> nn.Sequential:
    """PaCo's projector on CIFAR."""
    return nn.Sequential(nn.Linear(width, width), nn.BatchNorm1d(width), nn.ReLU(), nn.Linear(width, 32))


def queue_up(
    projector: Callable[[int], nn.Sequential],
    learner: Contrast,
    *,
    images: Images,
    queue: int,
    key_momentum: float,
    **_own: Any,
) -> None:
    """Adds a projector, the running means of it and of the network, and the queue: of an epoch's keys at most."""
    device = learner.counts.device
    learner.project = projector(width_of(learner)).to(device)
    learner.key_network, learner.key_project = deepcopy(learner.network), deepcopy(learner.project)
    length, last = min(queue, len(images.y)), learner.project[-1]
    learner.register_buffer("keys", F.normalize(torch.randn(length, last.weight.shape[0])).to(device))  # type: ignore
    learner.register_buffer("key_labels", torch.full((length,), -1, device=device))
    learner.key_momentum = key_momentum


def aim(learner: Contrast, **own: Any) -> None:
    """`queue_up`, and targets on the sphere with centroids that begin at 0."""
    queue_up(mlp_128, learner, **own)
    keys, classes = learner.get_buffer("keys"), len(learner.counts)
    sphere = contrast.sphere_targets(classes, keys.shape[1]).to(keys.device)
    learner.register_buffer("sphere", sphere)
    learner.register_buffer("centroids", torch.zeros_like(sphere))


def of_keys(outputs: Outputs, targets: Tensor, *, positives: int, contrast_temperature: float, **own: Any) -> Scalar:
    """The loss `contrast.kcl`, or `contrast.tsc` where there are targets, with positives drawn from the queue."""
    positive = contrast.drawn_positives(targets, own["key_labels"], positives)
    loss = contrast.tsc if "sphere" in own else contrast.kcl
    own |= {"positive": positive, "contrast_temperature": contrast_temperature}
    return loss(**taken(loss, **own))


class Mixing(Learner):
    """Gives a loss both ends of the network for batches of which one is mixed and one is pasted together."""

    plain: nn.Linear
    project: nn.Linear
    predict: nn.Linear

    def forward(self, batch: Batch, loss: Loss, progress: float) -> Scalar:
        (x, y), view, device = gathered(batch[:2]), gathered((batch.second or batch).x), batch.x.device
        partners, share = torch.randperm(len(y), device=device), torch.rand((), device=device)
        both = blend(x, x[partners], share), pasted(view, partners, share)  # a partner may be another process's
        mixed = [gathered(self.outputs(own(images))) for images in both]
        v = [outputs.observations[-1] for outputs in mixed]
        projected = tuple(self.project(v_i) for v_i in v)
        return loss(
            mixed[0]._replace(v_logits=tuple(outputs.v_logits[-1] for outputs in mixed)),
            y,
            counts=self.counts,
            progress=progress,
            plain=tuple(self.plain(v_i) for v_i in v),
            predicted=tuple(self.predict(h) for h in projected),
            projected=projected,
            partners=y[partners],
            share=share,
        )


def pasted(
    x: UInt8[Tensor, "b 3 h w"], partners: Int[Tensor, " b"], share: Float[Tensor, ""]
) -> UInt8[Tensor, "b 3 h w"]:
    """CutMix (Yun et al. 2019): a box of 1 - share of the image, clipped at its edges, is the partner's."""
    inside = []
    for side in x.shape[2:]:
        place = torch.arange(side, device=x.device) + 0.5
        inside.append((place - torch.rand((), device=x.device) * side).abs() < (1 - share).sqrt() * side / 2)
    return torch.where(inside[0][:, None] & inside[1], x[partners], x)


def two_ends(learner: Mixing, **_own: Any) -> None:
    """Adds the plain classifier, the projection and the prediction, which are not needed to predict."""
    width, device = width_of(learner), learner.counts.device
    learner.plain = nn.Linear(width, len(learner.counts)).to(device)
    learner.project, learner.predict = nn.Linear(width, 128).to(device), nn.Linear(128, 128).to(device)


KEYS: dict[str, Value] = {"queue": 4096, "key_momentum": 0.999, "contrast_temperature": 0.07, "positives": 6}
ON_KEYS = Stage(of_keys, second="view", trains=(*FEATURES, "project"), begin=partial(queue_up, mlp_128), epochs=2.0)

CONTRAST: dict[str, Method] = {
    # The teacher is the first half of the run, by the same schedule as its student. Its constants are published for
    # factors 50 and 100.
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
            Stage(
                on_v(contrast.cc_sam_head),
                q=0.0,
                trains=("v_classifiers",),
                epochs=0.15,
                recipe={"rate": 0.01, "drops": ()},
            ),
        ),
        V_ALONE,
        {"class_noise": 1e-6},
        learner=WithClassifier,
        source="Zhou et al. 2023",
        about="the classifier, then the features, are moved uphill for each class by the rarity of its images",
    ),
    # Published with CE and with LDAM-DRW after it; which of them the paper quotes as SSP is remembered, not read.
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
    # No script for small images was found: length, projector, queue and second stage (cRT's) are inferred. The queue
    # starts with random directions, as MoCo's, and is no longer than an epoch. Both views are crops and flips; for
    # ImageNet-LT they are MoCo v2's. One run on Glyphs-LT ended at 4 %: in 48 epochs of 1,525 images the contrast had
    # fallen from 7.3 to 7.0 nats, and its features told the second stage little.
    "kcl": Method(
        "KCL",
        (ON_KEYS, STAGED["crt"].stages[1]),
        V_ALONE,
        KEYS,
        learner=Contrast,
        source="Kang et al. 2021",
        about="learns features by contrast with as many keys of each class, then a classifier; twice the epochs",
    ),
    # As KCL, with the queue of the official code for ImageNet-LT; that for CIFAR, which has none, is not followed.
    # Where a simplex fits the width, the targets are its corners and not the end of 10,000 steps towards them.
    "tsc": Method(
        "TSC",
        (replace(ON_KEYS, begin=aim), STAGED["crt"].stages[1]),
        V_ALONE,
        KEYS | {"target_share": 0.2},
        learner=Targeted,
        source="Li et al. 2022",
        about="KCL with a target for each class, as far apart on the sphere as can be; twice the epochs",
    ),
    # The constants of CIFAR, but this project's epochs (there 400) and plain crops and flips as both views (there
    # AutoAugment with Cutout and SimCLR's). The last, smaller batch is kept.
    "paco": Method(
        "PaCo",
        (Stage(on_v(contrast.paco), second="view", begin=partial(queue_up, mlp_32)),),
        V_ALONE,
        {"queue": 1024, "key_momentum": 0.999, "contrast_temperature": 0.05, "key_weight": 0.01},
        learner=Contrast,
        source="Cui et al. 2021",
        about="balanced softmax over classes and keys in one, the keys of the own class counting little",
    ),
    # Partners come from the batch itself and not, as published, from another one, which at factor 100 is drawn like it;
    # other factors are published with other constants. The balanced end predicts. One run on Glyphs-LT ended at 3 %,
    # its loss still falling; why was not looked into.
    "glmc": Method(
        "GLMC",
        (Stage(on_experts(contrast.glmc), second="view", begin=two_ends),),
        V_ALONE,
        {"k": 1.2, "consistency": 4.0},
        learner=Mixing,
        source="Du et al. 2023",
        about="a mixed and a pasted view must agree, while the loss moves from a plain to a class-weighted classifier",
    ),
}
