"""Runs a network over a set of pictures and scores the result: the numbers of a record."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor, nn

from mbib_core import metrics
from mbib_core.data.longtailed import Images, LongTailed
from mbib_core.devices import full_float32
from mbib_core.networks import Outputs, default_prediction, predictions
from mbib_core.networks.bottleneck import experts_used
from mbib_core.ranks import gathered, ranks_here, spread

Predict = Callable[[Outputs, Tensor], dict[str, Tensor]]
MOST = 500, 500 * 64**2  # images that a network answers at once, and the pixels of all of them


def batch_of(size: tuple[int, int]) -> int:
    """How many images of `size` (height, width) a network answers at once: 500 up to 64 x 64 pixels, of larger ones as
    many as have the pixels of those, 40 at 224 x 224; at least two, for batch norm."""
    images, pixels = MOST
    return max(2, min(images, pixels // (size[0] * size[1])))


def features_of(
    network: nn.Module,
    x: UInt8[Tensor, "n 3 h w"],
    batch: int | None = None,
    predict: Callable[[Outputs], dict[str, Tensor]] = predictions,
) -> dict[str, Float[Tensor, "n _d"]]:
    """Logits of every prediction, and the features `v` (deepest observation) and `z`, of all images, in float32.

    Keys: `logits/` and the names of `predict`, the network's own way first; `features/v` and, where there is one,
    `features/z`; `experts/used` of a network with routers. The network is left in evaluation mode. It answers
    `batch` images at once, by default `batch_of` them.
    """
    return answers(network, Images(x, torch.zeros(len(x), dtype=torch.int64)), batch, predict)[0]


@torch.inference_mode()
def answers(
    network: nn.Module,
    images: Images,
    batch: int | None = None,
    predict: Callable[[Outputs], dict[str, Tensor]] = predictions,
) -> tuple[dict[str, Float[Tensor, "n _d"]], Int[Tensor, " n"]]:
    """What `features_of` finds of labelled images, in memory or streamed, and their labels, on the network's device.

    Streamed images that are broken and left out are in neither.
    """
    network.eval()
    device = next(network.parameters()).device
    parts: dict[str, list[Tensor]] = {}
    labels = []
    with full_float32():
        for x, y in images.chunks(batch or batch_of(images.size)):  # no pictures: one empty batch
            labels.append(y.to(device))
            outputs = network(x.to(device).contiguous(memory_format=torch.channels_last))
            found = {f"logits/{name}": logits for name, logits in predict(outputs).items()}
            found["features/v"] = outputs.observations[-1]
            if outputs.z is not None:
                found["features/z"] = outputs.z
            if outputs.go_on is not None:
                found["experts/used"] = experts_used(outputs.go_on)
            for name, value in found.items():
                parts.setdefault(name, []).append(value)
    return {name: torch.cat(values) for name, values in parts.items()}, torch.cat(labels)


def answers_together(
    network: nn.Module, images: Images, **more: Any
) -> tuple[dict[str, Float[Tensor, "n _d"]], Int[Tensor, " n"]]:
    """`answers`, of which each process of torch's group computes every `ranks`-th row and gets them all."""
    rank, ranks = ranks_here()
    if ranks == 1 or getattr(images, "skip_broken", False):  # what is left out is known once all are read
        return answers(network, images, **more)
    found = answers(network, images.subset(torch.arange(rank, len(images.y), ranks)), **more)
    with spread(len(images.y)), torch.inference_mode():
        return gathered(found)


def of_kind(kind: str, found: dict[str, Tensor]) -> dict[str, Tensor]:
    """The `logits` or the `features` among what `features_of` found, by their names without the kind."""
    return {name.removeprefix(f"{kind}/"): value for name, value in found.items() if name.startswith(f"{kind}/")}


def evaluate(
    network: nn.Module,
    images: Images,
    data: LongTailed,
    *,
    predict: Predict = lambda outputs, counts: predictions(outputs),
    together: bool = False,
) -> dict[str, Any]:
    """Everything a record says of one set of images, as plain values; rounded to 6 digits. `predict` is the method's.
    With `together` the processes of torch's group share the images out, and all of them must call this.

    `accuracy` (0 to 1): by prediction, over all classes and by shot, means over classes; `top5` likewise, where there
    are more than 5 classes; `by_class` for each prediction; of the `default` prediction the `micro` accuracy (over
    pictures), `macro_f1`, the `posterior_means` (Eq. 14) and the `calibration` over all and by shot; `rho` (Eqs. 15 to
    17) and the leave-one-out 10-nearest-neighbour accuracy `neighbours` of v and z; of a network with routers the mean
    number of `experts_used`. None stands for what has no value, such as a class without pictures. Raises
    FloatingPointError if the network has diverged.
    """
    counts = data.counts.to(next(network.parameters()).device)
    look = answers_together if together else answers
    found, y = look(network, images, predict=lambda outputs: predict(outputs, counts))
    if not all_finite(found):
        raise FloatingPointError(
            "the network has diverged, its answers are not finite: train it anew with other settings"
        )
    device = next(network.parameters()).device
    classes = len(data.classes)
    logits = of_kind("logits", found)
    features = of_kind("features", found)
    default = default_prediction(logits)
    masks = {shot: mask.to(device) for shot, mask in data.shots.items()}
    rows = {"all": torch.ones_like(y, dtype=torch.bool)} | {shot: mask[y] for shot, mask in masks.items()}
    return plain(
        {
            "pictures": len(y),
            "default": default,
            "accuracy": accuracies(logits, y, data),
            **({"experts_used": found["experts/used"].double().mean()} if "experts/used" in found else {}),
            **({"top5": accuracies(logits, y, data, top=5)} if classes > 5 else {}),
            "micro": metrics.micro_accuracy(logits[default], y),
            "macro_f1": float(metrics.f1_by_class(logits[default], y).nanmean()),
            "by_class": {name: metrics.accuracy_by_class(f, y) for name, f in logits.items()},
            "posterior_means": metrics.posterior_means(logits[default], y),
            "calibration": {shot: metrics.calibration(logits[default][r], y[r]) for shot, r in rows.items()},
            "rho": {name: metrics.distances_by_shot(f, y, masks) for name, f in features.items()},
            "neighbours": {
                name: metrics.by_shot(metrics.neighbour_accuracy(f, y, classes), masks) for name, f in features.items()
            },
        }
    )


def accuracies(logits: dict[str, Tensor], y: Tensor, data: LongTailed, *, top: int = 1) -> dict[str, dict[str, float]]:
    """Top-k accuracy of every prediction in `logits`, 0 to 1, over all classes and by shot: means over classes."""
    return {name: metrics.by_shot(metrics.accuracy_by_class(f, y, top=top), data.shots) for name, f in logits.items()}


def all_finite(found: dict[str, Tensor]) -> bool:
    """Of `features_of`'s answer; a mean of probabilities may be 0, with a logit of -inf."""
    return all(bool(f.isfinite().all()) for name, f in found.items() if name != "logits/mean_probability")


def plain(value: Any) -> Any:
    """What JSON can hold: tensors and arrays as lists, numbers to 6 digits, NaN and infinity as None."""
    if isinstance(value, Tensor | np.ndarray | np.generic):
        return plain(value.tolist())
    if isinstance(value, dict):
        return {name: plain(v) for name, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    if isinstance(value, float):
        return float(f"{value:.6g}") if math.isfinite(value) else None
    return value
