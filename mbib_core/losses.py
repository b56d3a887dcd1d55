"""Section 3 of the paper in code: balanced softmax, class weights, self-distillation, BIB and MBIB.

Pure functions of logits [B, C], targets [B] and the training counts [C]. Shapes and devices are not checked, and
half-precision logits are computed in float32. `criteria.BIBLoss` and `criteria.MBIBLoss` hold the counts and the
settings for use in any training loop, and check their input.
Targets are class numbers [B] or soft targets [B, C], the rows of which sum to 1 (mixup, CutMix). `label_smoothing` and
`reduction` ("mean", "sum" or "none", a number for each picture [B]) are PyTorch's.
Eqs. 18 to 25 (appendix A) derive `balanced_softmax`; Eq. 13 is the aim of `self_distillation`.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float, Int, Real
from torch import Tensor
from torch.nn import functional as F

Logits = Float[Tensor, "b c"]
Targets = Int[Tensor, " b"] | Float[Tensor, "b c"]
Counts = Real[Tensor, " c"]
Loss = Float[Tensor, "*b"]  # a scalar, or [B] with reduction="none"


def class_weights(counts: Counts, k: float) -> Float[Tensor, " c"]:
    """w_i = C n_i^(-k) / sum_j n_j^(-k), Eq. 7 (Du et al. 2023): mean 1, all equal at k = 0."""
    log_w = -k * _widest(counts).log()
    return log_w.softmax(0) * len(counts)


def class_temperatures(counts: Counts, gamma: float) -> Float[Tensor, " c"]:
    """T_i = (n_1 / n_i)^gamma, the class-dependent temperature of Eq. 8: 1 for the largest class, all 1 at gamma = 0.

    The paper's formula is lost; this is the form of CDT (Ye et al. 2020), a choice of this project.
    """
    return (counts.max() / counts.float()) ** gamma


def balanced_softmax(
    logits: Logits, targets: Targets, *, counts: Counts, k: float = 0.0, tau: float = 1.0, **options: Any
) -> Loss:
    """Weighted cross-entropy of the training posterior p_s(i|v) = n_i exp f_i / sum_j n_j exp f_j, Eqs. 4 to 7.

    `logits` f(v) are those of the balanced posterior p_t(i|v): nothing is added to them at test time (Ren et al.
    2020). `counts` [C] are training pictures a class, `k` the exponent of the class weights. The mean is weighted
    as in PyTorch's cross_entropy: divided by the batch's sum of weights. `tau` scales the adjustment, tau log n_i
    (Menon et al. 2021): 0 leaves it out, and tau = 1 - k is the pair that stays consistent with weights n^(-k).
    `options` are `label_smoothing` and `reduction`. Returns a scalar in nats.
    """
    logits = _full(logits)
    weights = class_weights(counts, k).to(logits.dtype) if k else None
    return _cross_entropy(logits + tau * counts.to(logits.dtype).log(), targets, weights, **options)


def self_distillation(
    teacher_logits: Logits,
    student_logits: Logits,
    *,
    temperature: float | Float[Tensor, " c"] = 1.0,
    reduction: str = "mean",
) -> Loss:
    """E KL( sg[p_T(.|v)] || p_T(.|z) ), Eq. 8, with p_T = softmax(logits / temperature).

    No gradient reaches the teacher. `temperature` is a number or one per class [C]. Returns a scalar in nats.
    """
    log_p = (_full(teacher_logits.detach()) / temperature).log_softmax(1)
    log_q = (_full(student_logits) / temperature).log_softmax(1)
    p = log_p.exp()
    divergence = torch.where(p > 0, p * (log_p - log_q), 0.0)  # 0 log 0 = 0: a masked class has a logit of -inf
    if reduction == "none":
        return divergence.sum(1)
    return divergence.sum() / len(p) if reduction == "mean" else divergence.sum()


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
    label_smoothing: float = 0.0,
    reduction: str = "mean",
) -> Loss:
    """L_BIB = L_v + L_z + beta L_VSD, Eq. 9: two balanced classifiers and the distillation of v's into z's.

    This `beta` prices the agreement of p(y|z) with p(y|v); it is not the beta of Eq. 1. Every row counts in L_VSD, so
    remove pictures without a label: PyTorch's ignore_index, a target of -100, drops them from L_v and L_z alone.
    Returns a scalar in nats.
    """
    options: dict[str, Any] = {"k": k, "tau": tau, "label_smoothing": label_smoothing, "reduction": reduction}
    l_v = balanced_softmax(v_logits, targets, counts=counts, **options)
    l_z = balanced_softmax(z_logits, targets, counts=counts, **options)
    temperature = class_temperatures(counts, gamma) if gamma else 1.0
    l_vsd = self_distillation(v_logits, z_logits, temperature=temperature, reduction=reduction)
    return l_v + l_z + beta * l_vsd


def mbib(
    v_logits: Sequence[Logits],
    z_logits: Logits,
    targets: Targets,
    *,
    counts: Counts,
    alphas: Sequence[float],
    **settings: Any,
) -> Loss:
    """L_MBIB = sum_i alpha_i L_BIBi, Eqs. 11 and 12: one BIB from each observation (shallow to deep) into one z.

    `alphas` weight all observations but the deepest, which gets the rest of 1. Alphas of 0 give BIB. `settings` are
    those of `bib`: beta, k, gamma, tau, label_smoothing, reduction. Raises ValueError unless there is one alpha for
    each shallow observation. Returns a scalar in nats.
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
) -> Loss:
    """SE-MBIB (appendix F): BIBs between neighbours, (v_1, v_2), (v_2, v_3), (v_3, z); the first one is the teacher.

    Inferred: the pairs are weighted as in Eq. 11. Arguments, errors and result as in `mbib`.
    """
    students = [*v_logits[1:], z_logits]
    pairs = zip(v_logits, students, strict=True)
    return _mixture([bib(t, s, targets, counts=counts, **settings) for t, s in pairs], alphas)


