"""Rates of stochastic bottlenecks: what z keeps of an observation, in nats, as the losses of other methods price it."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from mbib_core.losses import Logits

Scalar = Float[Tensor, ""]


def gaussian_rate(mean: Float[Tensor, "b d"], deviation: Float[Tensor, "b d"]) -> Scalar:
    """VIB's rate, mean over images of KL( N(mean, deviation^2) || N(0, 1) ) >= I(X; Z) (Alemi et al. 2017)."""
    return 0.5 * (deviation**2 + mean**2 - 1 - 2 * deviation.log()).sum(1).mean()


def pairwise_rate(h: Float[Tensor, "b d"], variance: Scalar | float, *, upper: bool = True) -> Scalar:
    """A bound on I(X; T) of T = h + N(0, variance) over the B images: log B - mean_i log sum_j exp(-|h_i - h_j|^2 / w).

    w = 2 variance bounds it from above and is what the nonlinear IB prices, w = 8 variance from below (Kolchinsky et
    al. 2019; Kolchinsky & Tracey 2017). Between 0 and log B: a batch cannot tell more apart than its images.
    """
    # The square of a difference, not |a|^2 + |b|^2 - 2 a b: that is not 0 for an image and itself in float32.
    distance = (h[:, None] - h[None]).square().sum(2)
    return math.log(max(1, len(h))) - (-distance / ((2 if upper else 8) * variance)).logsumexp(1).mean()


def drop_rate(entropy: Float[Tensor, " d"], drop: Float[Tensor, " d"]) -> Scalar:
    """Drop-bottleneck's rate sum_j H_j (1 - p_j) >= I(X; Z), p = `drop` the chance to lose j (Kim et al. 2021)."""
    return (entropy * (1 - drop)).sum()


def histogram_entropy(x: Float[Tensor, "b d"], bins: int = 32) -> Float[Tensor, " d"]:
    """Entropy of each coordinate over the batch, binned evenly from its smallest to its largest value; no gradient."""
    x = x.detach()
    low, high = x.aminmax(dim=0)
    place = ((x - low) / (high - low).clamp(min=torch.finfo(x.dtype).tiny) * bins).long().clamp(max=bins - 1)
    share = torch.zeros(bins, x.shape[1], dtype=x.dtype, device=x.device)
    share = share.scatter_add(0, place, torch.full_like(x, 1 / len(x)))
    return -torch.special.xlogy(share, share).sum(0)


def keep_mask(
    drop_logits: Float[Tensor, " d"], uniform: Float[Tensor, "b d"], temperature: float = 0.1
) -> Float[Tensor, "b d"]:
    """A relaxed draw of what is kept: 1 - sigmoid( (logit p + logit u) / temperature ), near 1 with chance 1 - p."""
    return 1 - ((drop_logits + uniform.logit()) / temperature).sigmoid()


def published_distillation(teacher_logits: Logits, student_logits: Logits, *, temperature: float = 1.0) -> Scalar:
    """What VSD's published code computes in place of KL(p || q): the mean over all B x C entries of q (log q - p).

    p is the teacher's posterior without gradient, q the student's. Its smallest value is at q = softmax(p), nearly
    uniform whatever the teacher says, and not at q = p.
    """
    p = (teacher_logits.detach() / temperature).softmax(1)
    log_q = (student_logits / temperature).log_softmax(1)
    return (log_q.exp() * (log_q - p)).mean()
