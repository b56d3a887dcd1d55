"""What the losses refuse: counts, settings, targets and logits that mean nothing, each with a sentence."""

import numbers
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mbib_core.losses import Counts, class_temperatures, class_weights


def check_counts(counts: Tensor) -> None:
    """Raises ValueError unless `counts` [C] has at least two classes and every class a training picture."""
    if counts.dim() != 1 or len(counts) < 2:
        raise ValueError(f"counts must be one number a class for two classes or more, not shape {list(counts.shape)}")
    bad = [i for i, n in enumerate(counts.tolist()) if not 1 <= n < float("inf")]
    if bool(((counts > 0) & (counts < 1)).all()):
        raise ValueError("counts below 1 look like shares: give the numbers of training pictures")
    if bad:
        total = f", {len(bad)} in all" if len(bad) > 5 else ""
        raise ValueError(
            f"every class needs a training picture: classes {bad[:5]}{total} have a count below 1 or not finite; add "
            f"pictures, or leave these classes out and renumber the others"
        )


def check_settings(
    *,
    alphas: Sequence[float] = (),
    beta: float = 0.0,
    k: float = 0.0,
    gamma: float = 0.0,
    tau: float = 1.0,
    counts: Counts | None = None,
) -> None:
    """Raises TypeError on what is no number, ValueError on a number out of range.

    beta, k and gamma are finite and not negative, tau is finite, alphas are proportions that sum to at most 1. With the
    training `counts` [C], k and gamma must leave every class a weight and a temperature that float32 can hold.
    """
    for name, value in {"beta": beta, "k": k, "gamma": gamma}.items():
        if not 0 <= number(name, value) < float("inf"):
            raise ValueError(f"{name} is {value}: it must be a finite number, 0 or larger")
    if not abs(number("tau", tau)) < float("inf"):
        raise ValueError(f"tau is {tau}: it must be a finite number")
    if isinstance(alphas, str) or not hasattr(alphas, "__iter__"):
        raise TypeError(f"alphas are {alphas!r}: they must be numbers, one for each observation but the deepest")
    shares = [number("an alpha", alpha) for alpha in alphas]
    if not all(alpha >= 0 for alpha in shares) or not sum(shares) <= 1 + 1e-9:  # decimals may sum to just over 1
        raise ValueError(f"alphas {tuple(alphas)} must be 0 or larger and sum to at most 1: they are proportions")
    if counts is not None:
        span = f"for counts from {float(counts.min()):g} to {float(counts.max()):g}, float32 cannot hold"
        if not bool((class_weights(counts, float(k)).float() >= torch.finfo(torch.float32).tiny).all()):
            raise ValueError(f"k is {k}: {span} the class weights; choose a smaller k")
        if not bool(class_temperatures(counts, float(gamma)).isfinite().all()):
            raise ValueError(f"gamma is {gamma}: {span} the class temperatures; choose a smaller gamma")


def number(name: str, value: Any) -> float:
    """`value` as a float; a scalar of NumPy or torch counts as a number."""
    scalar = value.item() if isinstance(value, Tensor | np.ndarray) and value.ndim == 0 else value
    if not isinstance(scalar, numbers.Real):
        raise TypeError(f"{name} is {value!r}: it must be a number")
    return float(scalar)


def as_counts(counts: Any) -> Tensor:
    """A copy of `counts` as a tensor; a dict or a pandas Series would lose which class a number belongs to."""
    ordered = isinstance(counts, Sequence) or hasattr(counts, "__array__")
    if hasattr(counts, "iloc") or not ordered or np.ma.isMaskedArray(counts):
        raise TypeError(
            f"counts must be a list, array or tensor with the pictures of class 0, 1, 2 ..., not a "
            f"{type(counts).__name__}: torch.bincount(labels, minlength=classes)"
        )
    try:
        counts = counts.detach().clone() if isinstance(counts, Tensor) else torch.from_numpy(_numbers(counts))
    except (TypeError, ValueError):
        raise TypeError("counts must be numbers, one a class: torch.bincount(labels, minlength=classes)") from None
    if counts.dtype == torch.bool or counts.is_complex():
        raise TypeError(f"counts must be numbers of pictures, not {counts.dtype}")
    # Whole numbers are kept as such; float32 holds all others, on Apple's GPUs, too.
    whole = counts.long()
    return counts.float() if counts.is_floating_point() and bool((whole != counts).any()) else whole


def _numbers(counts: Any) -> np.ndarray:
    """A native copy: torch knows neither big-endian arrays nor arrays of objects."""
    array = np.array(
        [n.item() if isinstance(n, Tensor) else n for n in counts] if isinstance(counts, Sequence) else counts
    )
    if array.dtype == object:  # of pandas, or numbers of several kinds
        array = np.array([number("a count", n) for n in array.ravel()]).reshape(array.shape)
    return array.astype(array.dtype.newbyteorder("="))


def checked_targets(logits: Sequence[Tensor], targets: Tensor, counts: Tensor) -> Tensor:
    """The targets as int64 [B] or as soft targets; shapes and devices are checked, values would force a GPU sync."""
    soft = isinstance(targets, Tensor) and targets.is_floating_point() and targets.dim() == 2
    if not soft and not (isinstance(targets, Tensor) and targets.dim() == 1 and _whole(targets)):
        what = f"{targets.dtype} {list(targets.shape)}" if isinstance(targets, Tensor) else type(targets).__name__
        raise TypeError(
            f"targets must be a tensor of class numbers, int64 [B], not {what}: try .long() for whole numbers and "
            f".squeeze(1) for a column; soft targets are floats [B, C]"
        )
    wanted = [len(targets), len(counts)]
    if soft and list(targets.shape) != wanted:
        raise ValueError(f"soft targets must be {wanted}, a column for each class, these are {list(targets.shape)}")
    if targets.device != counts.device:
        raise ValueError(
            f"the targets are on {targets.device}, the loss with its counts on {counts.device}: targets.to(device), "
            f"criterion.to(device)"
        )
    for f in logits:
        if not isinstance(f, Tensor):
            raise TypeError(f"logits must be tensors [B, C], not {type(f).__name__}: a list of them is for MBIBLoss")
        if f.device != counts.device:
            raise ValueError(
                f"the logits are on {f.device}, the loss with its counts on {counts.device}: criterion.to(device)"
            )
        if list(f.shape) != wanted:
            raise ValueError(
                f"logits must be {wanted}, a row for each target and a column for each class that has a count, these "
                f"are {list(f.shape)}"
            )
    return targets if soft else targets.long()


def _whole(targets: Tensor) -> bool:
    return not (targets.is_floating_point() or targets.is_complex() or targets.dtype == torch.bool)
