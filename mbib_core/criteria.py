"""The losses as modules for any training loop: they hold the counts and the settings, and check their input."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

from torch import Tensor, nn

from mbib_core import rebalancing
from mbib_core.checks import as_counts, check_counts, check_settings, checked_targets, number
from mbib_core.losses import (
    Counts,
    Logits,
    Loss,
    Targets,
    _full,
    _mixture,
    balanced_softmax,
    bib,
    class_temperatures,
    mbib,
    self_distillation,
)
from mbib_core.settings import SETTINGS, check_range


class Terms(NamedTuple):
    """The parts of a loss l_v + l_z + beta l_vsd, each in nats; in MBIB l_v and l_vsd are means with the alphas."""

    l_v: Loss
    l_z: Loss
    l_vsd: Loss


class _Criterion(nn.Module):
    """What the losses below hold: counts [C] as a buffer, `label_smoothing` and `reduction`."""

    counts: Tensor

    def __init__(self, counts: Counts | Sequence[int], label_smoothing: float = 0.0, reduction: str = "mean"):
        super().__init__()
        counts = as_counts(counts)
        check_counts(counts)
        if not 0 <= number("label_smoothing", label_smoothing) <= 1:
            raise ValueError(f"label_smoothing is {label_smoothing}: it must be a number from 0 to 1")
        if reduction not in ("mean", "sum", "none"):
            raise ValueError(f"reduction is {reduction!r}: it must be mean, sum or none")
        self.register_buffer("counts", counts)
        self.label_smoothing, self.reduction = float(label_smoothing), reduction

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "_Criterion":
        """Moves the counts, but never rounds them: in half precision a million is infinite."""
        counts = self.counts
        super()._apply(fn, recurse)
        if self.counts.dtype != counts.dtype:
            self.counts = counts.to(self.counts.device)
        return self


class BIBLoss(_Criterion):
    """`bib` for any training loop: `BIBLoss(counts, beta=1.0)(v_logits, z_logits, targets)`.

    `counts` [C] are the training pictures of each class in the order of the labels, `torch.bincount(labels,
    minlength=C)`; they become a buffer and move with the module. `targets` are class numbers [B] or soft targets
    [B, C]. Every picture needs a label: see `bib` for PyTorch's -100. `terms` returns L_v, L_z and L_VSD apart.

    With k > 0 each mean divides by the weights of its own batch, as in PyTorch, so gradients accumulated over parts of
    a batch are not those of the whole; `reduction="sum"`, divided by the number of pictures, does not depend on the
    parts.

    Raises ValueError on counts below 1, on settings out of range, and on logits of another shape than targets and
    counts or on another device; TypeError on counts that are no list, array or tensor of numbers, on settings that are
    no numbers, and on targets that are neither class numbers nor soft targets.
    """

    def __init__(
        self,
        counts: Counts | Sequence[int],
        *,
        beta: float,
        k: float = 0.0,
        gamma: float = 0.0,
        tau: float = 1.0,
        label_smoothing: float = 0.0,
        reduction: str = "mean",
    ):
        super().__init__(counts, label_smoothing, reduction)
        check_settings(beta=beta, k=k, gamma=gamma, tau=tau, counts=self.counts)
        self.beta, self.k, self.gamma, self.tau = float(beta), float(k), float(gamma), float(tau)
        self.alphas: tuple[float, ...] = ()

    def forward(self, v_logits: Logits, z_logits: Logits, targets: Targets) -> Loss:
        targets = checked_targets((v_logits, z_logits), targets, self.counts)
        return bib(v_logits, z_logits, targets, beta=self.beta, gamma=self.gamma, **self._options)

    def terms(self, v_logits: Logits | Sequence[Logits], z_logits: Logits, targets: Targets) -> Terms:
        """L_v, L_z and L_VSD of the same arguments as the loss, with their gradients; `beta` is not in L_VSD."""
        v_logits = [v_logits] if isinstance(v_logits, Tensor) else v_logits
        targets = checked_targets((*v_logits, z_logits), targets, self.counts)
        temperature = class_temperatures(self.counts, self.gamma) if self.gamma else 1.0
        own: dict[str, Any] = {"temperature": temperature, "reduction": self.reduction}
        return Terms(
            l_v=_mixture([balanced_softmax(v_i, targets, **self._options) for v_i in v_logits], self.alphas),
            l_z=balanced_softmax(z_logits, targets, **self._options),
            l_vsd=_mixture([self_distillation(v_i, z_logits, **own) for v_i in v_logits], self.alphas),
        )

    @property
    def _options(self) -> dict[str, Any]:
        names = ("counts", "k", "tau", "label_smoothing", "reduction")
        return {name: getattr(self, name) for name in names}


class MBIBLoss(BIBLoss):
    """`mbib` for any training loop: `MBIBLoss(counts, alphas=(0.1, 0.3), beta=1.0)([v1, v2, v3], z, targets)`.

    The logits of the observations run from shallow to deep; `alphas` are one for each but the deepest, which the first
    batch checks (`methods.shared_alphas` has some for other numbers than two). `settings` and the rest are those of
    `BIBLoss`.
    """

    def __init__(self, counts: Counts | Sequence[int], *, alphas: Sequence[float], beta: float, **settings: Any):
        super().__init__(counts, beta=beta, **settings)
        check_settings(alphas=alphas)
        self.alphas = tuple(float(alpha) for alpha in alphas)

    def forward(self, v_logits: Sequence[Logits], z_logits: Logits, targets: Targets) -> Loss:  # type: ignore[override]
        targets = checked_targets((*v_logits, z_logits), targets, self.counts)
        own: dict[str, Any] = {"alphas": self.alphas, "beta": self.beta, "gamma": self.gamma}
        return mbib(v_logits, z_logits, targets, **own, **self._options)


class LogitLoss(_Criterion):
    """A loss of one classifier for any training loop: `LDAMLoss(counts)(logits, targets)`.

    Each subclass is a function of `losses` or `rebalancing` with its settings. `counts`, `targets`, `label_smoothing`,
    `reduction` and what is raised are those of `BIBLoss`; what a subclass cannot take, it says.
    """

    function: Callable[..., Loss]
    soft = True  # whether targets may be soft

    def __init__(self, counts: Counts | Sequence[int], settings: Mapping[str, float], **options: Any):
        super().__init__(counts, **options)
        self.settings = {name: number(name, value) for name, value in settings.items()}
        self.options = {name: getattr(self, name) for name in options}
        for name in self.settings.keys() & SETTINGS.keys():
            check_range(name, self.settings[name])
        check_settings(gamma=self.settings.get("gamma", 0.0), k=self.settings.get("k", 0.0), counts=self.counts)

    def forward(self, logits: Logits, targets: Targets) -> Loss:
        return self._of(logits, targets)

    def _of(self, logits: Logits, targets: Targets, **progress: float) -> Loss:
        targets = checked_targets((logits,), targets, self.counts)
        if targets.is_floating_point() and not self.soft:
            raise TypeError(
                f"{type(self).__name__} takes class numbers alone, int64 [B]: soft targets name no one class"
            )
        return self.function(_full(logits), targets, counts=self.counts, **self.settings, **self.options, **progress)


class BalancedSoftmaxLoss(LogitLoss):
    """The loss `losses.balanced_softmax` (Ren et al. 2020); with `tau` other than 1 logit adjustment (Menon et al.
    2021)."""

    function = staticmethod(balanced_softmax)

    def __init__(self, counts: Counts | Sequence[int], *, k: float = 0.0, tau: float = 1.0, **options: Any):
        super().__init__(counts, {"k": k, "tau": tau}, **options)


class VSLoss(LogitLoss):
    """The loss `rebalancing.vector_scaling` (Kini et al. 2021)."""

    function = staticmethod(rebalancing.vector_scaling)

    def __init__(self, counts: Counts | Sequence[int], *, gamma: float = 0.2, tau: float = 1.2, **options: Any):
        super().__init__(counts, {"gamma": gamma, "tau": tau}, **options)


class CDTLoss(LogitLoss):
    """The loss `rebalancing.vector_scaling` with tau = 0 (Ye et al. 2020)."""

    function = staticmethod(partial(rebalancing.vector_scaling, tau=0.0))

    def __init__(self, counts: Counts | Sequence[int], *, gamma: float = 0.2, **options: Any):
        super().__init__(counts, {"gamma": gamma}, **options)


class ClassBalancedLoss(LogitLoss):
    """The loss `rebalancing.class_balanced` (Cui et al. 2019). With `deferred` = 0.8 it is DRW: `criterion(logits,
    targets, progress)`, where `progress` is the share of the epochs that are done."""

    function = staticmethod(rebalancing.class_balanced)

    def __init__(
        self, counts: Counts | Sequence[int], *, effective: float = 0.9999, deferred: float = 0.0, **options: Any
    ):
        super().__init__(counts, {"effective": effective, "deferred": deferred}, **options)

    def forward(self, logits: Logits, targets: Targets, progress: float = 0.0) -> Loss:
        return self._of(logits, targets, progress=progress)


class LDAMLoss(LogitLoss):
    """The loss `rebalancing.ldam` (Cao et al. 2019) of logits that are `scale` times cosines; `progress` as in
    `ClassBalancedLoss`. No soft targets: a margin belongs to one class."""

    function = staticmethod(rebalancing.ldam)
    soft = False

    def __init__(
        self,
        counts: Counts | Sequence[int],
        *,
        margin: float = 0.5,
        scale: float = 30.0,
        effective: float = 0.9999,
        deferred: float = 0.8,
        **options: Any,
    ):
        settings = {"margin": margin, "scale": scale, "effective": effective, "deferred": deferred}
        super().__init__(counts, settings, **options)

    def forward(self, logits: Logits, targets: Targets, progress: float = 0.0) -> Loss:
        return self._of(logits, targets, progress=progress)


class FocalLoss(LogitLoss):
    """The loss `rebalancing.focal` (Lin et al. 2017). Neither soft targets nor smoothing: it asks how sure the network
    is of one class."""

    function = staticmethod(lambda logits, targets, *, counts, **own: rebalancing.focal(logits, targets, **own))
    soft = False

    def __init__(self, counts: Counts | Sequence[int], *, focus: float = 1.0, reduction: str = "mean"):
        super().__init__(counts, {"focus": focus}, reduction=reduction)


class ClassBalancedFocalLoss(LogitLoss):
    """The loss `rebalancing.class_balanced_focal` (Cui et al. 2019). Neither soft targets nor smoothing: the weight is
    that of one class."""

    function = staticmethod(rebalancing.class_balanced_focal)
    soft = False

    def __init__(
        self,
        counts: Counts | Sequence[int],
        *,
        focus: float = 0.5,
        effective: float = 0.999,
        reduction: str = "mean",
    ):
        super().__init__(counts, {"focus": focus, "effective": effective}, reduction=reduction)


class LADELoss(LogitLoss):
    """The loss `rebalancing.lade` (Hong et al. 2021). Neither soft targets nor smoothing, as it takes means over the
    images of a class, and no other reduction: its second term is one of the whole batch."""

    function = staticmethod(rebalancing.lade)
    soft = False

    def __init__(self, counts: Counts | Sequence[int], *, lader: float = 0.1, lader_square: float = 0.01):
        super().__init__(counts, {"lader": lader, "lader_square": lader_square})


class SeesawLoss(LogitLoss):
    """The loss `rebalancing.seesaw` (Wang et al. 2021). No soft targets: its weights are ratios to one class."""

    function = staticmethod(rebalancing.seesaw)
    soft = False

    def __init__(
        self, counts: Counts | Sequence[int], *, mitigation: float = 0.8, compensation: float = 2.0, **options: Any
    ):
        super().__init__(counts, {"mitigation": mitigation, "compensation": compensation}, **options)
