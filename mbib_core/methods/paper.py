"""The paper's own methods: BIB, MBIB, their variants and parts, and controls that the paper lacks."""

from collections.abc import Sequence
from functools import partial
from typing import Any

from torch import Tensor
from torch.nn import functional as F

from mbib_core import losses
from mbib_core.losses import Counts, Logits
from mbib_core.methods.method import Method, Stage, on_all, on_both, on_v, on_z
from mbib_core.networks import Network, Outputs, predictions
from mbib_core.rebalancing import Scalar, Targets
from mbib_core.settings import Value

# alphas, beta, k and gamma are lost from the paper's text. These are starting points, fixed before any run.
START: dict[str, Value] = {"alphas": (0.1, 0.3), "beta": 1.0, "k": 0.0, "gamma": 0.0}
OF_BIB, OF_MBIB = ("beta", "k", "gamma"), ("alphas", "beta", "k", "gamma")
V_ALONE, Z_ALONE, BOTH, THREE = Network(with_z=False), Network(with_v=False), Network(), Network(taps=3)


def shared_alphas(n: int) -> tuple[float, ...]:
    """Shares of the n - 1 shallow observations: 0.4 in the proportion 1 : 3 : 5 ... (inferred; n = 3: 0.1, 0.3)."""
    return tuple(0.4 * (2 * i + 1) / (n - 1) ** 2 for i in range(n - 1))


def adjusted(outputs: Outputs, counts: Tensor) -> dict[str, Tensor]:
    """The predictions, and the network's own with the log counts taken off after training (Menon et al. 2021)."""
    found = predictions(outputs)
    return found | {"adjusted": next(iter(found.values())) - counts.log()}


def cross_entropy(logits: Logits, targets: Targets) -> Scalar:
    return F.cross_entropy(logits, targets)


def consistent_mbib(
    v_logits: Sequence[Logits], z_logits: Logits, targets: Targets, *, counts: Counts, k: float, **settings: Any
) -> Scalar:
    """MBIB whose adjustment is (1 - k) log n, which stays consistent with weights n^(-k)."""
    return losses.mbib(v_logits, z_logits, targets, counts=counts, k=k, tau=1 - k, **settings)


# `own` are fixed here; the `shared` settings start from `START`.
def _row(title: str, about: str, loss: Any, parts: Network, shared: Sequence[str] = (), **own: Value) -> Method:
    started = {name: START[name] for name in shared}
    return Method(title, (Stage(loss),), parts, started | own, tuple(shared), about=about)


def _mbib(
    title: str, about: str, loss: Any, parts: Network = THREE, without: Sequence[str] = (), **own: Value
) -> Method:
    shared = [name for name in OF_MBIB if name not in (*without, *own)]
    return _row(title, about, on_all(loss), parts, shared, **own)


CE = Stage(on_v(cross_entropy))
FROM_IMAGE = Network(taps=4, picture=True)

PAPER: dict[str, Method] = {
    "ce": Method(
        "cross-entropy",
        (CE,),
        V_ALONE,
        predict=adjusted,
        biased=True,
        about="Minus the log of the probability of the true class: every image counts alike, so the head decides.",
    ),
    "bsce": _row(
        "balanced softmax",
        "Cross-entropy of the logits plus log n, which the test leaves out.",
        on_v(losses.balanced_softmax),
        V_ALONE,
        k=0.0,
    ),
    "bib": _row(
        "BIB",
        "Balanced softmax on v and on z, and z is taught by v.",
        on_both(losses.bib),
        BOTH,
        OF_BIB,
    ),
    "mbib": _mbib("MBIB", "BIB whose z is taught by three observations, the deepest most.", losses.mbib),
    # Parts of BIB (appendices B and C).
    "ce-2branch": _row(
        "cross-entropy, two branches",
        "Cross-entropy on v and on z, neither teaching the other.",
        on_both(partial(losses.bib, beta=0.0, tau=0.0)),
        BOTH,
    ),
    "sdib": _row(
        "BIB without balance",
        "Cross-entropy on v and on z, and z is taught by v.",
        on_both(partial(losses.bib, tau=0.0)),
        BOTH,
        ("beta", "gamma"),
    ),
    "bsce-mlp": _row(
        "balanced softmax on z alone",
        "BIB's network without a classifier on v and without a teacher.",
        on_z(losses.balanced_softmax),
        Z_ALONE,
        ("k",),
    ),
    "bsce-2branch": _row(
        "balanced softmax, two branches",
        "Balanced softmax on v and on z, neither teaching the other.",
        on_both(partial(losses.bib, beta=0.0)),
        BOTH,
        ("k",),
    ),
    # Other mixtures (appendix F, table 4).
    "se-mbib": _mbib(
        "SE-MBIB", "Bottlenecks between neighbours, v_1 to v_2 to v_3 to z, each teaching the next.", losses.se_mbib
    ),
    "all-mbib": _mbib("ALL-MBIB", "The mean of MBIB and SE-MBIB.", losses.all_mbib),
    "mbib-x": _mbib(
        "MBIB from the picture, too",
        "MBIB with a fourth observation: the image itself.",
        losses.mbib,
        FROM_IMAGE,
        alphas=shared_alphas(4),
    ),
    # MBIB with less balance (table 9).
    "mbib-no-adjustment": _mbib(
        "MBIB, class weights only", "MBIB without log n on the logits.", partial(losses.mbib, tau=0.0)
    ),
    "mbib-no-weights": _mbib(
        "MBIB, logit adjustment only", "MBIB without class weights.", partial(losses.mbib, k=0.0), without=("k",)
    ),
    "mbib-no-balance": _mbib(
        "MBIB, no balance",
        "MBIB without class weights and without log n on the logits.",
        partial(losses.mbib, k=0.0, tau=0.0),
        without=("k",),
    ),
    # Controls that the paper lacks.
    "mbib-beta0": _mbib("MBIB, beta = 0", "MBIB's network and losses, but z has no teacher.", losses.mbib, beta=0.0),
    "mbib-deepest": _mbib(
        "MBIB, z taught by v_3 alone", "MBIB whose shallow observations teach nothing.", losses.deepest_mbib
    ),
    "bib-untaught": _row(
        "BIB, (1 + beta) L_z untaught",
        "BIB whose z gets more weight on its own loss in place of a teacher.",
        on_both(losses.untaught_bib),
        BOTH,
        ("beta", "k"),
    ),
    "mbib-untaught": _mbib(
        "MBIB, (1 + beta) L_z untaught",
        "MBIB whose z gets more weight on its own loss in place of teachers.",
        losses.untaught_mbib,
        without=("gamma",),
    ),
    "mbib-consistent": _mbib(
        "MBIB, weights n^-k with n^(1-k)",
        "MBIB with weights n^-k and (1 - k) log n on the logits, which together stay consistent.",
        consistent_mbib,
        k=0.5,
    ),
}
