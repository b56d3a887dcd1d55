"""What a prediction and a representation are worth: accuracy by class and shot, posteriors, calibration, distances.

Everything here takes tensors and imports nothing of the project's own. N pictures, C classes, D features; a class
without pictures has no accuracy (NaN) and is left out of every mean.
"""

from collections.abc import Mapping

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


def accuracy_by_class(logits: Float[Tensor, "n c"], targets: Int[Tensor, " n"]) -> Float[Tensor, " c"]:
    """Share of each class's pictures that are classified right, 0 to 1; NaN for a class without pictures.

    Raises ValueError on logits that are NaN or +infinite, as of a network that diverged, and on labels outside 0 to
    C - 1.
    """
    _check(logits, targets)
    classes = logits.shape[1]
    right = targets[logits.argmax(1) == targets].bincount(minlength=classes)
    return right.double() / targets.bincount(minlength=classes)


def confusion(logits: Float[Tensor, "n c"], targets: Int[Tensor, " n"]) -> Int[Tensor, "c c"]:
    """Pictures of class i (row) that are taken for class j (column). Raises as `accuracy_by_class`."""
    _check(logits, targets)
    classes = logits.shape[1]
    return (targets.long() * classes + logits.argmax(1)).bincount(minlength=classes**2).view(classes, classes)


def by_shot(values: Float[Tensor, " c"], shots: Mapping[str, Bool[Tensor, " c"]]) -> dict[str, float]:
    """Mean of one value a class over all classes and over each shot's, NaN left out; a shot without any is absent."""
    means = {"all": values.nanmean()} | {shot: values[mask].nanmean() for shot, mask in shots.items()}
    return {shot: float(mean) for shot, mean in means.items() if not mean.isnan()}


def posterior_means(logits: Float[Tensor, "n c"], targets: Int[Tensor, " n"]) -> Float[Tensor, " c"]:
    """Mean over the pictures of class i of p(i|x), Eq. 14. Near 1 is ideal, or over-confident: see `calibration`."""
    own = logits.double().softmax(1).gather(1, targets[:, None]).squeeze(1)
    totals = torch.zeros(logits.shape[1], dtype=torch.float64, device=logits.device).index_add_(0, targets, own)
    return totals / targets.bincount(minlength=logits.shape[1])


def calibration(
    logits: Float[Tensor, "n c"], targets: Int[Tensor, " n"], bins: int = 15
) -> dict[str, list[float] | list[int] | float]:
    """Reliability over equal-width bins of confidence, and the expected calibration error (Guo et al. 2017).

    `count`, mean `confidence` and `accuracy` [bins] (0 in an empty bin), and `error` = sum |accuracy - confidence|
    count / N.
    """
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
    the centres of two different classes. Only classes that have pictures count; NaN with fewer than two.
    """
    features = features.double()
    present, y = targets.unique(return_inverse=True)
    n = y.bincount().double()
    centres = torch.zeros(len(present), features.shape[1], dtype=torch.float64, device=features.device)
    centres = centres.index_add_(0, y, features) / n[:, None]
    spread = torch.zeros_like(n).index_add_(0, y, (features - centres[y]).norm(dim=1)) / n
    intra = spread.mean()
    inter = torch.pdist(centres).mean()
    return {"intra": float(intra), "inter": float(inter), "rho": float(intra / inter)}


def distances_by_shot(
    features: Float[Tensor, "n d"], targets: Int[Tensor, " n"], shots: Mapping[str, Bool[Tensor, " c"]]
) -> dict[str, dict[str, float]]:
    """`distances` over all classes and within each shot's: centres and pairs of that shot alone (table 5)."""
    picked = {shot: mask.to(targets.device)[targets] for shot, mask in shots.items()}
    table = {shot: distances(features[rows], targets[rows]) for shot, rows in picked.items()}
    return {"all": distances(features, targets)} | table


def neighbour_accuracy(
    features: Float[Tensor, "n d"], targets: Int[Tensor, " n"], classes: int, neighbours: int = 10
) -> Float[Tensor, " c"]:
    """Accuracy by class of a vote of each picture's nearest others among `features` (leave one out, Euclidean).

    Measures how well classes hold together, whatever the classifier. Ties go to the smaller label; NaN where a class
    has no picture, and everywhere if a picture has no other.
    """
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


def _check(logits: Tensor, targets: Tensor) -> None:
    if bool((logits.isnan() | logits.isposinf()).any()):  # -inf is the logit of a probability of 0
        raise ValueError("some logits are NaN or +infinite: the network has diverged, and its answers mean nothing")
    if len(targets) and not 0 <= int(targets.min()) <= int(targets.max()) < logits.shape[1]:
        low, high = int(targets.min()), int(targets.max())
        raise ValueError(
            f"labels run from {low} to {high}, outside 0 to {logits.shape[1] - 1}, the classes of the logits"
        )
