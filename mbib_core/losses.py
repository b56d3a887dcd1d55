"""Section 3 of the paper in code: balanced softmax, class weights, self-distillation, BIB and MBIB.

Pure functions of logits [B, C], targets [B] and the training counts [C]; shapes and devices are not checked, and
half-precision logits are computed in float32. `criteria.BIBLoss` and `criteria.MBIBLoss` hold the counts and the
settings for use in any training loop, and check what they are given.
Eqs. 18 to 25 (appendix A) derive `balanced_softmax`; Eq. 13 is the aim of `self_distillation`.
"""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float, Int, Real
from torch import Tensor
from torch.nn import functional as F

Logits = Float[Tensor, "b c"]
Targets = Int[Tensor, " b"]
Counts = Real[Tensor, " c"]
Scalar = Float[Tensor, ""]


def class_weights(counts: Counts, k: float) -> Float[Tensor, " c"]:
    """w_i = C n_i^(-k) / sum_j n_j^(-k), Eq. 7 (Du et al. 2023): mean 1, all equal at k = 0."""
    log_w = -k * counts.double().log()
    return log_w.softmax(0) * len(counts)


def class_temperatures(counts: Counts, gamma: float) -> Float[Tensor, " c"]:
    """T_i = (n_1 / n_i)^gamma, the class-dependent temperature of Eq. 8: 1 for the largest class, all 1 at gamma = 0.

    The paper's formula is lost; this is the form of CDT (Ye et al. 2020), a choice of this project.
    """
    return (counts.max() / counts.float()) ** gamma


def balanced_softmax(logits: Logits, targets: Targets, *, counts: Counts, k: float = 0.0, tau: float = 1.0) -> Scalar:
    """Weighted cross-entropy of the training posterior p_s(i|v) = n_i exp f_i / sum_j n_j exp f_j, Eqs. 4 to 7.

    `logits` f(v) are those of the balanced posterior p_t(i|v): nothing is added to them at test time (Ren et al.
    2020). `counts` [C] are training pictures a class, `k` the exponent of the class weights. The mean is weighted
    as in PyTorch's cross_entropy: divided by the batch's sum of weights. `tau` scales the adjustment, tau log n_i
    (Menon et al. 2021): 0 leaves it out, and tau = 1 - k is the pair that stays consistent with weights n^(-k).
    Returns a scalar in nats.
    """
    logits = _full(logits)
    weights = class_weights(counts, k).to(logits.dtype) if k else None
    return F.cross_entropy(logits + tau * counts.to(logits.dtype).log(), targets, weight=weights)


def self_distillation(
    teacher_logits: Logits, student_logits: Logits, *, temperature: float | Float[Tensor, " c"] = 1.0
) -> Scalar:
    """E KL( sg[p_T(.|v)] || p_T(.|z) ), Eq. 8, with p_T = softmax(logits / temperature).

    No gradient reaches the teacher. `temperature` is a number or one per class [C]. Returns a scalar in nats.
    """
    log_p = (_full(teacher_logits.detach()) / temperature).log_softmax(1)
    log_q = (_full(student_logits) / temperature).log_softmax(1)
    return F.kl_div(log_q, log_p, reduction="batchmean", log_target=True)


def bib(
    v_logits: Logits,
    z_logits: Logits,
    targets: Targets,
    *,
    counts: Counts,
    beta: float,
    k: float = 0.0,
    gamma: float = 0.0,
    tau: float = 1.0,
) -> Scalar:
    """L_BIB = L_v + L_z + beta L_VSD, Eq. 9: two balanced classifiers and the distillation of v's into z's.

    This `beta` prices the agreement of p(y|z) with p(y|v); it is not the beta of Eq. 1. Every row counts in L_VSD, so
    take out pictures without a label: PyTorch's ignore_index would leave them out of L_v and L_z alone. Returns a
    scalar in nats.
    """
    l_v = balanced_softmax(v_logits, targets, counts=counts, k=k, tau=tau)
    l_z = balanced_softmax(z_logits, targets, counts=counts, k=k, tau=tau)
    temperature = class_temperatures(counts, gamma) if gamma else 1.0
    l_vsd = self_distillation(v_logits, z_logits, temperature=temperature)
    return l_v + l_z + beta * l_vsd


def mbib(
    v_logits: Sequence[Logits],
    z_logits: Logits,
    targets: Targets,
    *,
    counts: Counts,
    alphas: Sequence[float],
    **settings: Any,
) -> Scalar:
    """L_MBIB = sum_i alpha_i L_BIBi, Eqs. 11 and 12: one BIB from each observation (shallow to deep) into one z.

    `alphas` weigh all observations but the deepest, which gets what is left of 1. Alphas of 0 give BIB. `settings`
    are `bib`'s: beta, k, gamma, tau. Raises ValueError if there is not one alpha for each shallow observation.
    Returns a scalar in nats.
    """
    terms = [bib(v_i, z_logits, targets, counts=counts, **settings) for v_i in v_logits]
    return _mixture(terms, alphas)


def se_mbib(
    v_logits: Sequence[Logits],
    z_logits: Logits,
    targets: Targets,
    *,
    counts: Counts,
    alphas: Sequence[float],
    **settings: Any,
) -> Scalar:
    """SE-MBIB (appendix F): BIBs between neighbours, (v_1, v_2), (v_2, v_3), (v_3, z), the first of each the teacher.

    Inferred: the pairs are weighed as in Eq. 11. Arguments, errors and result as in `mbib`.
    """
    students = [*v_logits[1:], z_logits]
    pairs = zip(v_logits, students, strict=True)
    return _mixture([bib(t, s, targets, counts=counts, **settings) for t, s in pairs], alphas)


def all_mbib(v_logits: Sequence[Logits], z_logits: Logits, targets: Targets, **settings: Any) -> Scalar:
    """ALL-MBIB (appendix F): the BIBs of MBIB and of SE-MBIB together. Inferred: half of each, so weights sum to 1."""
    pair = [loss(v_logits, z_logits, targets, **settings) for loss in (mbib, se_mbib)]
    return torch.stack(pair).mean()


def deepest_mbib(
    v_logits: Sequence[Logits], z_logits: Logits, targets: Targets, *, counts: Counts, beta: float, **settings: Any
) -> Scalar:
    """A control that the paper lacks: MBIB's classifiers, but z is taught by the deepest observation alone."""
    gamma = settings.get("gamma", 0.0)
    temperature = class_temperatures(counts, gamma) if gamma else 1.0
    supervised = mbib(v_logits, z_logits, targets, counts=counts, beta=0.0, **settings)
    return supervised + beta * self_distillation(v_logits[-1], z_logits, temperature=temperature)


def _mixture(terms: Sequence[Scalar], alphas: Sequence[float]) -> Scalar:
    if len(alphas) != len(terms) - 1:
        raise ValueError(
            f"{len(terms)} observations need {len(terms) - 1} alphas, not {len(alphas)}: one for each but the deepest"
        )
    shares = [*alphas, 1 - sum(alphas)]
    return torch.stack([share * term for share, term in zip(shares, terms, strict=True)]).sum()


def _full(logits: Tensor) -> Tensor:
    return logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits
