"""Losses of several answers of one network: of its experts or branches, each with logits [B, C], in nats."""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from mbib_core.losses import Counts, Logits, _mixture, self_distillation
from mbib_core.rebalancing import Scalar, Targets, ldam


def ride(
    logits: Sequence[Logits],
    targets: Targets,
    *,
    counts: Counts,
    progress: float,
    diversity: float,
    tempering: float,
    deferred: float,
    **margins: Any,
) -> Scalar:
    """RIDE (Wang et al. 2021): sum_k { LDAM-DRW(z_k) - diversity Tbar^2 KL(sg[softmax(zbar / T)], softmax(z_k / T)) }.

    z_k are the experts' logits, zbar their mean, T `ride_temperatures` and Tbar their mean; T = 1 until `progress`
    reaches `deferred`. `margins` are `rebalancing.ldam`'s margin, effective and scale.
    """
    together = torch.stack(list(logits)).mean(0)
    temperature = ride_temperatures(counts.to(together.dtype), tempering if progress >= deferred else 0.0)
    own = [ldam(f, targets, counts=counts, progress=progress, deferred=deferred, **margins) for f in logits]
    apart = [temperature.mean() ** 2 * self_distillation(together, f, temperature=temperature) for f in logits]
    return torch.stack(own).sum() - diversity * torch.stack(apart).sum()


def ride_temperatures(counts: Counts, tempering: float) -> Float[Tensor, " c"]:
    """T_i = u_i / max u, u_i = tempering C pi_i + 1 - tempering, pi_i the share of class i: 1 for the largest class."""
    u = 1 + tempering * (counts / counts.sum() * len(counts) - 1)
    return u / u.max()


def sade(logits: Sequence[Logits], targets: Targets, *, counts: Counts, inverse: float) -> Scalar:
    """SADE (Zhang et al. 2022): three experts trained for many, evenly spread and few images of the tail.

    The sum of CE(z_k + d_k), d the three rows of `sade_shifts`.
    """
    shifts = sade_shifts(counts.to(logits[0].dtype), inverse)
    return torch.stack([F.cross_entropy(f + s, targets) for f, s in zip(logits, shifts, strict=True)]).sum()


def sade_shifts(counts: Counts, inverse: float) -> Float[Tensor, "3 c"]:
    """What SADE adds to each expert's logits in training: 0, log pi, log pi - inverse log rpi.

    pi_i is the share of class i, rpi the same shares dealt out in the reverse order, the largest to the rarest class.
    """
    log_share = (counts / counts.sum()).log()
    order = log_share.argsort(stable=True)
    reversed_share = torch.empty_like(log_share).index_copy_(0, order, log_share[order.flip(0)])
    return torch.stack([torch.zeros_like(log_share), log_share, log_share - inverse * reversed_share])


def sade_mbib(
    v_logits: Sequence[Sequence[Logits]],
    z_logits: Sequence[Logits],
    targets: Targets,
    *,
    counts: Counts,
    alphas: Sequence[float],
    beta: float,
    inverse: float,
) -> Scalar:
    """SADE with an MBIB in each expert (appendix G): `losses.mbib` with SADE's shift d_k in place of log n.

    sum_k sum_i alpha_i { CE(v_ki + d_k) + CE(z_k + d_k) + beta KL(sg[softmax v_ki], softmax z_k) }, d_k the rows of
    `sade_shifts`. The appendix has no formula: this one is inferred. `v_logits[k]` are expert k's, shallow to deep.
    """
    shifts = sade_shifts(counts.to(z_logits[0].dtype), inverse)
    terms = []
    for v, z, shift in zip(v_logits, z_logits, shifts, strict=True):
        l_z = F.cross_entropy(z + shift, targets)
        own = [F.cross_entropy(v_i + shift, targets) + l_z + beta * self_distillation(v_i, z) for v_i in v]
        terms.append(_mixture(own, alphas))
    return torch.stack(terms).sum()
