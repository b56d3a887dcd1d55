"""Losses against what is kept or moved: a teacher, a queue of keys, targets on the sphere, a classifier a class moves.

Pure functions of logits [B, C], targets [B], training counts [C] and unit features [B, D], in nats. `q` are features
of the images and have gradients, `k` those of other views of them; `keys` [K, D] are features of earlier images with
their `key_labels` [K], -1 where there is no image.
"""

import math

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

from mbib_core.extras import extra
from mbib_core.losses import Counts, Logits, balanced_softmax, class_weights
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


def drawn_positives(targets: Targets, key_labels: Int[Tensor, " k"], positives: int) -> Bool[Tensor, "b k"]:
    """For each image up to `positives` keys of its class, drawn from torch's default generator."""
    same = targets[:, None] == key_labels
    tickets = torch.rand(same.shape, device=same.device).masked_fill(~same, -1.0)
    best = tickets.topk(min(positives, len(key_labels)), dim=1)
    return torch.zeros_like(same).scatter_(1, best.indices, best.values >= 0)


def kcl(q: Features, k: Features, keys: Keys, positive: Bool[Tensor, "b k"], *, contrast_temperature: float) -> Scalar:
    """KCL (Kang et al. 2021): the mean over an image's positives of -log softmax over [q.k, q.keys] / T.

    Its positives are its own other view and the `positive` keys; all keys are in the denominator.
    """
    log_p = (_scores(q, k, keys) / contrast_temperature).log_softmax(1)
    weights = F.pad(positive.to(q.dtype), (1, 0), value=1.0)
    return -((weights * log_p).sum(1) / weights.sum(1)).mean()


def tsc(
    q: Features,
    k: Features,
    keys: Keys,
    positive: Bool[Tensor, "b k"],
    own: Int[Tensor, " b"],
    sphere: Float[Tensor, "c d"],
    *,
    contrast_temperature: float,
    target_share: float,
) -> Scalar:
    """TSC (Li et al. 2022): KCL where the fixed unit targets `sphere` join the denominator.

    An image's own target, number `own`, is one more positive, of weight `target_share`; the sum of all is divided by
    their number.
    """
    log_p = (_scores(q, k, torch.cat([keys, sphere])) / contrast_temperature).log_softmax(1)
    weights = F.pad(positive.to(q.dtype), (1, 0), value=1.0)
    targeted = log_p[:, weights.shape[1] :].gather(1, own[:, None])[:, 0]
    total = (weights * log_p[:, : weights.shape[1]]).sum(1) + target_share * targeted
    return -(total / (weights.sum(1) + 1)).mean()


def paco(
    logits: Logits,
    targets: Targets,
    *,
    q: Features,
    k: Features,
    keys: Keys,
    key_labels: Int[Tensor, " k"],
    counts: Counts,
    contrast_temperature: float,
    key_weight: float,
) -> Scalar:
    """PaCo (Cui et al. 2021): -sum w log softmax / sum w over the classes and all other features, averaged.

    The scores are logits + log pi and q.[other rows of q, k, keys] / T; w is 1 for the own class and `key_weight` for
    features of the same class. There is gradient through the other rows of q as well.
    """
    itself = torch.eye(len(q), dtype=torch.bool, device=q.device)
    features, labels = torch.cat([q, k, keys]), torch.cat([targets, targets, key_labels])
    alone = F.pad(itself, (0, len(features) - len(q)))
    near = ((q @ features.T) / contrast_temperature).masked_fill(alone, -math.inf)
    log_share = (counts.to(logits.dtype) / counts.sum()).log()
    log_p = torch.cat([logits + log_share, near], 1).log_softmax(1)
    classes = torch.arange(logits.shape[1], device=targets.device)
    same = (targets[:, None] == labels) & ~alone
    weights = torch.cat([(targets[:, None] == classes).to(q.dtype), key_weight * same.to(q.dtype)], 1)
    return -(torch.where(weights > 0, weights * log_p, 0.0).sum(1) / weights.sum(1)).mean()


def uniformity(sphere: Float[Tensor, "c d"], temperature: float = 0.07) -> Scalar:
    """mean_i log sum_j exp(t_i . t_j / T) of unit vectors t: the smaller, the further they are apart."""
    return (sphere @ sphere.T / temperature).logsumexp(1).mean()


def sphere_targets(classes: int, width: int, steps: int = 10_000) -> Float[Tensor, "c d"]:
    """`classes` unit vectors of `width` dimensions with the least `uniformity`.

    Where they fit, the corners of a simplex, all pairs at the cosine -1 / (classes - 1); else the end of `steps` of
    Adam from a random start, drawn from torch's default generator.
    """
    if width >= classes - 1:
        centred = torch.eye(classes, dtype=torch.float64) - 1 / classes
        corners = torch.linalg.eigh(centred)[1][:, 1:]  # of all but the mean
        return F.pad(F.normalize(corners), (0, width - classes + 1)).float()
    free = torch.randn(classes, width).requires_grad_()
    adam = torch.optim.Adam([free], 1e-3)
    for _ in range(steps):
        adam.zero_grad()
        uniformity(F.normalize(free)).backward()
        adam.step()
    return F.normalize(free.detach())


def matched(centroids: Float[Tensor, "c d"], sphere: Float[Tensor, "c d"]) -> Int[Tensor, " c"]:
    """A target for each class, so that the sum of centroid . target over the classes is largest (Hungarian method)."""
    optimize = extra("scipy.optimize", "matching targets to classes")  # comes with scikit-learn
    _, number = optimize.linear_sum_assignment((centroids @ sphere.T).cpu().numpy(), maximize=True)
    return torch.as_tensor(number, device=centroids.device)


def glmc(
    logits: tuple[Logits, Logits],
    targets: Targets,
    *,
    plain: tuple[Logits, Logits],
    predicted: tuple[Features, Features],
    projected: tuple[Features, Features],
    partners: Targets,
    share: Float[Tensor, ""],
    counts: Counts,
    progress: float,
    k: float,
    consistency: float,
) -> Scalar:
    """GLMC (Du et al. 2023): a H(plain, t) + (1 - a) H(logits, w t) - `consistency` cos(predicted, other's projected).

    Each pair is of a mixed and of a pasted batch and its two terms are added; t = share 1[targets] + (1 - share)
    1[partners]; H(z, t) = -mean sum_c t_c log softmax(z)_c; w are the class weights n^-k of Eq. 7; a = 1 - progress^2.
    No gradient reaches `projected`.
    """
    classes = torch.arange(len(counts), device=targets.device)
    one, other = ((y[:, None] == classes).to(plain[0].dtype) for y in (targets, partners))
    soft = share * one + (1 - share) * other
    weighted, a = soft * class_weights(counts, k).to(soft.dtype), 1 - progress**2
    loss = sum(
        -(a * soft * z.log_softmax(1) + (1 - a) * weighted * u.log_softmax(1)).sum(1).mean()
        for z, u in zip(plain, logits, strict=True)
    )
    for p, h in zip(predicted, reversed(projected), strict=True):
        loss = loss - consistency * F.cosine_similarity(p, h.detach()).mean()
    return torch.as_tensor(loss)


def _scores(q: Features, k: Features, keys: Keys) -> Float[Tensor, "b _n"]:
    """Cosines of each row with its other view, and with all keys."""
    return torch.cat([(q * k).sum(1, keepdim=True), q @ keys.T], 1)


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
