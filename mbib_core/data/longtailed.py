"""What a long-tailed data set is: its images, counts, split and shots; and one made from your own arrays."""

import hashlib
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor


class Images(NamedTuple):
    """N pictures and their labels."""

    x: UInt8[Tensor, "n 3 h w"]
    y: Int[Tensor, " n"]


@dataclass(frozen=True)
class LongTailed:
    """A long-tailed training set with validation and test pictures of the same classes.

    `flip` says whether a mirrored picture is still one of its class: true of animals, not of letters. `fingerprint`
    tells pictures of one's own apart from those that had the same name before; None for a published data set.
    Raises ValueError or TypeError with a sentence if the pictures are not uint8 [N, 3, H, W], the labels are not
    int64 in 0 .. C-1, there are fewer than two classes, or a class has no training picture.
    """

    name: str
    train: Images
    validation: Images
    test: Images
    classes: list[str]
    flip: bool = True
    fingerprint: str | None = None

    def __post_init__(self) -> None:
        if len(self.classes) < 2:
            raise ValueError(f"{self.name} has {len(self.classes)} classes: recognition needs two or more")
        for part in ("train", "validation", "test"):
            _check_images(f"{self.name} {part}", getattr(self, part), len(self.classes))
        empty = [self.classes[i] for i in (self.counts == 0).nonzero().flatten().tolist()]
        if empty:
            raise ValueError(
                f"{self.name}: no training picture of {', '.join(empty[:5])}; add some, or drop the class and number "
                f"the others anew, from 0"
            )

    @cached_property
    def counts(self) -> Int[Tensor, " c"]:
        """Training pictures of each class, n_i."""
        return self.train.y.bincount(minlength=len(self.classes))

    @cached_property
    def shots(self) -> dict[str, Bool[Tensor, " c"]]:
        """The classes of each shot that the data set has: see `shots`."""
        return shots(self.counts)


def shots(counts: Int[Tensor, " c"]) -> dict[str, Bool[Tensor, " c"]]:
    """Classes with many (> 100), medium (20 to 100) and few (< 20) training pictures, as masks [C] (Liu et al. 2019).

    A shot without classes is left out: it has no accuracy, not one of zero.
    """
    masks = {"many": counts > 100, "medium": (counts >= 20) & (counts <= 100), "few": counts < 20}
    return {shot: mask for shot, mask in masks.items() if bool(mask.any())}


def long_tailed_counts(largest: int, classes: int, imbalance: float) -> list[int]:
    """n_i = int(n_1 F^(-i / (C - 1))): an exponential profile from `largest` pictures down to `largest` / F.

    Raises ValueError if there are fewer than two classes, the imbalance factor F is below 1 or leaves a class without
    pictures.
    """
    if classes < 2:
        raise ValueError(f"a long tail needs two classes or more, not {classes}")
    if not imbalance >= 1:
        raise ValueError(
            f"imbalance factor {imbalance:g} must be 1 or larger: it is the largest count over the smallest"
        )
    counts = [int(largest * (1 / imbalance) ** (i / (classes - 1.0))) for i in range(classes)]
    if counts[-1] < 1:
        raise ValueError(
            f"imbalance factor {imbalance:g} leaves the last class empty: the largest has {largest} pictures"
        )
    return counts


