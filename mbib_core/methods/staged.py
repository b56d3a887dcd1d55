"""Other methods that train a network first and balance its classifier afterwards.

All are trained by this project's schedules (its weight decay, crop and flip): the comparison is of methods, not of
recipes. Their networks pool, normalise and classify as the plain network of the paper does.
"""

from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn

from mbib_core import classifiers
from mbib_core.averages import LATE, renew_batch_norm
from mbib_core.batches import Batch
from mbib_core.data.longtailed import Images
from mbib_core.devices import autocast
from mbib_core.evaluation import answers
from mbib_core.learners import Learner, Loss
from mbib_core.methods.method import Method, Stage, on_experts, on_v, redraw
from mbib_core.methods.paper import CE, V_ALONE
from mbib_core.networks import Network, Outputs
from mbib_core.ranks import gathered

V = "v_classifiers.0"
PLAIN = ("backbone", "observe", f"{V}.weight", f"{V}.bias")  # all but what a later stage adds to the classifier


@torch.no_grad()
def normalise(learner: Learner, *, norm_power: float, **_own: Any) -> None:
    """Divides each row of the deepest classifier by its norm to the power `norm_power`, and drops the bias."""
    classifiers: Any = learner.network.v_classifiers
    classifier = classifiers[-1]
    classifier.weight.div_(classifier.weight.norm(dim=1, keepdim=True) ** norm_power)
    classifier.bias.zero_()


def class_means(learner: Learner, *, images: Images, **_own: Any) -> None:
    """Fits `heads.Nearest` to the features of all training images, as they are."""
    network: Any = learner.network
    found, y = answers(network, images)
    network.v_classifiers[-1].fit(found["features/v"], y)


def fix_radius(learner: Learner, *, radius: float, **_own: Any) -> None:
    """The bound on the norms of classifier rows is that of the first stage's rows."""
    network: Any = learner.network
    found = classifiers.norm_radius(network.v_classifiers[-1].weight.detach(), radius)
    learner.register_buffer("largest_norm", found)


@torch.no_grad()
def project(learner: Learner, **_own: Any) -> None:
    """MaxNorm on the rows of the classifier; the bias is left alone."""
    kept: Any = learner
    weight = kept.network.v_classifiers[-1].weight
    weight.copy_(classifiers.max_norm(weight, kept.largest_norm))


def debiased(outputs: Outputs, counts: Tensor) -> dict[str, Tensor]:
    """v's logits less the log shares of the classes, and as they are."""
    v = outputs.v_logits[-1]
    return {"adjusted": v - (counts / counts.sum()).log(), "v": v}


class Drawing(Learner):
    """Moments of the weights over the last epochs of a stage, and networks drawn from them (SWA-Gaussian, Maddox et al.
    2019, without its matrix of low rank)."""

    still = ("members",)
    mean: Tensor
    squares: Tensor  # sums of squared distances to the mean: they keep the digits that E x^2 - (E x)^2 would lose
    seen: Tensor

    def __init__(self, network: nn.Module, *given: Any, **more: Any):
        super().__init__(network, *given, **more)
        zeros = torch.zeros(sum(p.numel() for p in network.parameters()))
        for name, value in (("mean", zeros), ("squares", zeros.clone()), ("seen", torch.zeros(()))):
            self.register_buffer(name, value)
        self.members = nn.ModuleList()

    def see(self) -> None:
        weights = torch.cat([p.detach().reshape(-1) for p in self.network.parameters()])
        self.seen += 1
        before = weights - self.mean
        self.mean += before / self.seen
        self.squares += before * (weights - self.mean)

    def forward(self, batch: Batch, loss: Loss, progress: float) -> Tensor:
        outputs, network = self.outputs(batch.x), self.network
        with torch.no_grad(), autocast(batch.x.device, self.precision):
            features: Any = [member(batch.x).observations[-1] for member in self.members]
        classifier: Any = network.v_classifiers[-1]  # type: ignore[index]
        outputs = outputs._replace(v_logits=(*map(classifier, features), *outputs.v_logits))
        return loss(gathered(outputs), gathered(batch.y), counts=self.counts, progress=progress)


def see_late(learner: Any, *, progress: float, **_own: Any) -> None:
    if progress >= LATE:
        learner.see()


def take_mean(learner: Any, *, images: Images, **_own: Any) -> None:
    """Puts the mean of the weights into the network, with batch norm of its own."""
    if not learner.seen:  # a stage of a single epoch has none that is late
        learner.see()
    _write(learner.network, learner.mean, images)


def draw_members(learner: Any, *, images: Images, **_own: Any) -> None:
    """Ten networks from the Gaussian of the moments, each with batch norm of its own; and a new classifier."""
    learner.members = nn.ModuleList(deepcopy(learner.network) for _ in range(10))
    redraw(learner)
    if learner.seen:  # when a run resumes nothing is seen yet, and the members come from the checkpoint
        for member in learner.members:
            deviation = (learner.squares / learner.seen).sqrt()
            _write(member, learner.mean + deviation * torch.randn_like(deviation), images)


@torch.no_grad()
def _write(network: nn.Module, weights: Tensor, images: Images) -> None:
    parameters = list(network.parameters())
    for parameter, part in zip(parameters, weights.split([p.numel() for p in parameters]), strict=True):
        parameter.copy_(part.view(parameter.shape))
    renew_batch_norm(network, images)


STEPS = {"decay": 0.1, "drops": (1 / 3, 2 / 3), "warm_up": 6.0}
DOWN = {"cosine": True, "warm_up": 1e6}  # from the full rate in the first epoch

