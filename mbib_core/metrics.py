"""Scores of predictions and representations: accuracy by class and shot, posteriors, calibration, distances.

All functions take tensors and import nothing else of this package. N pictures, C classes, D features; a class without
pictures has no accuracy (NaN) and is left out of every mean. What lies on an Apple GPU, which has no float64, is scored
on the CPU.

All raise ValueError on logits that are NaN or +infinite (-inf is the logit of a probability of 0) and on features that
are not finite, as of a network that diverged, on shapes that do not fit, and on labels outside 0 to C - 1; TypeError on
labels that are not whole numbers.
"""

from collections.abc import Mapping

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


def accuracy_by_class(logits: Float[Tensor, "n c"], targets: Int[Tensor, " n"], *, top: int = 1) -> Float[Tensor, " c"]:
    """Share of each class's pictures that are classified right, 0 to 1; NaN for a class without pictures.

    Right is a picture whose label is among the `top` largest logits; of equal logits the smaller label's is larger.
    """
    logits, targets = _checked(logits, targets)
    classes = logits.shape[1]
    right = targets[_ranks(logits, targets) < top].bincount(minlength=classes)
    return right.double() / targets.bincount(minlength=classes)


def micro_accuracy(logits: Float[Tensor, "n c"], targets: Int[Tensor, " n"]) -> float:
    """Share of all pictures that are classified right: a class counts by its pictures. NaN without pictures."""
    logits, targets = _checked(logits, targets)
    return float((logits.argmax(1) == targets).double().mean())


def f1_by_class(logits: Float[Tensor, "n c"], targets: Int[Tensor, " n"]) -> Float[Tensor, " c"]:
    """F1 = 2 TP / (2 TP + FP + FN) of each class, the harmonic mean of precision and recall; its mean is macro-F1."""
    table = confusion(logits, targets).double()
    pictures, predicted = table.sum(1), table.sum(0)
    return torch.where(pictures > 0, 2 * table.diagonal() / (pictures + predicted), torch.nan)


def confusion(logits: Float[Tensor, "n c"], targets: Int[Tensor, " n"]) -> Int[Tensor, "c c"]:
    """Pictures of class i (row) that are taken for class j (column)."""
    logits, targets = _checked(logits, targets)
    classes = logits.shape[1]
    return (targets * classes + logits.argmax(1)).bincount(minlength=classes**2).view(classes, classes)


def by_shot(values: Float[Tensor, " c"], shots: Mapping[str, Bool[Tensor, " c"]]) -> dict[str, float]:
    """Mean of one value a class over all classes and over each shot's, NaN left out; a shot without any is absent."""
    masks = {shot: mask.to(values.device) for shot, mask in shots.items()}
    means = {"all": values.nanmean()} | {shot: values[mask].nanmean() for shot, mask in masks.items()}
    return {shot: float(mean) for shot, mean in means.items() if not mean.isnan()}


def posterior_means(logits: Float[Tensor, "n c"], targets: Int[Tensor, " n"]) -> Float[Tensor, " c"]:
    """Mean over the pictures of class i of p(i|x), Eq. 14. Near 1 is ideal, or over-confident: see `calibration`."""
    logits, targets = _checked(logits, targets)
    own = logits.double().softmax(1).gather(1, targets[:, None]).squeeze(1)
    totals = torch.zeros(logits.shape[1], dtype=torch.float64, device=logits.device).index_add_(0, targets, own)
    return totals / targets.bincount(minlength=logits.shape[1])


def calibration(
    logits: Float[Tensor, "n c"], targets: Int[Tensor, " n"], bins: int = 15
) -> dict[str, list[float] | list[int] | float]:
    """Reliability over equal-width bins of confidence, and the expected calibration error (Guo et al. 2017).

    `count`, mean `confidence` and `accuracy` [bins] (0 in an empty bin), and `error` = sum |accuracy - confidence|
    count / N. Raises ValueError on fewer than one bin.
    """
    logits, targets = _checked(logits, targets)
    if bins < 1:
        raise ValueError(f"bins is {bins}: it must be 1 or more")
    confidence, predicted = logits.double().softmax(1).max(1)
    bin_of = (confidence * bins).long().clamp(max=bins - 1)
    count = bin_of.bincount(minlength=bins)
    filled = count.clamp(min=1)
    mean_confidence = bin_of.bincount(confidence, minlength=bins) / filled
    accuracy = bin_of.bincount((predicted == targets).double(), minlength=bins) / filled
    error = ((accuracy - mean_confidence).abs() * count).sum() / max(len(targets), 1)
    return {
        "count": count.tolist(),
        "confidence": mean_confidence.tolist(),
        "accuracy": accuracy.tolist(),
        "error": float(error),
    }


