"""Losses of other methods: pure functions of logits [B, C], targets [B] and training counts [C], in nats."""

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from mbib_core.losses import Counts, Logits

Targets = Int[Tensor, " b"]
Scalar = Float[Tensor, ""]


def effective_weights(counts: Counts, effective: float) -> Float[Tensor, " c"]:
    """w_i proportional to (1 - e) / (1 - e^n_i) with mean 1, e = `effective` (Cui et al. 2019, class-balanced loss).

    In float64. From e = 0, where all are 1, to e = 1, where they are proportional to 1 / n_i.
    """
    n = counts.double()
    log_e = math.log(effective) if effective else -math.inf
    w = -1 / torch.expm1(n * log_e) if log_e else 1 / n
    return w * len(n) / w.sum()


def focal(logits: Logits, targets: Targets, *, focus: float) -> Scalar:
    """Mean of (1 - p_y)^focus (-log p_y), p the softmax (Lin et al. 2017; focus 1 as in LDAM's comparison)."""
    nats = F.cross_entropy(logits, targets, reduction="none")
    doubt = -torch.expm1(-nats)  # 1 - p_y; the slope of a root at 0 would be infinite
    return (doubt.clamp(min=torch.finfo(nats.dtype).tiny) ** focus * nats).mean()


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
) -> Scalar:
    """LDAM-DRW (Cao et al. 2019): the logit of the own class is lowered by scale * margin * (n_min / n_y)^(1/4).

    `logits` are `scale` times cosines, so that the rarest class must win by a cosine of `margin`. Once `progress`
    reaches `deferred`, the classes are weighed by `effective_weights`; the mean is divided by the sum of weights.
    """
    margins = margin * (counts.min() / counts.to(logits.dtype)) ** 0.25
    own = targets[:, None] == torch.arange(len(counts), device=targets.device)
    weights = effective_weights(counts, effective).to(logits.dtype) if progress >= deferred else None
    return F.cross_entropy(logits - scale * margins * own, targets, weight=weights)
