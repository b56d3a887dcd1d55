"""Losses of other methods: pure functions of logits [B, C], targets [B] and training counts [C], in nats."""

import math
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

from mbib_core.losses import Counts, Logits, Loss, _cross_entropy, _widest, balanced_softmax, class_temperatures

Targets = Int[Tensor, " b"]
Scalar = Float[Tensor, ""]


def effective_weights(counts: Counts, effective: float) -> Float[Tensor, " c"]:
    """w_i proportional to (1 - e) / (1 - e^n_i) with mean 1, e = `effective` (Cui et al. 2019, class-balanced loss).

    In float64 (float32 on Apple's GPUs). From e = 0, where all are 1, to e = 1, where they are proportional to 1 / n_i.
    """
    n = _widest(counts)
    log_e = math.log(effective) if effective else -math.inf
    w = -1 / torch.expm1(n * log_e) if log_e else 1 / n
    return w * len(n) / w.sum()


def focal(logits: Logits, targets: Targets, *, focus: float, reduction: str = "mean") -> Loss:
    """Mean of (1 - p_y)^focus (-log p_y), p the softmax (Lin et al. 2017; focus 1 as in LDAM's comparison)."""
    return _reduced(_focused(F.cross_entropy(logits, targets, reduction="none"), focus), reduction)


def class_balanced(
    logits: Logits,
    targets: Targets,
    *,
    counts: Counts,
    effective: float,
    progress: float = 0.0,
    deferred: float = 0.0,
    **options: Any,
) -> Loss:
    """Cross-entropy weighted by `effective_weights` (Cui et al. 2019), once `progress` reaches `deferred` (DRW).

    The mean is divided by the batch's sum of weights. `options` are `label_smoothing` and `reduction`.
    """
    weights = effective_weights(counts, effective).to(logits.dtype) if progress >= deferred else None
    return _cross_entropy(logits, targets, weights, **options)


def class_balanced_focal(
    logits: Logits, targets: Targets, *, counts: Counts, focus: float, effective: float, reduction: str = "mean"
) -> Loss:
    """Focal loss of one sigmoid a class, times the weight of the image's class (Cui et al. 2019).

    w_y sum_c (1 - p_c)^focus (-log p_c), where p_c is sigmoid(z_c) of the image's class and 1 - sigmoid(z_c) of all
    others; w are the `effective_weights`, all 1 at `effective` = 0. The mean is one over images.
    """
    nats = F.softplus(torch.where(_one_hot(targets, counts), -logits, logits))
    weights = effective_weights(counts, effective).to(logits.dtype)
    return _reduced(weights[targets] * _focused(nats, focus).sum(1), reduction)


def ldam(
    logits: Logits,
    targets: Targets,
    *,
    counts: Counts,
    progress: float,
    margin: float,
    deferred: float,
    effective: float,
    scale: float = 30.0,
    **options: Any,
) -> Loss:
    """LDAM-DRW (Cao et al. 2019): the logit of the own class is lowered by scale * margin * (n_min / n_y)^(1/4).

    `logits` are `scale` times cosines, so that the rarest class must win by a cosine of `margin`. Once `progress`
    reaches `deferred`, the classes are weighed as in `class_balanced`, whose `options` it takes.
    """
    margins = margin * (counts.min() / counts.to(logits.dtype)) ** 0.25
    lowered = logits - scale * margins * _one_hot(targets, counts)
    return class_balanced(
        lowered, targets, counts=counts, effective=effective, progress=progress, deferred=deferred, **options
    )


def vector_scaling(
    logits: Logits, targets: Targets, *, counts: Counts, gamma: float, tau: float, **options: Any
) -> Loss:
    """VS loss (Kini et al. 2021): cross-entropy of z_i / (n_max / n_i)^gamma + tau log n_i. The test takes z itself.

    tau = 0 is CDT (Ye et al. 2020), gamma = 0 logit adjustment (Menon et al. 2021), which at tau = 1 is the balanced
    softmax. Targets may be soft; `options` are `label_smoothing` and `reduction`.
    """
    scaled = logits / class_temperatures(counts, gamma).to(logits.dtype)
    return balanced_softmax(scaled, targets, counts=counts, tau=tau, **options)


def lade(logits: Logits, targets: Targets, *, counts: Counts, lader: float, lader_square: float) -> Scalar:
    """LADE (Hong et al. 2021): the balanced softmax plus `lader` sum_c pi_c (r_c + `lader_square` r_c^2 - s_c).

    pi_c is the share of class c, s_c the mean of z_c over the batch's images of class c, 0 without any, and
    r_c = log( mean_i exp z_ic / (C pi_c) ) over all images i of the batch: with LADER, the second term, z_c itself
    comes to estimate log p(x|c) / p(x) of evenly spread classes.
    """
    share = counts.to(logits.dtype) / counts.sum()
    own = _one_hot(targets, counts).to(logits.dtype)
    at_own = (own * logits).sum(0) / own.sum(0).clamp(min=1)
    estimate = logits.logsumexp(0) - math.log(logits.numel()) - share.log()
    regulariser = (share * (estimate + lader_square * estimate**2 - at_own)).sum()
    return balanced_softmax(logits, targets, counts=counts) + lader * regulariser


def seesaw(
    logits: Logits, targets: Targets, *, counts: Counts, mitigation: float, compensation: float, **options: Any
) -> Loss:
    """Seesaw loss (Wang et al. 2021): each other class c weighs min(1, n_c / n_y)^mitigation times
    max(1, p_c / p_y)^compensation in the softmax: less if it is rarer, more if the network takes it for the answer.

    p is the softmax, without gradient, and p_y at least 0.01. `options` are `label_smoothing` and `reduction`.
    """
    log_n, log_p = counts.to(logits.dtype).log(), logits.detach().log_softmax(1)
    rarer = (log_n - log_n[targets, None]).clamp(max=0)
    surer = (log_p - log_p.gather(1, targets[:, None]).clamp(min=math.log(0.01))).clamp(min=0)
    return _cross_entropy(logits + mitigation * rarer + compensation * surer, targets, None, **options)


def _focused(nats: Tensor, focus: float) -> Tensor:
    """(1 - p)^focus (-log p), given -log p."""
    doubt = -torch.expm1(-nats)  # 1 - p; the slope of a root at 0 would be infinite
    return doubt.clamp(min=torch.finfo(nats.dtype).tiny) ** focus * nats


def _one_hot(targets: Targets, counts: Counts) -> Bool[Tensor, "b c"]:
    return targets[:, None] == torch.arange(len(counts), device=targets.device)


def _reduced(each: Float[Tensor, " b"], reduction: str) -> Loss:
    if reduction == "none":
        return each
    return each.mean() if reduction == "mean" else each.sum()