def distances(features: Float[Tensor, "n d"], targets: Int[Tensor, " n"]) -> dict[str, float]:
    """d_intra, d_inter and rho = d_intra / d_inter of `features`, Eqs. 15 to 17 (Euclidean norm).

    d_intra: mean over classes of the mean distance of a class's features to their centre. d_inter: mean distance of
    the centres of two different classes. Only classes that have pictures count; NaN with fewer than two. rho is NaN,
    too, where all centres coincide.
    """
    features, targets = _checked(features, targets, finite=True)
    features = features.double()
    present, y = targets.unique(return_inverse=True)
    n = y.bincount().double()
    centres = torch.zeros(len(present), features.shape[1], dtype=torch.float64, device=features.device)
    centres = centres.index_add_(0, y, features) / n[:, None]
    spread = torch.zeros_like(n).index_add_(0, y, (features - centres[y]).norm(dim=1)) / n
    intra = spread.mean()
    inter = torch.pdist(centres).mean()
    rho = intra / inter if inter > 0 else torch.nan
    return {"intra": float(intra), "inter": float(inter), "rho": float(rho)}


def distances_by_shot(
    features: Float[Tensor, "n d"], targets: Int[Tensor, " n"], shots: Mapping[str, Bool[Tensor, " c"]]
) -> dict[str, dict[str, float]]:
    """`distances` over all classes and within each shot's: centres and pairs of that shot alone (table 5)."""
    features, targets = _checked(features, targets, classes=min(map(len, shots.values()), default=None), finite=True)
    picked = {shot: mask.to(targets.device)[targets] for shot, mask in shots.items()}
    table = {shot: distances(features[rows], targets[rows]) for shot, rows in picked.items()}
    return {"all": distances(features, targets)} | table


def neighbour_accuracy(
    features: Float[Tensor, "n d"], targets: Int[Tensor, " n"], classes: int, neighbours: int = 10
) -> Float[Tensor, " c"]:
    """Accuracy by class of a vote among each picture's nearest other `features` (leave one out, Euclidean).

    Measures how well classes hold together, independent of a classifier. Ties go to the smaller label; NaN where a
    class has no picture, and everywhere if there is only one picture. Raises ValueError on fewer than one neighbour.
    """
    features, targets = _checked(features, targets, classes=classes, finite=True)
    if neighbours < 1:
        raise ValueError(f"neighbours is {neighbours}: it must be 1 or more")
    if len(features) < 2:
        return torch.full((classes,), float("nan"), dtype=torch.float64, device=features.device)
    votes = []
    features = (features.double() - features.double().mean(0)).float()  # centred, small distances keep their digits
    k = min(neighbours, len(features) - 1)
    for start in range(0, len(features), 1000):
        distance = torch.cdist(features[start : start + 1000], features)
        rows = torch.arange(len(distance), device=features.device)
        distance[rows, rows + start] = float("inf")
        nearest = targets[distance.topk(k, largest=False).indices]
        votes.append(
            torch.zeros(len(distance), classes, device=features.device).scatter_add_(
                1, nearest, torch.ones_like(nearest, dtype=torch.float32)
            )
        )
    return accuracy_by_class(torch.cat(votes), targets)


def _ranks(logits: Tensor, targets: Tensor) -> Tensor:
    """How many classes come before the label, [N]: 0 where the prediction is right, as argmax takes ties."""
    own, labels = logits.gather(1, targets[:, None]), torch.arange(logits.shape[1], device=logits.device)
    return ((logits > own) | ((logits == own) & (labels < targets[:, None]))).sum(1)


def _checked(
    values: Tensor, targets: Tensor, *, classes: int | None = None, finite: bool = False
) -> tuple[Tensor, Tensor]:
    """Logits, or `finite` features, and int64 labels, on a device that has float64; else raises with a sentence."""
    if not (isinstance(values, Tensor) and values.is_floating_point() and isinstance(targets, Tensor)):
        raise TypeError("metrics take tensors: floats [N, C] or [N, D], and labels [N]; torch.as_tensor makes one")
    if targets.is_floating_point() or targets.is_complex() or targets.dtype == torch.bool:
        raise TypeError(f"labels must be whole numbers [N], these are {targets.dtype}: .long()")
    if values.dim() != 2 or targets.shape != values.shape[:1]:
        raise ValueError(f"a row for each label is needed: these are {list(values.shape)} and {list(targets.shape)}")
    if values.device.type == "mps":
        values, targets = values.cpu(), targets.cpu()
    name, bad = ("features", ~values.isfinite()) if finite else ("logits", values.isnan() | values.isposinf())
    if bool(bad.any()):
        kinds = "NaN or infinite" if finite else "NaN or +infinite"
        raise ValueError(f"some {name} are {kinds}: the network has diverged, and its {name} mean nothing")
    targets = targets.long()
    low, high = (int(targets.min()), int(targets.max())) if len(targets) else (0, -1)
    allowed = values.shape[1] if not finite else high + 1 if classes is None else classes
    if low < 0 or high >= allowed:
        of = "" if finite else ", the classes of the logits"
        raise ValueError(f"labels run from {low} to {high}, outside 0 to {allowed - 1}{of}")
    return values, targets
