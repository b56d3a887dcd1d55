"""What is done to a classifier once its features are learned: the losses and projections of the second stages.

Pure functions of logits [B, C], targets [B] and training counts [C]; losses are in nats.
"""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from mbib_core.losses import Counts, Logits, class_weights, self_distillation
from mbib_core.rebalancing import Scalar, Targets, effective_weights


def weighted(logits: Logits, targets: Targets, *, counts: Counts, k: float) -> Scalar:
    """Cross-entropy with the weights n^(-k) of Eq. 7, its mean divided by the sum of weights (DisAlign's GRW loss)."""
    return F.cross_entropy(logits, targets, weight=class_weights(counts, k).to(logits.dtype))


def binary_balanced(logits: Logits, targets: Targets, *, counts: Counts, effective: float) -> Scalar:
    """Weight balancing's loss (Alshammari et al. 2022): a binary cross-entropy of the softmax p of a row.

    The mean over all B x C entries of -w_y log p_y, and -w_y log(1 - p_i) of the others, w the `effective_weights`:
    about C times smaller than a cross-entropy, which matters beside the weight decay.
    """
    log_p, top = logits.log_softmax(1), logits.argmax(1, keepdim=True)
    # 1 - p of the largest is the sum of the others: a difference would have no digits, and no gradient, near p = 1.
    rest = logits.scatter(1, top, -math.inf).logsumexp(1, keepdim=True) - logits.logsumexp(1, keepdim=True)
    log_rest = torch.log1p(-log_p.exp().scatter(1, top, 0.0)).scatter(1, top, rest)
    own = targets[:, None] == torch.arange(logits.shape[1], device=targets.device)
    weights = effective_weights(counts, effective).to(logits.dtype)[targets]
    return -(weights[:, None] * torch.where(own, log_p, log_rest)).mean()


def norm_radius(weight: Float[Tensor, "c d"], share: float) -> Scalar:
    """`share` of the way from the smallest norm of the rows to the largest."""
    norms = weight.norm(dim=1)
    return norms.min() + share * (norms.max() - norms.min())


def max_norm(weight: Float[Tensor, "c d"], radius: float | Scalar) -> Float[Tensor, "c d"]:
    """MaxNorm: rows longer than `radius` are brought to that length."""
    return weight * (radius / weight.norm(dim=1, keepdim=True)).clamp(max=1)


def label_aware_smoothing(
    logits: Logits, targets: Targets, *, counts: Counts, head_smoothing: float, tail_smoothing: float
) -> Scalar:
    """MiSLAS (Zhong et al. 2021): label smoothing whose share eps_y grows with the count of the class.

    Mean of (1 - eps_y) (-log p_y) + eps_y mean_i(-log p_i), eps_y = t + (h - t) sin(pi / 2 (n_y - n_min) / (n_max -
    n_min)): h = `head_smoothing` for the largest class and t = `tail_smoothing` for the smallest.
    """
    n, log_p = counts.to(logits.dtype), logits.log_softmax(1)
    rank = (n - n.min()) / (n.max() - n.min()).clamp(min=1)  # of equal counts 0
    eps = (tail_smoothing + (head_smoothing - tail_smoothing) * torch.sin(math.pi / 2 * rank))[targets]
    return F.nll_loss((1 - eps[:, None]) * log_p, targets) - (eps * log_p.mean(1)).mean()


def agreeing(
    logits: Sequence[Logits], targets: Targets, *, counts: Counts, k: float, self_agreement: float, softness: float
) -> Scalar:
    """(1 - a) of `weighted` and a T^2 KL(mean_m p_T(.|f_m) || p_T(.|f)), after SRepr (Nam et al. 2023).

    The last `logits` are the student's, of the features f; those before are of the same classifier on the features f_m
    of drawn networks, and teach without a gradient. a = `self_agreement`, T = `softness`.
    """
    *members, student = logits
    teacher = torch.stack([m.detach() / softness for m in members]).softmax(2).mean(0).log()
    divergence = self_distillation(teacher, student / softness)
    own = weighted(student, targets, counts=counts, k=k)
    return (1 - self_agreement) * own + self_agreement * softness**2 * divergence
