"""Other bottlenecks, trained on the same network: what BIB is compared with in the chapters on theory.

All are trained by this project's schedules (its weight decay, crop and flip), on the deepest observation v of the
paper's network with as many dimensions of z as v has. Their beta is the price of the rate, not of disagreement.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

from torch import Tensor
from torch.nn import functional as F

from mbib_core import losses, stochastic
from mbib_core.losses import Counts, Logits
from mbib_core.methods.method import Method, Stage, on_both
from mbib_core.methods.paper import BOTH
from mbib_core.networks import Network, Outputs
from mbib_core.rebalancing import Scalar, Targets


def priced(
    outputs: Outputs, targets: Targets, *, counts: Counts, beta: float, tau: float = 0.0, power: float = 1.0, **_: Any
) -> Scalar:
    """Cross-entropy of z's logits + beta rate^power; `tau` log n is added to the logits."""
    logits, rate = outputs.z_logits, outputs.rate
    assert logits is not None
    assert rate is not None
    return losses.balanced_softmax(logits, targets, counts=counts, tau=tau) + beta * rate**power


def published_vsd(v_logits: Logits, z_logits: Logits, targets: Targets, *, beta: float) -> Scalar:
    """Two cross-entropies + beta times what VSD's code computes for Eq. 8."""
    supervised = F.cross_entropy(v_logits, targets) + F.cross_entropy(z_logits, targets)
    return supervised + beta * stochastic.published_distillation(v_logits, z_logits)


def _drawn(title: str, kind: str, loss: Callable[..., Tensor], beta: float, **more: Any) -> Method:
    parts = Network(with_v=False, stochastic=kind)
    return Method(title, (Stage(loss),), parts, {"beta": beta}, **more)


BOTTLENECKS: dict[str, Method] = {
    # Alemi's code trains with Adam, answers with a running mean of the weights and has 256 dimensions.
    "vib": _drawn(
        "VIB",
        "gaussian",
        priced,
        1e-3,
        biased=True,
        source="Alemi et al. 2017",
        about="Draws z from a Gaussian that v sets, and prices its divergence from a standard normal one.",
    ),
    # Inferred: no publication balances VIB; the cross-entropy alone is exchanged.
    "vib-bsce": _drawn(
        "VIB, balanced softmax",
        "gaussian",
        partial(priced, tau=1.0),
        1e-3,
        source="Alemi et al. 2017, balanced here",
        about="Is VIB with the balanced softmax in place of cross-entropy.",
    ),
    # The demo of Kolchinsky's code has 10 dimensions, batches of 256, and noise drawn anew at test time; here the noise
    # of the test is fixed, as VIB's. At the start the bound is log B to three digits with next to no gradient, as the
    # images lie further apart than the noise reaches. On Glyphs-LT (batches of 32, 24 epochs) the published beta of
    # 0.05 leaves the loss at the entropy of the labels, 3.3 nats, and the accuracy at chance; of one run each, 0.005
    # reached 66 % of the validation images, 0 80 %.
    "nib": _drawn(
        "nonlinear IB",
        "homoscedastic",
        partial(priced, power=2.0),
        0.05,
        biased=True,
        source="Kolchinsky et al. 2019",
        about="Adds noise of one trained variance, and prices the square of a pairwise bound on what z keeps.",
    ),
    # Inferred: the published code is for reinforcement learning; images, the place of z and the bins' range are ours,
    # beta is the code's. Weight decay also pulls the chances towards 1/2.
    "drop": _drawn(
        "Drop-bottleneck",
        "drop",
        priced,
        1e-3,
        biased=True,
        source="Kim et al. 2021",
        about="Drops each dimension of v with a trained chance, and prices the entropy of those that are kept.",
    ),
    # Its weight and temperature; the network, its z and the two cross-entropies are BIB's. The same loss as sdib's.
    "vsd": Method(
        "VSD",
        (Stage(on_both(partial(losses.bib, tau=0.0))),),
        BOTH,
        {"beta": 2.0},
        biased=True,
        source="Tian et al. 2021",
        about="Teaches z what v predicts, by their divergence.",
    ),
    # A control: the divergence as the published code computes it, which pulls z's posterior towards a uniform one.
    "vsd-published": Method(
        "VSD, loss as in its code",
        (Stage(on_both(published_vsd)),),
        BOTH,
        {"beta": 2.0},
        biased=True,
        source="Tian et al. 2021",
        about="Is VSD with the term that its code computes, whose best z says nearly nothing.",
    ),
}
