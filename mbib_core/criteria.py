"""The losses as modules for any training loop: they hold the counts and the settings, and check what they are given."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mbib_core.losses import Counts, Logits, Scalar, Targets, bib, mbib


class BIBLoss(nn.Module):
    """`bib` for any training loop: `BIBLoss(counts, beta=1.0)(v_logits, z_logits, targets)`.

    `counts` [C] are the training pictures of each class in the order of the labels, `torch.bincount(labels,
    minlength=C)`; they become a buffer and move with the module. Every label must be a class: see `bib`.

    Raises ValueError on counts below 1, on a negative beta, k or gamma, and on logits of another shape than targets
    and counts or on another device; TypeError on counts that are no list, array or tensor, and on targets that are no
    class numbers.
    """

    counts: Tensor

    def __init__(self, counts: Counts | Sequence[int], *, beta: float, k: float = 0.0, gamma: float = 0.0):
        super().__init__()
        counts = _as_counts(counts)
        check_counts(counts)
        check_settings(beta=beta, k=k, gamma=gamma)
        # Kept as whole numbers where they are: `model.half()` turns floats, and a million would become infinite.
        whole = counts.long()
        self.register_buffer("counts", whole if bool((whole == counts).all()) else counts)
        self.beta, self.k, self.gamma = beta, k, gamma

    def forward(self, v_logits: Logits, z_logits: Logits, targets: Targets) -> Scalar:
        _check_batch((v_logits, z_logits), targets, self.counts)
        return bib(v_logits, z_logits, targets.long(), counts=self.counts, beta=self.beta, k=self.k, gamma=self.gamma)


class MBIBLoss(BIBLoss):
    """`mbib` for any training loop: `MBIBLoss(counts, alphas=(0.1, 0.3), beta=1.0)([v1, v2, v3], z, targets)`.

    The logits of the observations run from shallow to deep; `alphas` are one for each but the deepest, which the first
    batch checks (`methods.shared_alphas` has some for other numbers than two). The rest is as in `BIBLoss`.
    """

    def __init__(
        self,
        counts: Counts | Sequence[int],
        *,
        alphas: Sequence[float],
        beta: float,
        k: float = 0.0,
        gamma: float = 0.0,
    ):
        super().__init__(counts, beta=beta, k=k, gamma=gamma)
        check_settings(alphas=alphas)
        self.alphas = tuple(alphas)

    def forward(self, v_logits: Sequence[Logits], z_logits: Logits, targets: Targets) -> Scalar:  # type: ignore[override]
        _check_batch((*v_logits, z_logits), targets, self.counts)
        own = {"beta": self.beta, "k": self.k, "gamma": self.gamma}
        return mbib(v_logits, z_logits, targets.long(), counts=self.counts, alphas=self.alphas, **own)


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
            f"pictures, or leave the classes out and number the others anew"
        )


def check_settings(*, alphas: Sequence[float] = (), beta: float = 0.0, k: float = 0.0, gamma: float = 0.0) -> None:
    """Raises ValueError if beta, k or gamma is negative or not finite, or alphas are negative or sum past 1."""
    for name, value in {"beta": beta, "k": k, "gamma": gamma}.items():
        if not 0 <= value < float("inf"):
            raise ValueError(f"{name} is {value}: it must be a finite number, 0 or larger")
    if not all(alpha >= 0 for alpha in alphas) or not sum(alphas) <= 1 + 1e-9:  # decimals add up a little past 1
        raise ValueError(f"alphas {tuple(alphas)} must be 0 or larger and sum to at most 1: they are proportions")


def _as_counts(counts: Any) -> Tensor:
    """A copy of `counts` as a tensor; a dict or a pandas Series would lose which class a number belongs to."""
    if hasattr(counts, "iloc") or not (isinstance(counts, Sequence) or hasattr(counts, "__array__")):
        raise TypeError(
            f"counts must be a list, array or tensor with the pictures of class 0, 1, 2 ..., not a "
            f"{type(counts).__name__}: torch.bincount(labels, minlength=classes)"
        )
    counts = torch.as_tensor(counts if isinstance(counts, Tensor) else np.array(counts))
    return counts.clone() if counts.is_floating_point() else counts.long().clone()


def _check_batch(logits: Sequence[Tensor], targets: Tensor, counts: Tensor) -> None:
    """A look at shapes and devices alone: one at the labels' values would make a GPU's processor wait."""
    if not isinstance(targets, Tensor) or targets.dim() != 1 or targets.dtype not in (torch.int64, torch.uint8):
        what = f"{targets.dtype} {list(targets.shape)}" if isinstance(targets, Tensor) else type(targets).__name__
        raise TypeError(f"targets must be a tensor of class numbers, int64 [B], not {what}; whole numbers: .long()")
    wanted = [len(targets), len(counts)]
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
