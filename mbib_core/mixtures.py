"""Losses of several answers of one network: of its experts or branches, each with logits [B, C], in nats."""

from collections.abc import Sequence

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
    margin: float,
    deferred: float,
    effective: float,
) -> Scalar:
    """RIDE (Wang et al. 2021): sum_k { LDAM-DRW(z_k) - diversity Tbar^2 KL(sg[softmax(zbar / T)], softmax(z_k / T)) }.

    z_k are the experts' logits, zbar their mean, T `ride_temperatures` and Tbar their mean; T = 1 until `progress`
    reaches `deferred`. `margin` and `effective` are those of `rebalancing.ldam`.
    """
    of_ldam = {"margin": margin, "deferred": deferred, "effective": effective}
    own = [ldam(f, targets, counts=counts, progress=progress, **of_ldam) for f in logits]
    apart = _disagreement(logits, counts, tempering if progress >= deferred else 0.0)
    return torch.stack(own).sum() - diversity * apart


def _disagreement(logits: Sequence[Logits], counts: Counts, tempering: float) -> Scalar:
    """RIDE's sum_k Tbar^2 KL(sg[softmax(zbar / T)], softmax(z_k / T))."""
    together = torch.stack(list(logits)).mean(0)
    temperature = ride_temperatures(counts.to(together.dtype), tempering)
    apart = torch.stack([self_distillation(together, f, temperature=temperature) for f in logits]).sum()
    return temperature.mean() ** 2 * apart


def ride_temperatures(counts: Counts, tempering: float) -> Float[Tensor, " c"]:
    """T_i = u_i / max u, u_i = tempering C pi_i + 1 - tempering, pi_i the share of class i: 1 for the largest class."""
    u = 1 + tempering * (counts / counts.sum() * len(counts) - 1)
    return u / u.max()


def routing(go_on: Float[Tensor, "b k"], logits: Sequence[Logits], targets: Targets, *, urgency: float) -> Scalar:
    """RIDE's second stage: the mean over routers of the binary cross-entropy of `go_on`, logits after all experts but
    the last. The target is 1, `urgency` times as heavy, where the experts so far are wrong together and some longer
    row of them is right."""
    right = torch.stack(list(logits)).cumsum(0).argmax(2) == targets
    later = torch.stack([right[i:].any(0) for i in range(1, len(logits))])
    wanted = (~right[:-1] & later).T.to(go_on.dtype)
    return F.binary_cross_entropy_with_logits(go_on, wanted, pos_weight=go_on.new_full((), urgency))


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


def ride_mbib(
    v_logits: Sequence[Sequence[Logits]],
    z_logits: Sequence[Logits],
    targets: Targets,
    *,
    counts: Counts,
    progress: float,
    alphas: Sequence[float],
    beta: float,
    diversity: float,
    tempering: float,
    margin: float,
    deferred: float,
    effective: float,
) -> Scalar:
    """RIDE with an MBIB in each expert, which no paper has: `losses.mbib` with LDAM-DRW in place of balanced softmax.

    sum_k sum_i alpha_i { LDAM(v_ki) + LDAM(z_k) + beta KL(sg[softmax v_ki], softmax z_k) }, less RIDE's diversity of
    the experts' answers (v_k + z_k) / 2, v_k the deepest. Other arguments as in `ride`; `v_logits` as in `sade_mbib`.
    """

    def balanced(f: Logits) -> Scalar:
        return ldam(f, targets, counts=counts, progress=progress, margin=margin, deferred=deferred, effective=effective)

    terms = []
    for v, z in zip(v_logits, z_logits, strict=True):
        l_z = balanced(z)
        terms.append(_mixture([balanced(f) + l_z + beta * self_distillation(f, z) for f in v], alphas))
    answers = [(v[-1] + z) / 2 for v, z in zip(v_logits, z_logits, strict=True)]
    apart = _disagreement(answers, counts, tempering if progress >= deferred else 0.0)
    return torch.stack(terms).sum() - diversity * apart


def reslt(
    logits: Sequence[Logits],
    targets: Targets,
    *,
    counts: Counts,
    medium_from: float,
    tail_from: float,
    residual: float,
) -> Scalar:
    """ResLT (Cui et al. 2022): residual I + (1 - residual) CE(z_H + z_M + z_T).

    I is a mean over rows and branches: z_H counts for all images, z_M for those of the medium and the tail group, z_T
    for those of the tail. With the classes ordered by their counts, most frequent first, the groups begin at the shares
    `medium_from` and `tail_from` of them (rounded).
    """
    rank = counts.argsort(descending=True, stable=True).argsort()
    starts = 0, round(medium_from * len(counts)), round(tail_from * len(counts))
    counted = torch.stack([(rank >= start)[targets] for start in starts]).to(logits[0].dtype)
    nats = torch.stack([F.cross_entropy(f, targets, reduction="none") for f in logits])
    together = F.cross_entropy(torch.stack(list(logits)).sum(0), targets)
    return residual * (counted * nats).sum() / counted.sum() + (1 - residual) * together


def stability(
    first: Float[Tensor, "k b c"], second: Float[Tensor, "k b c"], weights: Float[Tensor, " k"]
) -> Float[Tensor, ""]:
    """How alike the experts' answers to two views of the same images are, at most 1 (Zhang et al. 2022, SADE).

    The mean over images of cos(softmax(sum_k s_k z_k), softmax(sum_k s_k z'_k)), s = softmax(weights); `first` are the
    logits z_k of all experts for one view, `second` those for the other.
    """
    p, q = (torch.einsum("k,kbc->bc", weights.softmax(0), view).softmax(1) for view in (first, second))
    return F.cosine_similarity(p, q).mean()


def shares_without_labels(
    first: Float[Tensor, "k n c"],
    second: Float[Tensor, "k n c"],
    *,
    epochs: int = 5,
    batch: int = 128,
    rate: float = 0.1,
    seed: int = 0,
) -> Float[Tensor, " k"]:
    """Shares of the experts that make their answers to two views of unlabelled images most alike (SADE, at test time).

    The logits' mean with these shares in place of equal ones is SADE's answer to a test set that is known as a whole
    and may be spread unevenly. Nothing in this project calls this: an accuracy reached with it has seen the test
    images, and must say so. `first` and `second` are as in `stability`. SGD with Nesterov's momentum and the published
    values, for `epochs` or until a share is below 0.05. The views are drawn once here, anew in each epoch there.
    """
    first, second, random = first.detach(), second.detach(), torch.Generator().manual_seed(seed)
    with torch.inference_mode(False), torch.enable_grad():
        weights = first.new_full((len(first),), 1 / len(first)).requires_grad_()
        optimizer = torch.optim.SGD([weights], rate, momentum=0.9, weight_decay=5e-4, nesterov=True)
        for _ in range(epochs):
            for rows in torch.randperm(first.shape[1], generator=random).split(batch):
                optimizer.zero_grad()
                (-stability(first[:, rows], second[:, rows], weights)).backward()
                optimizer.step()
            if weights.softmax(0).min() < 0.05:
                break
    return weights.detach().softmax(0)