def long_tailed_indices(labels: Int[Tensor, " n"], imbalance: float, *, seed: int = 0) -> Int[Tensor, " m"]:
    """Positions of a long-tailed subset of balanced `labels` [N], drawn as Cao et al. 2019 draw CIFAR-LT.

    In label order, class i keeps the first `long_tailed_counts` of its positions after a shuffle by
    `numpy.random.RandomState(seed)`. The published split's seed is 0, whatever the seed of a run. Subsets of a larger
    imbalance lie inside those of a smaller one. Raises ValueError as `long_tailed_counts` does, and if a class has
    too few pictures.
    """
    y = labels.numpy()
    classes = np.unique(y)
    counts = long_tailed_counts(len(y) // len(classes), len(classes), imbalance)
    random = np.random.RandomState(seed)
    chosen = []
    for label, n in zip(classes, counts, strict=True):
        positions = np.where(y == label)[0]
        if len(positions) < n:
            raise ValueError(f"class {label} has {len(positions)} pictures, the long-tailed set wants {n} of them")
        random.shuffle(positions)
        chosen.append(positions[:n])
    return torch.from_numpy(np.concatenate(chosen))


def from_arrays(
    name: str,
    *,
    train: tuple[Any, Any],
    validation: tuple[Any, Any],
    test: tuple[Any, Any],
    classes: list[str] | None = None,
    flip: bool = True,
) -> LongTailed:
    """A data set of your own from three pairs of pictures and labels, NumPy arrays or tensors.

    Pictures are uint8 [N, H, W, 3] or [N, 3, H, W], all of one size (32 x 32 is what the networks are made for), labels
    whole numbers [N] from 0. Without `classes` the names are the numbers, up to the largest training label. Raises
    TypeError or ValueError with a sentence on anything else, and as `LongTailed` does.
    """
    pairs = {"train": train, "validation": validation, "test": test}
    parts = {part: Images(*_own_images(f"{name} {part}", *pair)) for part, pair in pairs.items()}
    sizes = {part: tuple(images.x.shape[2:]) for part, images in parts.items()}
    if len(set(sizes.values())) > 1:
        raise ValueError(f"{name}: the pictures of all parts must have one size (H, W), these have {sizes}")
    digest = hashlib.sha256()
    for images in parts.values():
        digest.update(images.x.numpy().tobytes() + images.y.numpy().tobytes())
    names = [str(i) for i in range(int(parts["train"].y.max()) + 1)] if classes is None else list(classes)
    ours = parts["train"], parts["validation"], parts["test"]
    return LongTailed(name, *ours, names, flip=flip, fingerprint=digest.hexdigest()[:8])


def channel_statistics(x: UInt8[Tensor, "n 3 h w"]) -> tuple[Float[Tensor, "3"], Float[Tensor, "3"]]:
    """Mean and standard deviation of each colour channel over all pictures, in 0 to 255."""
    n = x.numel() / 3
    totals = torch.zeros(3, 256, dtype=torch.float64)
    for part in x.split(1000):  # as whole numbers a picture takes eight times its memory
        totals += torch.stack([part[:, c].flatten().long().bincount(minlength=256) for c in range(3)])
    levels = torch.arange(256, dtype=torch.float64)
    mean = totals @ levels / n
    variance = totals @ levels**2 / n - mean**2
    return mean.float(), variance.clamp(min=1).sqrt().float()


def first_of_each_class(images: Images, n: int) -> Images:
    """The first `n` pictures of each class, in the order they stand."""
    rank = torch.zeros_like(images.y)
    for label in images.y.unique():
        own = images.y == label
        rank[own] = torch.arange(int(own.sum()))
    return Images(images.x[rank < n], images.y[rank < n])


def _own_images(what: str, x: Any, y: Any) -> tuple[UInt8[Tensor, "n 3 h w"], Int[Tensor, " n"]]:
    """Pictures and labels of `from_arrays` as the trainer wants them."""
    x, y = (torch.as_tensor(v if isinstance(v, Tensor) else np.array(v)).detach().cpu() for v in (x, y))
    if x.dtype != torch.uint8:
        hint = "; multiply what runs from 0 to 1 by 255, round it, and convert it" if x.is_floating_point() else ""
        raise TypeError(f"{what}: pictures must be uint8, from 0 to 255, these are {x.dtype}{hint}")
    first, last = x.dim() == 4 and x.shape[1] == 3, x.dim() == 4 and x.shape[3] == 3
    if first == last:
        reason = "either could be the colours" if first else "a grey picture needs its channel three times"
        raise ValueError(f"{what}: pictures must be [N, H, W, 3] or [N, 3, H, W], these are {list(x.shape)}: {reason}")
    if y.is_floating_point() or y.is_complex() or y.dtype == torch.bool or y.shape != x.shape[:1]:
        raise TypeError(f"{what}: labels must be whole numbers [{len(x)}], these are {y.dtype} {list(y.shape)}")
    if not len(y):
        raise ValueError(f"{what}: there are no pictures")
    return (x if first else x.permute(0, 3, 1, 2)).contiguous(), y.long()


def _check_images(what: str, images: Images, classes: int) -> None:
    x, y = images
    if x.dtype != torch.uint8 or x.dim() != 4 or x.shape[1] != 3:
        raise TypeError(f"{what}: pictures must be uint8 [N, 3, H, W], these are {x.dtype} {list(x.shape)}")
    if y.dtype != torch.int64 or y.shape != x.shape[:1]:
        raise TypeError(f"{what}: labels must be int64 [{len(x)}], these are {y.dtype} {list(y.shape)}")
    if len(y) and not 0 <= int(y.min()) <= int(y.max()) < classes:
        raise ValueError(f"{what}: labels run from {int(y.min())} to {int(y.max())}, outside 0 to {classes - 1}")