def all_mbib(v_logits: Sequence[Logits], z_logits: Logits, targets: Targets, **settings: Any) -> Loss:
    """ALL-MBIB (appendix F): the mean of MBIB and SE-MBIB. Inferred: half of each, so that the weights sum to 1."""
    pair = [loss(v_logits, z_logits, targets, **settings) for loss in (mbib, se_mbib)]
    return torch.stack(pair).mean(0)


def deepest_mbib(
    v_logits: Sequence[Logits], z_logits: Logits, targets: Targets, *, counts: Counts, beta: float, **settings: Any
) -> Loss:
    """A control that is not in the paper: MBIB's classifiers, but only the deepest observation teaches z."""
    gamma, reduction = settings.get("gamma", 0.0), settings.get("reduction", "mean")
    temperature = class_temperatures(counts, gamma) if gamma else 1.0
    supervised = mbib(v_logits, z_logits, targets, counts=counts, beta=0.0, **settings)
    l_vsd = self_distillation(v_logits[-1], z_logits, temperature=temperature, reduction=reduction)
    return supervised + beta * l_vsd


def untaught_bib(
    v_logits: Logits, z_logits: Logits, targets: Targets, *, counts: Counts, beta: float, **settings: Any
) -> Loss:
    """A control that is not in the paper: BIB's L_VSD makes way for as much of L_z, L_v + (1 + beta) L_z."""
    return untaught_mbib([v_logits], z_logits, targets, counts=counts, alphas=(), beta=beta, **settings)


def untaught_mbib(
    v_logits: Sequence[Logits], z_logits: Logits, targets: Targets, *, counts: Counts, beta: float, **settings: Any
) -> Loss:
    """A control that is not in the paper: MBIB's classifiers, and (1 + beta) L_z in place of the teachers."""
    supervised = mbib(v_logits, z_logits, targets, counts=counts, beta=0.0, **settings)
    of_z = {name: value for name, value in settings.items() if name not in ("alphas", "gamma")}
    return supervised + beta * balanced_softmax(z_logits, targets, counts=counts, **of_z)


def _mixture(terms: Sequence[Loss], alphas: Sequence[float]) -> Loss:
    if len(alphas) != len(terms) - 1:
        raise ValueError(
            f"{len(terms)} observations need {len(terms) - 1} alphas, not {len(alphas)}: one for each but the deepest"
        )
    shares = [*alphas, 1 - math.fsum(alphas)]
    return torch.stack([share * term for share, term in zip(shares, terms, strict=True)]).sum(0)


def _cross_entropy(
    logits: Logits, targets: Targets, weights: Tensor | None, *, label_smoothing: float = 0.0, reduction: str = "mean"
) -> Loss:
    """PyTorch's, except for soft targets: their mean is weighted, too, so that one-hot rows are as class numbers."""
    if not targets.is_floating_point():
        return F.cross_entropy(logits, targets, weight=weights, label_smoothing=label_smoothing, reduction=reduction)
    targets, weights = targets.to(logits.dtype), logits.new_ones(logits.shape[1]) if weights is None else weights
    smooth = targets * (1 - label_smoothing) + label_smoothing / logits.shape[1]
    each = -torch.where(smooth != 0, weights * smooth * logits.log_softmax(1), 0.0).sum(1)
    if reduction == "none":
        return each
    return each.sum() / (targets @ weights).sum() if reduction == "mean" else each.sum()


def _widest(numbers: Tensor) -> Tensor:
    """In float64, which Apple's GPUs do not have: there in float32."""
    return numbers.float() if numbers.device.type == "mps" else numbers.double()


def _full(logits: Tensor) -> Tensor:
    return logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits
