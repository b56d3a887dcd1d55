"""The table of methods: name -> network, loss and settings; and what was chosen on validation pictures."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from torch import Tensor
from torch.nn import functional as F

from mbib_core import losses
from mbib_core.criteria import check_settings
from mbib_core.networks.bottleneck import Bottleneck, Outputs
from mbib_core.networks.resnet import ResNet, even_taps
from mbib_core.schedules import SCHEDULES
from mbib_core.settings import Settings, named

LOSS_SETTINGS = ("alphas", "beta", "k", "gamma")


@dataclass(frozen=True)
class Method:
    """One way to train: how many observations, whether there is a z, and the loss of their logits.

    `taps` counts the observations; with `picture` the first of them is the picture itself. `with_v` and `with_z` say
    which classifiers there are. `adjusted` adds a prediction that subtracts the log counts after training. `alphas`,
    `beta`, `k` and `gamma` are settings of the loss; None is a setting that the method does not have.
    """

    title: str
    objective: Callable[..., Tensor]
    taps: int = 1
    picture: bool = False
    with_v: bool = True
    with_z: bool = True
    adjusted: bool = False
    alphas: tuple[float, ...] | None = None
    beta: float | None = None
    k: float | None = None
    gamma: float | None = None

    @property
    def loss_settings(self) -> dict[str, Any]:
        """The settings of the loss that this method has, by name."""
        own = {name: getattr(self, name) for name in LOSS_SETTINGS}
        return {name: value for name, value in own.items() if value is not None}

    def network(
        self,
        classes: int,
        *,
        depth: int = 32,
        mean: Sequence[float] | Tensor = (127.5,) * 3,
        std: Sequence[float] | Tensor = (64.0,) * 3,
    ) -> Bottleneck:
        """A new network of this method on ResNet-`depth`; `mean` and `std` [3] normalise the pictures."""
        taps = (0, *even_taps(depth, self.taps - 1)) if self.picture else even_taps(depth, self.taps)
        return Bottleneck(ResNet(depth, taps), classes, with_v=self.with_v, with_z=self.with_z, mean=mean, std=std)

    def loss(self, outputs: Outputs, targets: Tensor, counts: Tensor) -> Tensor:
        """The loss of one batch, a scalar in nats; `targets` [B], training `counts` [C]."""
        return self.objective(outputs, targets, counts=counts, **self.loss_settings)


def shared_alphas(n: int) -> tuple[float, ...]:
    """Shares of the n - 1 shallow observations: 0.4 in the proportion 1 : 3 : 5 ... (inferred; n = 3: 0.1, 0.3)."""
    return tuple(0.4 * (2 * i + 1) / (n - 1) ** 2 for i in range(n - 1))


def _ce(o: Any, y: Tensor, counts: Tensor) -> Tensor:
    return F.cross_entropy(o.v_logits[-1], y)


def _on_v(o: Any, y: Tensor, **own: Any) -> Tensor:
    return losses.balanced_softmax(o.v_logits[-1], y, **own)


def _on_z(o: Any, y: Tensor, **own: Any) -> Tensor:
    return losses.balanced_softmax(o.z_logits, y, **own)


def _on_both(o: Any, y: Tensor, **own: Any) -> Tensor:
    return losses.bib(o.v_logits[-1], o.z_logits, y, **own)


def _on_all(loss: Callable[..., Tensor], **fixed: Any) -> Callable[..., Tensor]:
    return lambda o, y, **own: loss(o.v_logits, o.z_logits, y, **fixed, **own)


def _consistent(o: Any, y: Tensor, **own: Any) -> Tensor:
    return losses.mbib(o.v_logits, o.z_logits, y, tau=1 - own["k"], **own)


def _methods(
    *, alphas: tuple[float, ...] = (0.1, 0.3), beta: float = 1.0, k: float = 0.0, gamma: float = 0.0
) -> dict[str, Method]:
    """The table with these settings of BIB and MBIB; what their variants fix is theirs."""
    of_bib: dict[str, Any] = {"beta": beta, "k": k, "gamma": gamma}
    of_mbib: dict[str, Any] = {"taps": 3, "alphas": alphas} | of_bib
    four: dict[str, Any] = {"taps": 4, "alphas": shared_alphas(4)}
    return {
        "ce": Method("cross-entropy", _ce, with_z=False, adjusted=True),
        "bsce": Method("balanced softmax", _on_v, with_z=False, k=0.0),
        "bib": Method("BIB", _on_both, **of_bib),
        "mbib": Method("MBIB", _on_all(losses.mbib), **of_mbib),
        # Parts of BIB (appendices B and C).
        "ce-2branch": Method("cross-entropy, two branches", partial(_on_both, beta=0.0, tau=0.0)),
        "sdib": Method("BIB without balance", partial(_on_both, tau=0.0), beta=beta, gamma=gamma),
        "bsce-mlp": Method("balanced softmax on z alone", _on_z, with_v=False, k=k),
        "bsce-2branch": Method("balanced softmax, two branches", partial(_on_both, beta=0.0), k=k),
        # Other mixtures (appendix F, table 4).
        "se-mbib": Method("SE-MBIB", _on_all(losses.se_mbib), **of_mbib),
        "all-mbib": Method("ALL-MBIB", _on_all(losses.all_mbib), **of_mbib),
        "mbib-x": Method("MBIB from the picture, too", _on_all(losses.mbib), picture=True, **of_mbib | four),
        # MBIB with less balance (table 9).
        "mbib-no-adjustment": Method("MBIB, class weights only", _on_all(losses.mbib, tau=0.0), **of_mbib),
        "mbib-no-weights": Method("MBIB, logit adjustment only", _on_all(losses.mbib, k=0.0), **of_mbib | {"k": None}),
        "mbib-no-balance": Method("MBIB, no balance", _on_all(losses.mbib, k=0.0, tau=0.0), **of_mbib | {"k": None}),
        # Controls that the paper lacks.
        "mbib-beta0": Method("MBIB, beta = 0", _on_all(losses.mbib), **of_mbib | {"beta": 0.0}),
        "mbib-deepest": Method("MBIB, z taught by v_3 alone", _on_all(losses.deepest_mbib), **of_mbib),
        "mbib-consistent": Method("MBIB, weights n^-k with n^(1-k)", _consistent, **of_mbib | {"k": 0.5}),
    }


# alphas, beta, k and gamma are lost from the paper's text. These are starting points, fixed before any run.
METHODS: dict[str, Method] = _methods()
# What was chosen on validation pictures of a data set, by the rule of the chapter on ablations and from the records of
# CIFAR-100-LT, factor 100, in book/results. All other data keep the starting points.
CHOSEN: dict[str, dict[str, Any]] = {"cifar100-lt": {"k": 0.1}}


def methods_on(data: str) -> dict[str, Method]:
    """`METHODS` with the settings that were chosen on the data set `data`; as they are where none were."""
    return METHODS | _methods(**CHOSEN[data]) if data in CHOSEN else METHODS


def settle(settings: Settings) -> Settings:
    """`settings` with every empty value filled in, as it is trained, recorded and hashed.

    Raises ValueError with a sentence on an unknown method, schedule, precision or purpose, on a setting that the
    method does not have, and on values out of range.
    """
    method = named(methods_on(settings.data), settings.method, "method")
    usual = "folder" if settings.own_pictures else {"glyphs-lt": "glyphs"}.get(settings.data, "paper")
    schedule = settings.schedule or usual
    epochs = settings.epochs if settings.epochs is not None else named(SCHEDULES, schedule, "schedule").epochs
    taps = settings.taps if settings.taps is not None else method.taps
    filled: dict[str, Any] = {"schedule": schedule, "epochs": epochs, "taps": taps}
    for name in LOSS_SETTINGS:
        frozen, asked = getattr(method, name), getattr(settings, name)
        if frozen is None and asked is not None:
            raise ValueError(f"{settings.method} has no {name}: leave it out")
        filled[name] = frozen if asked is None else asked
    if taps != method.taps:
        if method.alphas is None:
            raise ValueError(f"{settings.method} has {method.taps} observation: leave taps out")
        filled["alphas"] = settings.alphas if settings.alphas is not None else shared_alphas(taps)
    settled = replace(settings, **filled)
    _check(settled)
    return settled


def method_of(settings: Settings) -> Method:
    """The method of settled `settings`, with their loss settings in place of the frozen ones."""
    own = {name: getattr(settings, name) for name in ("taps", *LOSS_SETTINGS)}
    return replace(named(METHODS, settings.method, "method"), **own)


def _check(s: Settings) -> None:
    check_settings(alphas=s.alphas or (), beta=s.beta or 0.0, k=s.k or 0.0, gamma=s.gamma or 0.0)
    observations = 1 if s.taps is None else s.taps
    of_the_network = observations - METHODS[s.method].picture
    schedule = named(SCHEDULES, str(s.schedule), "schedule")
    even_taps(schedule.depth, of_the_network)
    if METHODS[s.method].picture and schedule.scale(0, 100) < 1:
        raise ValueError(
            f"{s.method} observes the picture itself, which {s.schedule} makes smaller: ask for another schedule"
        )
    if s.alphas is not None and len(s.alphas) != observations - 1:
        raise ValueError(f"{s.taps} observations need {observations - 1} alphas, not {len(s.alphas)}: {s.alphas}")
    if s.own_pictures and s.imbalance != Settings.imbalance:
        kind = "arrays" if s.folder is None else "a folder"
        raise ValueError(f"imbalance does not apply to {kind}, whose own counts are the long tail: leave it out")
    for name, value, allowed in (
        ("precision", s.precision, ("auto", "float32", "bfloat16", "float16")),
        ("purpose", s.purpose, ("final", "choosing")),
    ):
        if value not in allowed:
            raise ValueError(f"{name} is {value!r}: it must be one of {', '.join(allowed)}")
    for name, number, least, most in (
        ("epochs", s.epochs or 0, 1, 10**6),
        ("seed", s.seed, 0, 2**32 - 1),
        ("threads", s.threads, 0, 1024),
    ):
        if not least <= number <= most:
            raise ValueError(f"{name} is {number}: it must be a whole number from {least} to {most}")