STAGED: dict[str, Method] = {
    # Thirty of 200 epochs, rate / 10 after a third and two thirds of them, as BagofTricks-LT has it. Here batch norm
    # stands still with the features; there it follows the class-balanced images.
    "crt": Method(
        "cRT",
        (
            CE,
            Stage(
                CE.loss,
                q=0.0,
                trains=("v_classifiers",),
                begin=redraw,
                epochs=0.15,
                recipe=STEPS,
            ),
        ),
        V_ALONE,
        source="Kang et al. 2020",
        about="The features of cross-entropy stay, and a new classifier is learned on class-balanced images.",
    ),
    # As cRT, but for the classifier, of which nothing is drawn anew.
    "lws": Method(
        "LWS",
        (Stage(CE.loss, trains=PLAIN), Stage(CE.loss, q=0.0, trains=(f"{V}.scale",), epochs=0.15, recipe=STEPS)),
        Network(with_z=False, head="scaled"),
        source="Kang et al. 2020",
        about="A factor for each class's logit is learned on class-balanced images, all else as cross-entropy left it.",
    ),
    # 0.7 is a starting value: Kang et al. choose it on validation images.
    "tau-norm": Method(
        "tau-norm",
        (Stage(CE.loss, end=normalise),),
        V_ALONE,
        {"norm_power": 0.7},
        source="Kang et al. 2020",
        about="Rows of the classifier that cross-entropy learned are divided by their norm to a power.",
    ),
    # The features are batch-normalised here and may be negative; there they are pooled behind a ReLU.
    "ncm": Method(
        "NCM",
        (Stage(CE.loss, end=class_means),),
        Network(with_z=False, head="nearest"),
        source="Kang et al. 2020",
        about="The features of cross-entropy, classified by the nearest class mean of centred features of length 1.",
    ),
    # alpha starts from 1, the paper's form; the official code begins at (1 + s) z. Its 10 of 90 epochs are 0.05 here,
    # as in the other second stages on CIFAR; k is its rho of ImageNet-LT. Batch norm stands still: inferred.
    "disalign": Method(
        "DisAlign",
        (
            Stage(CE.loss, trains=PLAIN),
            Stage(
                on_v(classifiers.weighted),
                trains=tuple(f"{V}.{name}" for name in ("alpha", "beta", "a")),
                epochs=0.05,
                recipe=DOWN,
            ),
        ),
        Network(with_z=False, head="aligned"),
        {"k": 1.2},
        source="Zhang et al. 2021",
        about="A shift and a factor of each class's logits, as strong as the image asks for, are learned afterwards.",
    ),
    # Stage 2 has the published rate, decay and cosine. Published results are of a ResNet-34 of 21 million parameters,
    # of batches of 64, and answer with the mean over an image and its mirror image: none of these here.
    "weight-balancing": Method(
        "weight balancing",
        (
            Stage(CE.loss, recipe={"weight_decay": 5e-3}),
            Stage(
                on_v(classifiers.binary_balanced),
                trains=("v_classifiers",),
                begin=fix_radius,
                each_epoch=project,
                epochs=0.05,
                recipe=DOWN | {"rate": 0.01, "weight_decay": 0.1},
            ),
        ),
        V_ALONE,
        {"effective": 0.9999, "radius": 0.1},
        source="Alshammari et al. 2022",
        about="A large weight decay on all, then one on the classifier with a bound on its norms and a balanced loss.",
    ),
    # Mixtures are rounded to whole grey levels. The smoothing is that of factor 100. What class-aware sampling deals
    # without replacement is drawn with replacement here, in the same shares. Batch norm follows these images ("shift
    # batch norm"). The drops of stage 1 are this project's (there x 0.1).
    "mislas": Method(
        "MiSLAS",
        (
            Stage(CE.loss, trains=PLAIN, recipe={"augmentation": "mixup"}),
            Stage(
                on_v(classifiers.label_aware_smoothing),
                q=0.0,
                trains=("v_classifiers",),
                statistics_move=True,
                rates={f"{V}.scale": 1.0, V: 0.2},
                epochs=0.05,
                recipe=DOWN,
            ),
        ),
        Network(with_z=False, head="scaled"),
        {"head_smoothing": 0.4, "tail_smoothing": 0.1},
        source="Zhong et al. 2021",
        about="Mixup, then a classifier on class-balanced images with labels that are smoothed most for large classes.",
    ),
    # The published network has a layer of 256 features before the frame, 600 epochs and AutoAugment: none of these
    # here. With fewer classes than features the frame has as many directions as features, as published.
    "rbl": Method(
        "RBL",
        (CE,),
        Network(with_z=False, head="rotated"),
        predict=debiased,
        source="Gao et al. 2023",
        about="The classifier is a frame of equal angles of which the rotation alone is learned; the prior is removed.",
    ),
    # Made after the abstract: no code was found. Inferred: when and at which rate weights are averaged, no matrix of
    # low rank, ten networks, the new classifier and its weights n^-k, share and temperature of the agreement, epochs.
    "srepr": Method(
        "after SRepr",
        (
            Stage(CE.loss, each_epoch=see_late, end=take_mean, recipe={"decay": 0.5, "drops": (LATE,)}),
            Stage(
                on_experts(classifiers.agreeing),
                trains=("v_classifiers",),
                begin=draw_members,
                epochs=0.05,
                recipe=DOWN,
            ),
        ),
        V_ALONE,
        {"k": 1.0, "self_agreement": 0.5, "softness": 2.0},
        learner=Drawing,
        source="Nam et al. 2023",
        about="A classifier on averaged weights that must answer alike on features of networks drawn around them.",
    ),
}
