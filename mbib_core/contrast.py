"""Losses against what is kept or moved: a teacher, a queue of keys, targets on the sphere, a classifier a class moves.

Pure functions of logits [B, C], targets [B], training counts [C] and unit features [B, D], in nats. `q` are features
of the images and have gradients, `k` those of other views of them; `keys` [K, D] are features of earlier images with
their `key_labels` [K], -1 where there is no image.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from mbib_core.losses import Counts, Logits, balanced_softmax
from mbib_core.rebalancing import Scalar, Targets

Features = Float[Tensor, "b d"]
Keys = Float[Tensor, "k d"]


def dive(
    logits: Logits,
    targets: Targets,
    *,
    teacher: Logits,
    counts: Counts,
    distil_temperature: float,
    distil_share: float,
) -> Scalar:
    """DiVE (He et al. 2021): (1 - a) BSCE + a T^2 KL(t, softmax(logits / T)), a = `distil_share`.

    The virtual examples t are softmax(teacher / T)^(1/2), made to sum to 1. No gradient reaches the teacher.
    """
    t = distil_temperature
    log_virtual = (teacher.detach() / (2 * t)).log_softmax(1)
    log_p = (logits / t).log_softmax(1)
    divergence = F.kl_div(log_p, log_virtual, reduction="batchmean", log_target=True)
    return (1 - distil_share) * balanced_softmax(logits, targets, counts=counts) + distil_share * t**2 * divergence


def cc_sam(
    logits: Logits,
    targets: Targets,
    *,
    features: Float[Tensor, "b d"],
    weight: Float[Tensor, "c d"],
    bias: Float[Tensor, " c"],
    counts: Counts,
    class_noise: float,
    flat: float = 0.5,
) -> Scalar:
    """CC-SAM's first stage (Zhou et al. 2023): (1 - flat) CE + flat CE with the classifier moved for each class.

    For the rows of class c, `weight` and `bias` go along the gradient of the class' mean loss, each of them t by
    class_noise (|head| / |g_t|)^(1/2) (P / (n_c - 1))^(1/4) / 2^(1/2): P the number of parameters in both, |head| their
    norm. The move itself has no gradient. A class with one image, where that is infinite, moves as one with two.
    """
    with torch.no_grad():
        error, same = _class_errors(logits, targets)
        # The moved logits need g_weight f = sum_j error_j (f_j . f) over the class, never the [C, C, D] gradients.
        g_weight = _norms((error @ error.T) * (features @ features.T), same)
        g_bias = _norms(error @ error.T, same)
        size = weight.numel() + bias.numel()
        head = (weight.square().sum() + bias.square().sum()).sqrt()
        room = (size / (counts[targets].to(logits.dtype) - 1).clamp(min=1)) ** 0.25 / math.sqrt(2)
        far_weight, far_bias = (class_noise * (head / g).sqrt() * room / g for g in (g_weight, g_bias))
    moved = logits + far_weight[:, None] * (((features @ features.detach().T) * same) @ error)
    moved = moved + far_bias[:, None] * (same @ error)
    return (1 - flat) * F.cross_entropy(logits, targets) + flat * F.cross_entropy(moved, targets)


def cc_sam_head(
    logits: Logits,
    targets: Targets,
    *,
    weight: Float[Tensor, "c d"],
    counts: Counts,
    progress: float,
    first: float = 1 / 30,
    most: float = 0.3,
) -> Scalar:
    """CC-SAM's second stage: (1 - a) mean l + a mean w_y l'', a = min(progress + `first`, `most`).

    w_c = log(n_max / n_c + 0.01) / 2; l'' is the cross-entropy at features that go by w_c along the gradient of the
    class' mean loss, which has norm 1 over all rows of the class. The move itself has no gradient.
    """
    w = ((counts.max() / counts.to(logits.dtype) + 0.01).log() / 2)[targets]
    with torch.no_grad():
        error, same = _class_errors(logits, targets)
        uphill = error @ weight
        move = uphill * (w / (same @ uphill.square().sum(1)).clamp(min=_tiny(logits)).sqrt())[:, None]
    nats = F.cross_entropy(logits, targets, reduction="none")
    there = F.cross_entropy(logits + move @ weight.T, targets, reduction="none")
    a = min(progress + first, most)
    return ((1 - a) * nats + a * w * there).mean()


def _class_errors(logits: Logits, targets: Targets) -> tuple[Logits, Float[Tensor, "b b"]]:
    """The gradient of each class' mean cross-entropy at the logits of its rows; which rows are of one class."""
    same = (targets[:, None] == targets).to(logits.dtype)
    own = targets[:, None] == torch.arange(logits.shape[1], device=targets.device)
    return (logits.softmax(1) - own.to(logits.dtype)) / same.sum(1, keepdim=True), same


def _norms(products: Float[Tensor, "b b"], same: Float[Tensor, "b b"]) -> Float[Tensor, " b"]:
    """Of sums over the rows of each row's class, from the inner products of all rows."""
    squares = ((same @ products) * same).sum(1)
    return squares.clamp(min=_tiny(products)).sqrt()


def _tiny(x: Tensor) -> float:
    return torch.finfo(x.dtype).tiny
